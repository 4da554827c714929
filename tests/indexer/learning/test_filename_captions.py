import pytest

from fovea.indexer.learning.filename_captions import name_captions, words_in


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("IMG_1234", ""),
        ("DSC00042", ""),
        ("P1010023", ""),
        ("PXL_20230704_123456789.PORTRAIT", ""),
        ("IMG-20190704-WA0012", ""),
        ("WhatsApp Image 2020-01-02 at 12.30.11 (1)", ""),
        ("100CANON", ""),
        ("DCIM", ""),
        ("2019-07", ""),
        ("2019-07-04 12.30.11", ""),
        ("a8f3c29b04de", ""),
        ("deadbeefcafe", ""),
        ("3f2504e0-4f89-11d3-9a0c-0305e82c3301", ""),
        ("1920x1080", ""),
        ("sunset_at_the-beach", "sunset at the beach"),
        ("SunsetAtTheBeach02", "Sunset At The Beach"),
        ("Paris2019", "Paris"),
        ("2019 Norway trip (3)", "Norway trip"),
        ("2019-07 July, Norway", "Norway"),
        ("May and June", "May and June"),
        ("2019 Weihnachten bei Oma", "Weihnachten bei Oma"),
        ("a dog_copy-2", "a dog"),
        ("grandma's garden", "grandma's garden"),
        ("été à la plage", "été à la plage"),
        ("海边日落_0012", "海边日落"),
        ("山 01", "山"),
        ("qwrtp", ""),
        ("BBQ at Tom's", "BBQ at Tom's"),
        ("x", ""),
        ("", ""),
    ],
)
def test_a_names_words_are_what_people_wrote(name, words):
    assert words_in(name) == words


@pytest.mark.parametrize(
    ("path", "captions"),
    [
        (b"/p/IMG_1.jpg", ()),
        (b"/p/a red boat.jpg", ("a red boat",)),
        (b"/p/2019 Norway/IMG_1.jpg", ("Norway",)),
        (b"/p/2019 Norway/DCIM/100CANON/IMG_1.jpg", ("Norway",)),
        (b"/p/Norway/a red boat.jpg", ("a red boat", "a red boat, Norway")),
        (b"/p/boat/boat 3.jpg", ("boat",)),
        (b"/p/caf\xe9 noir/x.jpg", ("caf noir",)),
    ],
)
def test_names_below_a_root_become_captions(path, captions):
    assert name_captions(path, b"/p") == captions


def test_the_folders_above_a_root_say_nothing():
    assert name_captions(b"/home/me/holiday pictures/x/1.jpg", b"/home/me/holiday pictures") == ()
