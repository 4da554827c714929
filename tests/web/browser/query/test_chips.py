"""The terms of a query as chips, and how the page finds them in its text."""

import contextlib
import random

import pytest

from browsing import BOX, names, visited
from fovea.search.query.language import FILTERS, Filter, Query, QueryError, Term, parse


@pytest.fixture
def page(browser, gallery):
    with visited(browser, f"{gallery}/?q=red+%2Bsnow+-rain") as page:
        page.wait_for_selector(".chip")
        yield page


def focused(page) -> list:
    """The index of the chip that has the focus, and the control."""
    return page.evaluate(
        """() => {
            const { activeElement } = document;
            const chip = activeElement.closest(".chip");
            return [[...document.querySelectorAll(".chip")].indexOf(chip), activeElement.className];
        }"""
    )


def test_the_focus_stays_where_a_chip_is_changed(page):
    page.focus(".chip:nth-child(2) .chip-sign")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip.is-negative:nth-child(2)")
    assert focused(page) == [1, "chip-sign"]
    page.focus(".chip:nth-child(3) .chip-weight")
    page.select_option(".chip:nth-child(3) .chip-weight", "2")
    page.wait_for_url("**2%3Arain*")
    assert focused(page) == [2, "chip-weight"]


def test_the_focus_goes_on_from_a_chip_that_is_removed(page):
    page.focus(".chip:nth-child(3) .chip-remove")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip:nth-child(3)", state="detached")
    assert focused(page) == [1, "chip-remove"]
    page.keyboard.press("Enter")  # the one word that is left needs no chip
    page.wait_for_selector("#chips", state="hidden")
    assert page.evaluate("document.activeElement.name") == "q"


def test_a_sign_tells_whether_it_is_pressed(page):
    signs = [page.locator(f".chip:nth-child({place}) .chip-sign") for place in (2, 3)]
    assert [sign.get_attribute("aria-pressed") for sign in signs] == ["false", "true"]
    assert [sign.get_attribute("aria-label") for sign in signs] == ["Less of snow", "Less of rain"]


def test_a_picture_of_the_library_is_called_by_its_name(browser, gallery):
    with visited(browser, gallery) as page:
        page.wait_for_selector(".tile")
        wanted = names(page)["p021.jpg"]
        page.goto(f"{gallery}/?q=like:{wanted}")
        page.wait_for_selector(".chip")
        assert page.inner_text(".chip-name") == "p021.jpg"
        page.goto(f"{gallery}/?q=-like:{wanted}+name:p052.jpg")  # it is not among the hits
        page.wait_for_selector(".chip")
        assert page.locator(".chip-name").all_inner_texts() == ["p021.jpg", "named p052.jpg"]


# Filters


LABELS = {  # text: its label, and that of its opposite
    "in:holidays": ("in holidays", "not in holidays"),
    "name:a0*": ("named a0*", "not named a0*"),
    "on:2019-07": ("July 2019", "not July 2019"),
    "after:2018": ("after 2018", "until 2018"),
    "before:2020-05": ("before May 2020", "since May 2020"),
    "camera:iphone": ("iphone", "not iphone"),
    "near:48.2,16.4,5km": (
        "within 5 km of 48.20°\u00a0N, 16.40°\u00a0E",
        "not within 5 km of 48.20°\u00a0N, 16.40°\u00a0E",
    ),
    "size:<=90MP": ("at most 90 MP", "not at most 90 MP"),
    "is:portrait": ("portrait", "not portrait"),
    "format:jpg": ("JPEG", "not JPEG"),
    "lens:rf50mm": ("rf50mm", "not rf50mm"),
    "text:exit": ("showing “exit”", "not showing “exit”"),
    "longer:1m": ("longer than 1\u00a0min", "not longer than 1\u00a0min"),
}


def labels(page) -> list[str]:
    return page.locator(".chip.is-filter .chip-name").all_inner_texts()


def query(page) -> str:
    """The query in the address."""
    return page.evaluate("new URLSearchParams(location.search).get('q')")


def wait_for_query(page, text) -> None:
    page.wait_for_function(
        "text => new URLSearchParams(location.search).get('q') === text", arg=text
    )


def wait_for_labels(page, *expected) -> None:
    page.wait_for_function(
        """expected => JSON.stringify([...document.querySelectorAll(".is-filter .chip-name")]
            .map((name) => name.textContent)) === JSON.stringify(expected)""",
        arg=list(expected),
    )


def test_each_kind_of_filter_is_tried_here():
    """But ``place:`` and ``tag:``, which need a library that has any."""
    assert {text.partition(":")[0] for text in LABELS} == set(FILTERS) - {"place", "tag"}


@pytest.mark.parametrize("text", LABELS)
def test_a_filter_is_a_chip_that_is_turned_edited_and_removed(browser, albums, text):
    label, opposite = LABELS[text]
    with visited(browser, f"{albums[0]}/?q={text}+dog") as page:
        wait_for_labels(page, label)
        assert page.input_value(BOX) == "dog"
        page.focus(".is-filter .chip-sign")
        assert opposite in page.get_attribute(".is-filter .chip-sign", "aria-label")
        page.keyboard.press("Enter")
        wait_for_query(page, f"dog -{text}")
        wait_for_labels(page, opposite)
        assert focused(page) == [0, "chip-sign"]
        page.go_back()
        wait_for_labels(page, label)
        assert (page.input_value(BOX), query(page)) == ("dog", f"{text} dog")
        page.go_forward()
        wait_for_labels(page, opposite)
        page.focus(".is-filter .chip-name")
        page.keyboard.press("Enter")
        page.wait_for_selector(".is-filter", state="detached")
        assert page.input_value(BOX) == f"dog -{text}"
        page.keyboard.press("End")
        page.keyboard.press("Enter")
        wait_for_labels(page, opposite)
        assert page.input_value(BOX) == "dog"
        page.click(".is-filter .chip-remove")
        wait_for_query(page, "dog")
        assert labels(page) == []


def test_what_is_typed_stays_until_it_is_meant(browser, albums):
    with visited(browser, albums[0]) as page:
        page.focus(BOX)
        page.keyboard.type("dog on:2019")
        wait_for_query(page, "dog on:2019")
        page.wait_for_function("() => filters.elements.from.value === '2019-01-01'")
        assert page.input_value(BOX) == "dog on:2019" and labels(page) == []
        page.keyboard.press("Enter")
        wait_for_labels(page, "2019")
        assert page.input_value(BOX) == "dog"
        page.keyboard.type(" is:portrait cat")
        wait_for_query(page, "dog is:portrait cat on:2019")
        page.wait_for_function("() => filters.elements.shape.value === 'portrait'")
        page.keyboard.press("Tab")  # leaves the box
        wait_for_labels(page, "2019", "portrait")
        assert page.input_value(BOX) == "dog cat"
        assert query(page) == "dog cat on:2019 is:portrait"


def test_a_click_that_ends_the_typing_meets_what_it_is_meant_for(browser, albums):
    with visited(browser, albums[0]) as page:
        page.fill(BOX, "-is:square dog")
        page.wait_for_selector(".tile-badge", state="attached")
        page.wait_for_timeout(300)
        wanted = page.get_attribute(".tile[data-index='2']", "data-image-id")
        page.click(".tile[data-index='2'] .tile-open")
        page.wait_for_selector("#detail[data-state=ready]")
        assert page.evaluate("location.hash") == f"#image-{wanted}"
        page.keyboard.press("Escape")
        page.wait_for_selector("#detail", state="hidden")
        wait_for_labels(page, "not square")


@pytest.mark.parametrize(
    ("text", "kept", "wrong"),
    [
        ("dog size:huge is:portrait cat", "dog cat size:huge", "huge"),
        ("is:portrait on:2019-13", "on:2019-13", ""),
        ('is:portrait dog in:"a"b', 'dog in:"a"b', "b"),
    ],
)
def test_a_filter_that_is_refused_is_in_the_box(browser, albums, text, kept, wrong):
    with visited(browser, "about:blank") as page:
        page.watch.expected.append("400")
        page.goto(f"{albums[0]}/?q={text.replace(' ', '+')}")
        page.wait_for_selector("#problem:not([hidden])")
        assert labels(page) == ["portrait"]
        assert page.input_value(BOX) == kept
        said = page.inner_text("#problem")
        assert said[0] in "'\"" or said[0].isupper()
        assert said.count(text) == 0 and "(character" not in said
        assert "".join(page.locator("#problem mark").all_inner_texts()).startswith(wrong)
        page.reload()
        page.wait_for_selector("#problem:not([hidden])")
        assert page.input_value(BOX) == kept


def test_a_folder_is_shown_without_its_path(browser, albums):
    address, folder = albums
    text = f'dog in:"{folder}/holidays/2019 Portugal"'
    with visited(browser, address) as page:
        page.goto(f"{address}/?{page.evaluate('q => `${new URLSearchParams({ q })}`', text)}")
        wait_for_labels(page, "in 2019 Portugal")
        assert page.title() == "dog, in 2019 Portugal – fovea"
        assert page.inner_text("[data-part=folder-name]") == "2019 Portugal"
        assert str(folder) not in page.inner_text("body")
        page.click(".is-filter .chip-name")
        page.wait_for_function(
            "() => document.querySelector('input[name=q]').value === 'dog in:\"2019 Portugal\"'"
        )
        page.keyboard.press("Enter")
        wait_for_query(page, 'dog in:"2019 Portugal"')
        wait_for_labels(page, "in 2019 Portugal")
        assert query(page) == 'dog in:"2019 Portugal"'


def test_filters_are_kept_where_a_suggestion_is_taken(browser, albums):
    with visited(browser, f"{albums[0]}/?q=dog+is:portrait") as page:
        wait_for_labels(page, "portrait")
        page.evaluate(
            """async () => {
                const script = document.querySelector("script[type=module]").src;
                const store = await import(new URL("page/store.js", script));
                store.emit("suggested", { words: "cat", filter: "on:2019" });
            }"""
        )
        wait_for_labels(page, "portrait", "2019")
        assert (page.input_value(BOX), query(page)) == ("cat", "cat is:portrait on:2019")


def test_a_hundred_filters_of_a_hostile_address_do_no_harm(browser, albums):
    with visited(browser, "about:blank") as page:
        page.watch.expected.append("400")
        text = "+".join(["in:<b>x</b>", "name:%E2%80%AEgpj", 'camera:"<img src=x>"'] * 20)
        page.goto(f"{albums[0]}/?q={text}")
        page.wait_for_selector(".chip.is-filter")
        assert page.locator(".chip").count() == 60
        assert page.locator(".chip b, .chip img").count() == 0
        assert labels(page)[:2] == ["in b>", "named \\u202egpj"]
        page.goto(f"{albums[0]}/?q={text}+{text}")  # more than a query may have
        page.wait_for_selector("#problem:not([hidden])")


# The page's own lexer of queries


SPACES = (" ", "  ", "\t", "\x1c", "\x85", "\xa0", "\u2003", "\u3000")
LETTERS = (*"aBé中7.:-+\\/", "\U0001f431", "\ufeff", "\u200b")
KEYS = (*FILTERS, "like", "sort", "LIKE", "In", "http")
VALUES = (
    "2019", "2019-07", "1", "99", "portrait", "SQUARE", ">10MP", "48.2,16.4,10km", "date", "score",
)  # fmt: skip


def drawn_value(draw: random.Random) -> str:
    """A word, a value that some filter takes, or anything between quotation marks."""
    kind = draw.random()
    if kind < 0.4:
        return draw.choice(VALUES)
    letters = "".join(draw.choices(LETTERS, k=draw.randint(1, 4)))
    if kind < 0.7:
        return letters
    inner = draw.choice(("", " ", '\\"', "\\\\", "\u3000", "\n")).join(("x", letters, ""))
    return f'"{inner}"'


def drawn_query(draw: random.Random) -> str:
    """Some items, most of which the parser takes, between any white space."""
    found = draw.choice(("", *SPACES))
    for _ in range(draw.randint(1, 5)):
        sign = draw.choices(("", "+", "-"), (6, 1, 2))[0]
        weight = draw.choices(("", "2:", "0.5:", "1:", ".0625:", "1.2.3:"), (12, 1, 1, 1, 1, 1))[0]
        key = draw.choices(("", f"{draw.choice(KEYS)}:"), (1, 1))[0]
        found += f"{sign}{weight}{key}{drawn_value(draw)}{draw.choice(SPACES)}"
    return found


def queries(number: int) -> list[tuple[str, Query]]:
    """Queries that the parser takes, and how it reads them; the same ones every time."""
    draw, found = random.Random(7), []
    while len(found) < number:
        text = drawn_query(draw)
        with contextlib.suppress(QueryError):
            found.append((text, parse(text)))
    return found


def in_page(page, expression: str, values: list):
    """What an expression of ``value`` and the page's ``querytext.js``, ``m``, is for each value."""
    return page.evaluate(
        f"""async (values) => {{
            const script = document.querySelector("script[type=module]").src;
            const m = await import(new URL("query/querytext.js", script));
            return values.map((value) => {expression});
        }}""",
        values,
    )


def read_again(found: list[dict]) -> Query:
    """The query that the page's items stand for, from their fields alone."""
    terms, filters, sort = [], [], None
    for item in found:
        sign = -1 if item["sign"] == "-" else 1
        if not item["key"]:
            words = " ".join(item["value"].split()) if not item["isPlain"] else item["value"]
            terms.append(Term("text", words, round(sign * item["weight"], 3)))
        elif item["key"] == "like":
            terms.append(Term("like", int(item["value"]), round(sign * item["weight"], 3)))
        elif item["key"] == "sort":
            sort = item["value"].lower()
        else:
            one = Filter(item["key"], item["value"], sign < 0)
            filters += parse(str(Query(filters=(one,)))).filters
    return Query(tuple(terms), tuple(filters), sort)


def test_the_page_reads_queries_as_the_parser_does(page):
    drawn = queries(2000)
    texts = [text for text, _ in drawn]
    for (text, query), found in zip(drawn, in_page(page, "m.items(value)", texts), strict=True):
        assert read_again(found) == query, text


def test_what_the_page_writes_reads_the_same(page):
    drawn = queries(2000)
    texts = [text for text, _ in drawn]
    again = """m.joined(m.items(value).map((item) => m.isTerm(item)
        ? { text: m.written({ ...item, sign: item.sign || "+" }) } : item))"""
    for (text, query), written in zip(drawn, in_page(page, again, texts), strict=True):
        assert parse(written) == query, (text, written)
    apart = in_page(page, "m.split(value)", texts)
    added = in_page(page, "`in:${m.quoted(value)}`", ['C:\\ "x"'])
    for (text, query), parts in zip(drawn, apart, strict=True):
        kept = parse(parts["typed"])
        assert kept == Query(query.terms), text
        written = " ".join([parts["typed"], *parts["filters"], *added])
        folder = Filter("in", 'C:\\ "x"')
        assert parse(written) == Query(query.terms, (*query.filters, folder), query.sort), text


def test_the_page_knows_every_filter(page):
    assert in_page(page, "m.FILTERS", [None]) == [list(FILTERS)]
