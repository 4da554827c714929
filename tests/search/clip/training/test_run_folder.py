import json
import os
from contextlib import contextmanager

import pytest
import torch

from fovea.search.clip.errors import ModelError
from fovea.search.clip.training.run_folder import RunFolder

RUN = {"lr": 0.1, "pairs": [3, 4]}


def test_a_checkpoint_comes_back(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run", RUN)
    assert folder.load() is None
    folder.save(2, {"model": {"w": torch.ones(3)}})
    folder.save(3, {"model": {"w": torch.arange(3)}})
    saved = RunFolder(tmp_path / "deep" / "run", RUN).load()
    assert saved["step"] == 3 and torch.equal(saved["model"]["w"], torch.arange(3))
    assert [path.name for path in folder.folder.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_another_run_is_refused_and_says_why(tmp_path):
    RunFolder(tmp_path, RUN).save(1, {})
    with pytest.raises(ModelError, match=r"other options \(lr, seed\); use those"):
        RunFolder(tmp_path, RUN | {"lr": 0.2, "seed": 1}).load()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no more", b"nothing of the kind"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ModelError) as told:
        RunFolder(tmp_path, RUN).load()
    assert str(told.value) == (
        f"cannot resume from {tmp_path / 'checkpoint.pt'}: it is damaged or incomplete; delete it "
        "to start again"
    )


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_checkpoint_that_was_cut_short_is_named(tmp_path, share):
    folder = RunFolder(tmp_path, RUN)
    folder.save(1, {"model": {"w": torch.zeros(1000)}})
    whole = folder.checkpoint.read_bytes()
    folder.checkpoint.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match="checkpoint.pt: it is damaged or incomplete; delete it"):
        folder.load()


@contextmanager
def no_file_above(limit):
    """Let the system refuse what makes a file larger than so many bytes, as a full disk would."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(os.name != "posix", reason="limits on files are those of POSIX")
def test_a_checkpoint_that_does_not_fit_says_why_and_what_is_left(tmp_path):
    folder, path = RunFolder(tmp_path, RUN), tmp_path / "checkpoint.pt"
    large = {"model": {"w": torch.zeros(1 << 19)}}
    with no_file_above(1 << 20), pytest.raises(ModelError) as told:
        folder.save(1, large)
    nothing = f"no checkpoint has been written to {tmp_path} yet"
    reason = f"the file has reached the largest size allowed in {tmp_path} (ulimit -f)"
    assert str(told.value).startswith(f"cannot write {path}: {reason}")
    assert str(told.value).endswith(f"make room there and try again; {nothing}")
    folder.save(1, {"model": {}})
    with no_file_above(1 << 20), pytest.raises(ModelError) as told:
        folder.save(2, large)
    left = f"the earlier file is unchanged; {path} has the weights of step 1"
    assert str(told.value).startswith(f"cannot write {path}: {reason}")
    assert str(told.value).endswith(left)
    assert folder.load()["step"] == 1 and os.listdir(tmp_path) == ["checkpoint.pt"]


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"run": RUN, "step": tmp_path.touch}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match="cannot resume"):
        RunFolder(tmp_path, RUN).load()


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(ModelError, match="run"):
        RunFolder(tmp_path / "run", RUN)


def test_lines_after_the_checkpoint_are_taken_back(tmp_path):
    folder = RunFolder(tmp_path, RUN)
    folder.rewind(0)
    assert not folder.metrics.exists()
    for step in (2, 4, 6):
        folder.append({"step": step})
    folder.rewind(6)
    assert len(folder.metrics.read_text().splitlines()) == 3
    folder.rewind(4)
    folder.append({"step": 5})
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 5]


def test_a_line_that_a_kill_cut_short_is_taken_back(tmp_path):
    folder = RunFolder(tmp_path, RUN)
    folder.append({"step": 2})
    for torn in ('{"step": 4, "lo', '{"step": 4}'):
        with folder.metrics.open("a") as file:
            file.write(torn)
        folder.rewind(9)
        assert folder.metrics.read_text() == '{"step": 2}\n'
