"""The page's texts: the same in each language; others than English also say what goes wrong."""

from fovea.search.query.language import PROBLEMS as QUERY_PROBLEMS
from fovea.web.views.pages import messages
from fovea.web.views.roots import REFUSALS

PROBLEMS = {f"problem.query.{name}" for name in QUERY_PROBLEMS} | {
    f"problem.root.{name}" for name in REFUSALS
}
UNANSWERABLE = {f"problem.query.{name}" for name in ("cancelled", "no_image", "weightless")}


def test_each_text_is_there_in_each_language():
    english, chinese = set(messages("en")), set(messages("zh-Hans"))
    english = {key for key in english if not key.endswith(".one")}  # Chinese has no singular
    assert english <= chinese
    # The server's own words are English.
    assert chinese - english == PROBLEMS | UNANSWERABLE | {"problem.query"}
