"""The pages that people read: finished, and without a link that leads nowhere."""

import re

import pytest

from places import CHECKOUT

PAGES = sorted(
    [
        *CHECKOUT.glob("*.md"),
        *CHECKOUT.glob("docs/**/*.md"),
        *CHECKOUT.glob("data/*/*.md"),
    ]
)
CODE = re.compile(r"```.*?```|`[^`\n]*`|^ {4}.*$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?:\]\(|(?:src|href)=\")([^)\s\"]+)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name_of(page):
    return str(page.relative_to(CHECKOUT))


def anchors(page):
    """The fragments by which a page's headings can be linked to, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_is_finished(page):
    left = re.findall(r"^.*(?:\bTODO|@@).*$", page.read_text("utf-8"), re.MULTILINE)
    assert left == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_pages_links_lead_somewhere(page):
    prose = CODE.sub("", page.read_text("utf-8"))
    broken = []
    for link in LINK.findall(prose):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []
