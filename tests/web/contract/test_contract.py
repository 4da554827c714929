"""The API's description against the app: schemathesis draws requests, right and wrong ones."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
EXAMPLES = 50  # of each operation, right ones and wrong ones apart


@pytest.fixture
def schema(app, client, scans, changes, map_building):
    """The description, less the ids that no small library has: half of those drawn are there."""
    raw = client.get("/api/openapi.json").json
    for methods in raw["paths"].values():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    parameter["schema"]["maximum"] = 12
    loaded = schemathesis.openapi.from_dict(raw)
    loaded.app = app
    return loaded


def ordered(schema):
    """The operations, those that take something away last."""
    found = [result.ok() for result in schema.get_all_operations()]
    return sorted(found, key=lambda operation: operation.method.lower() == "delete")


def modes(operation):
    """Right requests; wrong ones too where there is anything to get wrong."""
    yield GenerationMode.POSITIVE
    if operation.query or operation.path_parameters or operation.body:
        yield GenerationMode.NEGATIVE


def count_of(strategy, check):
    """Run a check on the cases that are drawn, always the same ones; return how many."""
    count = 0

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def run(case):
        nonlocal count
        count += 1
        check(case)

    run()
    return count


def checked(case):
    """Send a case and look at the answer.

    All values of a form are texts: one that is wrong as JSON may be right there. And what is too
    large is refused as that.
    """
    response = case.call()
    is_form = case.media_type in ("multipart/form-data", "application/x-www-form-urlencoded")
    strict = [] if is_form or response.status_code == 413 else [negative_data_rejection]
    case.validate_response(response, checks=CHECKS + strict)


# The client that schemathesis brings leaves files open that it has read to their end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_request_breaks_what_the_api_says_of_itself(schema):
    count = 0
    for operation in ordered(schema):
        for mode in modes(operation):
            strategy = operation.as_strategy(generation_mode=mode)
            count += count_of(strategy, checked)
    assert count >= 1000, count
