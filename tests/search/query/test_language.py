import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.search.errors import QueryError
from fovea.search.query.filters import FILTERS as KINDS
from fovea.search.query.language import PROBLEMS, SORTS, Filter, Query, Term, parse


def text(value, weight=1.0):
    return Term("text", value, weight)


@pytest.mark.parametrize(
    ("written", "terms"),
    [
        ("red bicycle", [text("red bicycle")]),
        ('"exact phrase as one term"', [text("exact phrase as one term")]),
        ("horse +stripes", [text("horse"), text("stripes")]),
        ("beach -people", [text("beach"), text("people", -1)]),
        ("2:snow", [text("snow", 2)]),
        ('-0.5:"blue sky" dog', [text("blue sky", -0.5), text("dog")]),
        ("like:12 -2:like:7", [Term("like", 12), Term("like", 7, -2.0)]),
        ("red in:2019 bicycle", [text("red bicycle")]),
        ("red -dog bicycle", [text("red"), text("dog", -1), text("bicycle")]),
        ("black - white :) it's", [text("black - white :) it's")]),
        ("0.001:red 99.9999:sky", [text("red", 0.001), text("sky", 100)]),
        ('".5:x" ... .: 1/2:x', [text(".5:x"), text("... .: 1/2:x")]),
        ('"say \\"hi\\" \\\\ "', [text('say "hi" \\')]),
        ("Äpfel 苹果 \u3000 \t 🍎", [text("Äpfel 苹果 🍎")]),
        ("", []),
    ],
)
def test_terms(written, terms):
    query = parse(written)
    assert list(query.terms) == terms
    assert parse(str(query)) == query


@pytest.mark.parametrize(
    ("written", "filters"),
    [
        ("in:holidays/2019", [Filter("in", "holidays/2019")]),
        ("in:/photos//a/", [Filter("in", "/photos/a")]),
        ("in:/", [Filter("in", "/")]),
        ("name:IMG_*", [Filter("name", "IMG_*")]),
        ('-name:"a b" IN:x', [Filter("name", "a b", True), Filter("in", "x")]),
        ("on:2024-07-01 after:2019", [Filter("on", "2024-07-01"), Filter("after", "2019")]),
        ("before:2020-06", [Filter("before", "2020-06")]),
        ("camera:canon -format:heic", [Filter("camera", "canon"), Filter("format", "heic", True)]),
        ("is:Portrait size:>10mp", [Filter("is", "portrait"), Filter("size", ">10MP")]),
        ("size:<=500KB", [Filter("size", "<=500kB")]),
        ("near:48.2,16.4,10km", [Filter("near", "48.2,16.4,10km")]),
        ('camera:"-x:y \\"z\\""', [Filter("camera", '-x:y "z"')]),
        ('in:"a  b /c"', [Filter("in", "a  b /c")]),
        ('name:" x"', [Filter("name", " x")]),
        ('in:"caf\udce9"', [Filter("in", "caf\udce9")]),
    ],
)
def test_filters(written, filters):
    query = parse(written)
    assert list(query.filters) == filters and not query.terms
    assert parse(str(query)) == query


def test_sort():
    assert parse("dog sort:date") == Query((text("dog"),), (), "date")


@pytest.mark.parametrize(
    ("written", "position", "said"),
    [
        ('red "blue', 4, "mark '\"blue' is never closed; add another"),
        ('""', 0, "marks are empty; write words"),
        ('"a"b', 3, "a space is missing after the closing quotation mark"),
        ("dog in:", 7, "in: has no value"),
        ("dog 2:", 6, "the weight '2' has no words"),
        ("0:dog", 0, "weight '0' is out of range; use one from 0.001 to 100"),
        ("a 0.0004:dog", 2, "from 0.001"),
        ("101:dog", 0, "to 100"),
        ("100.0001:dog", 0, "to 100"),
        ("a -1234567890:dog", 2, "to 100"),
        (".5:dog", 0, "'.5' is not a weight; write one such as 2: or 0.5:"),
        ("a 2.:dog", 2, "is not a weight"),
        ("1.2.3:like:4", 0, "is not a weight"),
        ("like:x", 5, "'x' is not the number of a picture"),
        ("like:0", 5, "number of a picture"),
        ("on:2019-13", 3, "'2019-13' is not a date; write 2019, 2019-07 or"),
        ("on:2019-02-30", 3, "not a date"),
        ("on:0000", 3, "not a date"),
        ("after:yesterday", 6, "not a date"),
        ("is:round", 3, "'round' does not fit is:; write portrait, landscape, square"),
        ("size:10MP", 5, "'10MP' is not a size; write one such as >10MP"),
        ("near:91,0,1km", 5, "write latitude,longitude,distance"),
        ("sort:size", 0, "'sort:size' is not an order; write sort:score"),
        ("-sort:date", 0, "is not an order"),
        ("+sort:date", 0, "sort: takes no plus sign"),
        ("a sort:date sort:name", 12, "sort: appears twice"),
        ("2:in:x", 0, "in: takes no weight; remove it"),
        ("dog +in:x", 4, "in: takes no plus sign; remove it"),
        ('a in:" /"', 5, "' /' does not name a folder; write it as in in:"),
        ("caf\udce9", 0, "bytes that are not UTF-8"),
        ("camera:\udce9", 7, "bytes that are not UTF-8"),
        ("in:\ud800", 3, "half a character"),
        ('a name:"\0"', 7, "null character"),
        ("a " + "b" * 2000, 2, "at most 2,000 characters"),
        ("on:2019 " * 65, 512, "at most 64 terms and filters"),
        ("+a " * 64 + "b", 192, "at most 64 terms and filters"),
    ],
)
def test_an_error_says_what_was_found_where_and_what_to_write(written, position, said):
    with pytest.raises(QueryError) as raised:
        parse(written)
    message = str(raised.value)
    assert raised.value.position == position and said in message
    assert f"character {position + 1} of the query" in message and message.isprintable()
    name = raised.value.code.removeprefix("query.")
    assert PROBLEMS[name].format_map(raised.value.params) == raised.value.expected


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("color:red", "camera"),
        ("date:2019", "on"),
        ("Folder:holidays", "in"),
        ("filename:x", "name"),
        ("befor:2019", "before"),
        ("Likes:3", "like"),
        ("http://example.com", None),
        ("xyzzy:red", None),
    ],
)
def test_an_unknown_filter_names_the_nearest_one_and_all_there_are(written, near):
    with pytest.raises(QueryError) as raised:
        parse(f"a {written}")
    key = written.partition(":")[0].lower()
    hint = f" Did you mean '{near}:'?" if near else ""
    assert str(raised.value) == (
        f"there is no filter '{key}:'.{hint} Filters: in, name, on, after, before, camera, "
        "lens, format, is, size, longer, near, place, text, tag, like, sort. "
        f'Words with a colon go in quotation marks: "{key}:…" '
        "(character 3 of the query)"
    )
    assert parse(f'"{written}"').terms == (text(written),)


@pytest.mark.parametrize("key", KINDS)
def test_the_examples_of_each_filter_can_be_read(key):
    for example in KINDS[key].examples:
        [entry] = parse(example).filters
        assert entry.kind == key and parse(str(parse(example))) == parse(example)


SYNTAX = st.sampled_from([
    '"', "\\", "+", "-", ":", " ", "in:", "2:", "0.5:", ".", "5", "like:", "on:", "2019", "-07",
    "a", "sort:", "date", "size:>", "5MB", "near:", "1,2,3km", "is:square", "\n", "\u3000", "é",
    "😀", "name:", "/", "\0", "\ud800", "\udce9", "camera:",
])  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.one_of(st.text(), st.lists(SYNTAX, max_size=12).map("".join)))
def test_any_string_is_read_or_refused_at_a_place(written):
    try:
        query = parse(written)
    except QueryError as error:
        assert 0 <= error.position <= len(written) and error.expected
    else:
        assert parse(str(query)) == query


WORDS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3).map(
    lambda words: " ".join(" ".join(words).split())
)
NUMBERS = st.floats(0.001, 100).map(lambda number: round(number, 3))
WEIGHTS = st.tuples(NUMBERS, st.sampled_from([1, -1])).map(lambda pair: pair[0] * pair[1])
TERMS = st.one_of(
    st.builds(Term, st.just("text"), WORDS.filter(bool), st.one_of(st.just(1.0), WEIGHTS)),
    st.builds(Term, st.just("like"), st.integers(1, 2**63 - 1), WEIGHTS),
)
SHAPES = st.sampled_from(["portrait", "landscape", "square"])
BYTES = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])
WHOLE = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
NAMES = st.text(WHOLE | BYTES, min_size=1, max_size=12)
PLACES = st.tuples(st.floats(-90, 90), st.floats(-180, 180), st.floats(0, 20000))


def filters_of(kind, values):
    return st.builds(Filter, st.just(kind), values, st.booleans())


FILTERS = st.one_of(
    filters_of("name", NAMES.filter(str.strip)),
    filters_of("in", st.lists(NAMES.filter(lambda n: "/" not in n and n.strip()), min_size=1)
        .map("/".join)),
    filters_of("camera", WORDS.filter(bool).filter(lambda words: "\0" not in words)),
    filters_of("lens", WORDS.filter(bool).filter(lambda words: "\0" not in words)),
    filters_of("format", st.sampled_from(["heic", "jpeg", ".TIF"])),
    filters_of("is", SHAPES),
    filters_of("on", st.dates().map(str)),
    filters_of("before", st.dates().map(lambda day: str(day)[:7])),
    filters_of("after", st.dates().map(lambda day: str(day)[:4])),
    filters_of("size", st.sampled_from([">10MP", "<=0.5MB", ">=3kB", "<9GB"])),
    filters_of("near", PLACES.map(lambda place: "{:.4f},{:.4f},{:.2f}km".format(*place))),
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(TERMS, max_size=4), st.lists(FILTERS, max_size=3), st.sampled_from([None, *SORTS]))
def test_what_is_written_reads_the_same(terms, filters, sort):
    query = Query(tuple(terms), tuple(filters), sort)
    assert parse(str(query)) == query
