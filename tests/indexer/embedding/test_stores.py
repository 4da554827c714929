import pytest

from fovea.indexer.embedding.remote import file_system, is_url
from fovea.indexer.embedding.sources import source_of
from fovea.search.errors import FoveaError

fsspec = pytest.importorskip("fsspec", reason="fsspec, of fovea[cluster], is not installed")


@pytest.fixture
def store():
    store = fsspec.filesystem("memory")
    for path in store.find("/"):
        store.rm(path)
    return store


def test_a_folder_that_cannot_be_listed_is_a_problem_of_that_folder(
    embed, photos, store, monkeypatch
):
    for name in ("ok/a.png", "ok/deep/bad/b.png", "z/c.png"):
        store.pipe(f"/w/{name}", (photos / "a.png").read_bytes())
    ls = type(store).ls

    def refusing(self, path, *arguments, **options):
        if path.rstrip("/").endswith("/bad"):
            raise PermissionError("403 AccessDenied")
        return ls(self, path, *arguments, **options)

    monkeypatch.setattr(type(store), "ls", refusing)
    report = embed("memory://w")
    assert report.embedded == 2
    assert report.problems == (("memory://w/ok/deep/bad", "unreadable: 403 AccessDenied"),)


def test_colons_in_names_mean_nothing(embed, photos, store):
    store.pipe("/b/a::b.png", (photos / "a.png").read_bytes())
    store.pipe("/b/x::y/c.png", (photos / "c.png").read_bytes())
    assert embed("memory://b").embedded == 2
    assert sorted(embed.names()) == ["a::b.png", "c.png"]
    assert embed("memory://b/x::y").unchanged == 1
    folder = photos / "x::y"
    folder.mkdir()
    (photos / "a.png").rename(folder / "e.png")
    assert embed(f"file://{folder}").embedded == 1


def test_a_url_opens_nothing_but_its_own_scheme(store):
    for url in ("memory://x.png::http://127.0.0.1:9/s.png", "memory://x::simplecache::file:///y"):
        system, path = file_system(url)
        assert system is store
        assert path == "/" + url.partition("://")[2]
    with pytest.raises(FoveaError, match="is not read"):
        source_of("simplecache::memory://x")


def test_objects_have_one_name_in_folders_and_lists(embed, photos, store):
    store.pipe("/b/a.png", (photos / "a.png").read_bytes())
    embed("MEMORY://b")
    [row] = embed.rows()
    assert row["image_path"] == "memory://b/a.png"
    assert embed("memory://b/").unchanged == 1
    assert is_url(row["image_path"])


@pytest.mark.parametrize("source", ["memory://", "memory:///"])
def test_a_whole_store_may_be_a_source(embed, photos, store, source):
    store.pipe("/b/a.png", (photos / "a.png").read_bytes())
    assert embed(source).embedded == 1
