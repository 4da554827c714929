"""The terms of a query as chips, and how the page finds them in its text."""

import contextlib
import random

import pytest

from browsing import names, visited
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
        page.goto(f"{gallery}/?q=like:{wanted}+name:p052.jpg")  # it is not among the hits
        page.wait_for_selector(".chip")
        assert page.inner_text(".chip-name") == f"picture {wanted}"


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
    added = """m.withFilters(value, ["in", "sort"], [`in:${m.quoted('C:\\\\ "x"')}`])"""
    folder = Filter("in", 'C:\\ "x"')
    for (text, query), written in zip(drawn, in_page(page, added, texts), strict=True):
        kept = tuple(one for one in query.filters if one.kind != "in")
        assert parse(written) == Query(query.terms, (*kept, folder)), (text, written)


def test_the_page_knows_every_filter(page):
    assert in_page(page, "m.FILTERS", [None]) == [list(FILTERS)]
