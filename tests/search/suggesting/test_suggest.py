"""Suggestions: what is meant by what is typed, and that choosing one finds what it says."""

import random
from datetime import date

import pytest

from fovea.search.places.stored import Locality, NewLocality, NewPlace, replace_places
from fovea.search.query.filters import allowed_images
from fovea.search.query.language import parse
from fovea.search.suggesting.known import Known, WordIndex
from fovea.search.suggesting.suggest import KINDS, LONGEST, MOST, suggest
from fovea.search.tags.scoring import refresh
from fovea.search.tags.stored import say

TODAY = date(2026, 11, 26)
LISBON = NewLocality("town", Locality("Lisbon", "里斯本", "2"), frozenset({"lisbon", "里斯本"}))
BELEM = NewLocality("town", Locality("Belém", None, "4"), frozenset({"belem"}))
PORTUGAL = NewLocality(
    "country", Locality("Portugal", "葡萄牙", "PT"), frozenset({"portugal", "葡萄牙"})
)
PLACES = [
    NewPlace((4, 2), BELEM, LISBON, None, PORTUGAL),
    NewPlace((2,), LISBON, None, None, PORTUGAL),
]


@pytest.fixture
def ask(odd_library):
    known = Known.of(odd_library)

    def asked(text, at=None):
        return suggest(odd_library, known, text, at, today=TODAY)

    return asked


def shown(found):
    return [(one.kind, one.label, one.count, one.words, one.filter) for one in found]


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "beach portu",
            ("folder", "photos/holidays/2019 Portugal", 3, "beach",
             'in:"photos/holidays/2019 Portugal"'),
        ),
        ("iphone", ("camera", "Apple iPhone 13", 3, "", 'camera:"Apple iPhone 13"')),
        ("dog july 2019", ("date", "July 2019", 2, "dog", "on:2019-07")),
        ("jul", ("date", "July 2019", 2, "", "on:2019-07")),
        ("2019", ("date", "2019", 3, "", "on:2019")),
        ("yesterday", ("date", "yesterday", 1, "", "on:2026-11-25")),
        ("last summer", ("date", "last summer", 1, "", "after:2026-05 before:2026-09")),
        ("christmas 2025", ("date", "Christmas 2025", 1, "", "after:2025-12-23 before:2025-12-27")),
        ("去年", ("date", "去年", 2, "", "on:2025")),
        ("海滩 2019年7月", ("date", "2019年7月", 2, "海滩", "on:2019-07")),
        ("昨天", ("date", "昨天", 1, "", "on:2026-11-25")),
        ("上个月", ("date", "上个月", 1, "", "on:2026-10")),
        ("葡萄", ("folder", "photos/葡萄牙旅行", 1, "", "in:photos/葡萄牙旅行")),
        ("ile de re", ("folder", "photos/holidays/2018/Île de Ré", 2, "",
                       'in:"photos/holidays/2018/Île de Ré"')),
        ("heic", ("format", "HEIF", 1, "", "format:heif")),
        ("fav", ("is", "is:favourite", 2, "", "is:favourite")),
        ("收藏", ("is", "is:favourite", 2, "", "is:favourite")),
        ("img_0", ("name", "img_0*", 5, "", "name:img_0*")),
        ("beach party", ("name", "beach party.jpg", 1, "", 'name:"beach party.jpg"')),
        ("board", ("text", "boarding", 3, "", "text:boarding")),
        ("dog boarding pas", ("text", "boarding pass", 2, "dog", 'text:"boarding pass"')),
        ("登机", ("text", "登机", 1, "", "text:登机")),
        ("text:zur", ("text", "zurich", 1, "", "text:zurich")),
        ('text:"boarding pa', ("text", "boarding pass", 2, "", 'text:"boarding pass"')),
        ("-text:board", ("text", "boarding", 8, "", "-text:boarding")),
        ('text:"', None),
        ("text:*", None),
        ("writ", ("filter", "text:", None, "text:", "")),
        ("long", ("filter", "longer:", None, "longer:", "")),
        ("cam", ("filter", "camera:", None, "camera:", "")),
        ("dog cam", ("filter", "camera:", None, "dog camera:", "")),
        ("fold", ("filter", "in:", None, "in:", "")),
        ("dog in:hol", ("folder", "photos/holidays", 5, "dog", "in:photos/holidays")),
        ('in:"2019 po', ("folder", "photos/holidays/2019 Portugal", 3, "",
                         'in:"photos/holidays/2019 Portugal"')),
        ("camera:nik", ("camera", "NIKON D90", 1, "", 'camera:"NIKON D90"')),
        ("format:j", ("format", "JPEG", 9, "", "format:jpeg")),
        ("is:", ("is", "is:favourite", 2, "", "is:favourite")),
        ("is:hid", ("is", "is:hidden", 1, "", "is:hidden")),
        ("on:20", ("date", "2026", 3, "", "on:2026")),
        ("on:2019-", ("date", "2019-08", 1, "", "on:2019-08")),
        ("after:yest", None),  # nothing is later than yesterday
        ("before:july", ("date", "July 2019", 3, "", "before:2019-07")),
        ("-in:hol", ("folder", "photos/holidays", 6, "", "-in:photos/holidays")),
        ("dog -portug", ("folder", "photos/holidays/2019 Portugal", 8, "dog",
                         '-in:"photos/holidays/2019 Portugal"')),
        ("size:>", ("size", "size:>5MB", 6, "", "size:>5MB")),
        ("sort:d", ("sort", "sort:date", None, "", "sort:date")),
        ("portugal", ("search", "Portugal at night", None, 'night in:"2019 Portugal"', "")),
    ],
)  # fmt: skip
def test_what_is_typed_suggests_what_may_be_meant(ask, text, expected):
    found = shown(ask(text))
    if expected is None:
        assert found == []
    elif expected[0] in ("search", "filter"):
        assert expected in found
    else:
        assert found[0] == expected


@pytest.mark.parametrize(
    "text", ["last summer", "last year", "3 years ago", "july 2025", "dog last month"]
)
def test_of_a_date_without_pictures_no_part_is_suggested(odd_library, text):
    found = suggest(odd_library, Known.of(odd_library), text, today=date(2035, 1, 9))
    assert not {one.kind for one in found} & {"date", "filter"}


def test_an_empty_box_suggests_the_saved_searches(ask):
    assert [one.label for one in ask("")] == ["Beach days", "Portugal at night"]
    assert ask("  ")[0].words == "beach -people after:2018"


@pytest.mark.parametrize(
    "text",
    ["secret", "secret cam", "camera:secret", "gif", "on:2020", "hidden thi", "christmas 2020"],
)
def test_what_only_hidden_pictures_have_is_not_suggested(ask, text):
    for one in ask(text):
        assert not any(word in one.filter for word in ("ecret", "things", "gif", "2020")), one


def test_counts_are_those_of_the_query_with_its_other_filters(ask):
    [first, second] = ask("in:holidays iphone")
    assert (second.label, second.count) == ("Apple iPhone 6", 2)
    assert (first.label, first.count, first.words) == ("Apple iPhone 13", 1, "in:holidays")
    assert [one.label for one in ask("in:phone portug") if one.kind == "folder"] == []
    [hidden] = [one for one in ask("is:hidden gif") if one.kind == "format"]
    assert (hidden.filter, hidden.count) == ("format:gif", 1)


def test_filters_that_hold_besides_count(odd_library):
    known = Known.of(odd_library)
    [first] = suggest(odd_library, known, "iphone 6", beside="in:holidays on:2019-07")
    assert (first.count, first.words, first.filter) == (2, "", 'camera:"Apple iPhone 6"')
    assert suggest(odd_library, known, "nikon", beside="in:phone") == []
    assert suggest(odd_library, known, "iphone", beside="on:never") == []


def test_folders_that_the_other_filters_leave_are_found_among_many(library, written):
    """However many others of that name have more pictures."""
    library.add_root(b"/photos")
    pictures = [
        (f"/photos/{year}/party {number}/{place}.jpg", f"{year}-01-01", None)
        for year in (2018, 2019)
        for number in range(40)
        for place in range(2 if year == 2018 else 1)
    ]
    written(library, pictures)
    found = suggest(library, Known.of(library), "in:2019 party")
    assert [one.count for one in found] == [1] * MOST
    assert all(one.label.startswith("photos/2019/party") for one in found)


def test_the_caret_says_what_is_being_typed(ask):
    [first, *_] = ask("portug beach", 6)
    assert (first.words, first.filter) == ("beach", 'in:"photos/holidays/2019 Portugal"')
    [first, *_] = ask("portug beach", 3)
    assert first.words == "beach", "the rest of the word is replaced, too"
    [first, *_] = ask('dog in:"2019 Portugal" cat', 12)
    assert (first.kind, first.words) == ("folder", "dog cat")
    assert ask("in:holidays ") == [], "nothing is being typed"
    assert ask('"portugal"') == ask("2:portugal") == ask("+portugal") == []
    assert ask("dog", 10_000) == ask("dog")
    with pytest.raises(ValueError, match="-1"):
        ask("dog", -1)


def test_words_of_a_sentence_do_not_name_filters(ask):
    assert "on:" in [one.label for one in ask("on")]
    assert ask("dog on") == []


def test_where_the_rest_cannot_be_read_nothing_is_suggested(ask):
    for rest in ("on:never", "nofilter:x", '"'):
        assert ask(f"{rest} portugal") == [] or rest == '"'


def test_kinds_share_the_places_and_stay_together(ask):
    for text in ("2019", "portugal", "p", "i", "is:", "ca"):
        kinds = [one.kind for one in ask(text)]
        assert len(kinds) <= MOST
        assert kinds == sorted(kinds, key=KINDS.index)


def test_what_was_typed_is_marked_in_labels(ask):
    def marked(text, label):
        [one] = [one for one in ask(text) if one.label == label]
        return [label[start:end] for start, end in one.matched]

    assert marked("2019 portu", "photos/holidays/2019 Portugal") == ["2019", "Portu"]
    assert marked("ile", "photos/holidays/2018/Île de Ré") == ["Île"]
    assert marked("葡萄", "photos/葡萄牙旅行") == ["葡萄"]
    assert marked("iph", "Apple iPhone 6") == ["iPh"]


PARTS = (
    "portugal", "2019", "july", "iphone", "img", "img_0001.jpg", "cam", "is:", "in:hol", "in:",
    "on:", "on:20", "-", "+", '"', 'in:"', "\\", "camera:", "last", "last summer", "去年", "夏天",
    "海滩", "name:", "name:b*", "b*", "sort:", "format:j", "-port", "-iphone", "he said", "quo",
    "hi", "size:", "near:", "like:1", "2:dog", "dog", "is:hidden", "after:2018", "before:", "odd",
    "\udcff", "\x1b[31m", "：", "\u202e", "hidden", "a" * 300, "in:phone", "-is:favourite",
    "sort:date", "minus", "back",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_every_suggestion_gives_a_query_that_finds_what_it_says(odd_library, ask, seed):
    draw = random.Random(seed)
    chosen = 0
    for _ in range(150):
        parts = draw.choices(PARTS, k=draw.randint(1, 4))
        text = draw.choice((" ", " ", "", "  ")).join(parts)
        at = draw.choice((None, draw.randint(0, len(text) + 1)))
        for one in ask(text, at):
            assert one.kind in KINDS and one.label
            assert all(0 <= start < end <= len(one.label) for start, end in one.matched)
            if one.kind == "filter":
                assert one.words.endswith(one.label) and not one.filter and one.count is None
                parse(f"{one.words}x" if one.label == "camera:" else one.words.rpartition(" ")[0])
                continue
            query = parse(f"{one.words} {one.filter}")
            if one.count is None:
                assert one.kind in ("search", "sort")
                continue
            assert one.filter and one.count == len(allowed_images(odd_library, query.filters)), one
            chosen += 1
    assert chosen > 50


def test_hostile_texts_are_harmless(ask):
    for text in ("\0", "\ud800", "'; DROP TABLE files; --", "%", "_", "*", "?" * 50, "(" * 2000):
        ask(text)
    assert ask("a" * (LONGEST + 1)) == []
    assert ask("in:" + "x " * 900) == []


def test_an_empty_library_suggests_names_of_filters_only(library):
    known = Known.of(library)
    for text in ("portugal", "2019", "yesterday", "in:", "", "img_1"):
        assert suggest(library, known, text) == []
    assert [one.label for one in suggest(library, known, "came")] == ["camera:"]


def test_seasons_are_southern_where_the_pictures_are(library, written):
    library.add_root(b"/photos")
    path = "/photos/x.jpg"
    written(library, [(path, "2024-01-10T10:00:00", None)])
    known = Known.of(library)
    [north] = [one for one in suggest(library, known, "winter 2023") if one.kind == "date"]
    assert north.filter == "after:2023-11 before:2024-03"
    library.conn.execute("UPDATE images SET latitude = -33.9")
    known = Known.of(library)
    assert known.is_south
    [south] = [one for one in suggest(library, known, "summer 2023") if one.kind == "date"]
    assert south.filter == "after:2023-11 before:2024-03"


def test_words_are_found_by_their_beginnings_only():
    index = WordIndex([["holidays", "2019"], ["hol", "photos"], ["海滩照片"], ["photos", "2019"]])
    assert index.find(["hol"]).tolist() == [0, 1]
    assert index.find(["hol", "20"]).tolist() == [0]
    assert index.find(["idays"]).tolist() == []
    assert index.find(["照"]).tolist() == [2]
    assert index.find([]).tolist() == []


def test_lenses_and_places_are_suggested_by_the_beginnings_of_their_words(odd_library):
    """With the country beside a town, and by Chinese names where there are any."""
    with odd_library.transaction() as conn:
        conn.execute("UPDATE images SET lens = 'RF24-105mm F4 L IS USM' WHERE id <= 4")
    replace_places(odd_library, "1", PLACES, [(1, (2,)), (2, (2,)), (3, (4, 2)), (6, (2,))])
    known = Known.of(odd_library)

    def ask(text, beside=""):
        found = suggest(odd_library, known, text, beside=beside, today=TODAY)
        return [one for one in shown(found) if one[0] in ("lens", "place")]

    lisbon = ("place", "Lisbon, Portugal", 4, "", "place:Lisbon")
    assert ask("lisb") == [lisbon]
    assert ask("dog lisbon") == [("place", "Lisbon, Portugal", 4, "dog", "place:Lisbon")]
    assert ask("lisbon", "camera:iphone") == [("place", "Lisbon, Portugal", 3, "", "place:Lisbon")]
    assert ask("里斯") == [("place", "里斯本，葡萄牙", 4, "", "place:里斯本")]
    assert ask("portugal") == [("place", "Portugal", 4, "", "place:Portugal")], "not its towns"
    assert ask("place:bel") == [("place", "Belém, Portugal", 1, "", "place:Belém")]
    assert [label for _, label, *_ in ask("place:")] == [
        "Lisbon, Portugal", "Portugal", "Belém, Portugal"
    ]  # fmt: skip
    assert ask("rf24-105") == [
        ("lens", "RF24-105mm F4 L IS USM", 4, "", 'lens:"RF24-105mm F4 L IS USM"')
    ]
    assert ask("-lens:rf") == [
        ("lens", "RF24-105mm F4 L IS USM", 7, "", '-lens:"RF24-105mm F4 L IS USM"')
    ]
    assert [(one.kind, one.label) for one in suggest(odd_library, known, "plac")] == [
        ("filter", "place:")
    ]


def test_tags_are_suggested_by_the_beginnings_of_their_words(odd_library):
    """With their pictures counted, in any writing, and under the colon all of them."""
    odd_library.set_model("toy", "a" * 64, 8, "test")
    hashes = dict(odd_library.rows("SELECT id, hash FROM images"))
    for name, ids in (("Rex", (1, 2, 3)), ("Old Rex", (4,)), ("雷克斯的球", (1, 2))):
        say(odd_library, name, yes=[hashes[number] for number in ids])
    refresh(odd_library)
    known = Known.of(odd_library)

    def ask(text):
        found = suggest(odd_library, known, text, today=TODAY)
        return [one[1:] for one in shown(found) if one[0] == "tag"]

    assert ask("beach re") == [
        ("Rex", 3, "beach", "tag:Rex"), ("Old Rex", 1, "beach", 'tag:"Old Rex"')
    ]  # fmt: skip
    assert ask("tag:old") == [("Old Rex", 1, "", 'tag:"Old Rex"')]
    assert ask("克斯") == [("雷克斯的球", 2, "", "tag:雷克斯的球")]
    assert {label for label, *_ in ask("tag:")} == {"Old Rex", "Rex", "雷克斯的球"}
    assert ask("ex") == [] and ask("-tag:rex")[0][3] == "-tag:Rex"
