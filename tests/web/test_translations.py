"""The page's texts: the same in each language; others than English also say what goes wrong."""

from fovea.search.query.language import PROBLEMS as QUERY_PROBLEMS
from fovea.web.contract.schemas import SCHEMAS
from fovea.web.views.pages import messages
from fovea.web.views.roots import REFUSALS

PROBLEMS = {f"problem.query.{name}" for name in QUERY_PROBLEMS}
PROBLEMS |= {f"problem.root.{name}" for name in REFUSALS}
PROBLEMS |= {"problem.model.unknown"}
UNANSWERABLE = {f"problem.query.{name}" for name in ("cancelled", "no_image", "weightless")}


def test_each_text_is_there_in_each_language():
    english, chinese = set(messages("en")), set(messages("zh-Hans"))
    english = {key for key in english if not key.endswith(".one")}  # Chinese has no singular
    assert english <= chinese
    codes = {code for code in SCHEMAS["Change"]["properties"]["code"]["enum"] if code}
    assert {f"better.problem.{code}" for code in codes} <= english
    # The server's own words are English.
    assert chinese - english == PROBLEMS | UNANSWERABLE | {"problem.query"}
