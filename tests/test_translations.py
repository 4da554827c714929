"""The page's texts: the same in each language; others than English also say what goes wrong."""

from search.query import EXPECTED
from web.api.roots import REFUSALS
from web.pages import messages

PROBLEMS = {f"problem.query.{name}" for name in EXPECTED} | {
    f"problem.root.{name}" for name in REFUSALS
}


def test_each_text_is_there_in_each_language():
    english, chinese = set(messages("en")), set(messages("zh-Hans"))
    assert chinese - english == PROBLEMS | {"problem.query"}  # the server's own words are English
    assert english <= chinese
