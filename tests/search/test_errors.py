import re

import fovea.search.errors as errors
from places import CHECKOUT

BASES = "FoveaError|ModelError|LibraryError|QueryError"


def test_the_tree_of_errors_names_every_one():
    tree = re.findall(r"^    [│├└─ ]*(\w+)", errors.__doc__, re.MULTILINE)
    defined = {"FoveaError"}
    for room in ("search", "indexer", "web"):
        for file in (CHECKOUT / room).rglob("*.py"):
            defined.update(
                re.findall(rf"^class (\w+)\((?:{BASES})\)", file.read_text("utf-8"), re.M)
            )
    assert defined <= set(tree)
    assert set(errors.__all__) <= set(tree)


def test_every_error_is_caught_as_one_family():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.FoveaError)
