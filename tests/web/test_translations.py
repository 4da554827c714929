"""The page's texts: the same in each language; others than English also say what goes wrong."""

import ast

from fovea.search.query.empty import MESSAGES as HINTS
from fovea.search.query.filters import FILTERS
from fovea.search.query.language import PROBLEMS as QUERY_PROBLEMS
from fovea.search.query.saved import REFUSALS as SEARCH_REFUSALS
from fovea.web.contract.schemas import SCHEMAS
from fovea.web.views.pages import messages
from fovea.web.views.roots import REFUSALS
from places import CHECKOUT

PROBLEMS = {f"problem.query.{name}" for name in QUERY_PROBLEMS}
PROBLEMS |= {f"problem.root.{name}" for name in REFUSALS}
PROBLEMS |= {f"problem.search.{name}" for name in SEARCH_REFUSALS}
PROBLEMS |= {f"problem.tag.{name}" for name in ("empty", "full", "long", "taken", "unknown")}
PROBLEMS |= {"problem.away", "problem.away_refused", "problem.away_tls"}
WORDED_BY_THE_PAGE = {
    "problem.picture",
    "problem.picture_gone",
}  # which knows the names of the pictures
UNANSWERABLE = {
    f"problem.query.{name}"
    for name in (
        "cancelled", "no_image", "no_line", "no_places", "no_tags", "no_video",
        "not_on_milvus", "places_off", "too_many_on_milvus", "unknown_place",
        "unknown_place_near", "unknown_tag", "unknown_tag_near", "weightless",
    )
}  # fmt: skip
MORE = {f"hint.more.{name}" for name in ("near", "without", "first", "off", "unread")}


def codes_raised():
    """The keys of the codes that the web room gives to problems, as they stand in its code."""
    for path in (CHECKOUT / "web").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                pairs = [(getattr(node.targets[0].slice, "value", None), node.value)]
            else:
                continue
            for name, value in pairs:
                if name == "code" and isinstance(value, ast.Constant) and value.value:
                    yield f"problem.{value.value}"


def test_each_text_is_there_in_each_language():
    english, chinese = set(messages("en")), set(messages("zh-Hans"))
    english = {key for key in english if not key.endswith(".one")}  # Chinese has no singular
    assert english <= chinese
    assert {f"suggest.key_{name}" for name in (*FILTERS, "sort")} <= english
    codes = {code for code in SCHEMAS["Change"]["properties"]["code"]["enum"] if code}
    assert {f"better.problem.{code}" for code in codes} <= english
    # The server's own words are English.
    raised = set(codes_raised())
    assert {"problem.model.unknown", "problem.busy", "problem.unexpected"} <= raised
    problems = PROBLEMS | (raised - WORDED_BY_THE_PAGE)
    hints = {f"hint.{code}" for code in HINTS} | MORE
    assert chinese - english == problems | UNANSWERABLE | hints | {"problem.query"}
