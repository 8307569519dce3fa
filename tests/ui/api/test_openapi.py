"""The server agrees with its own OpenAPI schema: whatever is sent, the answer is one that it names, and no fault."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from tests.ui.api.conftest import Open, Server

# beartype, which checks types while testing, draws random numbers in the server's threads
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
OPERATIONS = 22
"""GET and POST of all routes."""


@pytest.fixture(scope="module")
def tested(opener: Callable[[ExitStack], Open]) -> Iterator[Server]:
    with ExitStack() as stack:
        yield opener(stack)(max_queued_nonces=50)


def tried(tested: Server, operation: Any, mode: GenerationMode) -> None:
    """Sends what the schema allows, or what it does not."""

    @settings(
        max_examples=8,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url="http://localhost")
        sent["cookies"] = None
        if "data" in sent:
            sent["content"] = sent.pop("data")
        answer = tested.client.request(**sent)
        assert answer.status_code in (200, 400, 404, 405, 409, 422, 429), (sent, answer.text)
        if answer.status_code != 405:
            assert str(answer.status_code) in operation.definition.raw["responses"]

    check()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_whatever_is_sent_the_server_answers_as_its_schema_says(tested: Server, mode: GenerationMode) -> None:
    document = tested.get("/openapi.json").json()
    operations = [one.ok() for one in schemathesis.openapi.from_dict(document).get_all_operations()]
    assert len(operations) == OPERATIONS
    for operation in operations:
        takes = bool(operation.body) or any(one.location == "query" for one in operation.iter_parameters())
        if mode is GenerationMode.NEGATIVE and not takes:
            continue  # there is nothing to get wrong: every path is text
        tried(tested, operation, mode)
    assert tested.get("/health").status_code == 200


def test_every_route_says_what_it_takes_and_may_answer(tested: Server) -> None:
    for path, methods in tested.get("/openapi.json").json()["paths"].items():
        for name, operation in methods.items():
            assert operation["description"], (path, name)
            assert {"200", "401", "422", "503"} <= operation["responses"].keys()
            takes_body = path.endswith(("generate", "completions"))
            assert ("requestBody" in operation) == (name == "post" and takes_body), path
