"""Values among the options are fixed at the call: later edits of the caller's objects change nothing."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from tests.client.support import URL, Scripted
from tests.recovery.support import until
from trio.testing import MockClock

from slipstream_trio import Configuration, ConfigurationError, connect
from slipstream_trio.testing.kit import FakeServer

SECRET = "s3cr3t"
OPTIONS: Any = dict


class Broken(Mapping[str, Any]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise LookupError(SECRET)

    def __iter__(self) -> Iterator[str]:
        raise LookupError(SECRET)

    def __len__(self) -> int:
        return 1


async def test_params_and_headers_given_as_values_are_sent_as_they_were(autojump_clock: MockClock) -> None:
    params: dict[str, Any] = {"token": "one", "nested": {"list": [1], "deep": {"er": 1}}}
    headers = {"x-a": "1"}
    async with FakeServer() as server:
        connecting = connect(server.url, transport=server.connector(), params=params, headers=headers)
        params["token"] = "two"
        params["nested"]["deep"]["er"] = 2
        params["nested"]["list"].append(object())
        headers["x-a"] = "2"
        async with connecting:
            connection = await server.accept()
            params.clear()
            headers.clear()
            await connection.drop()
            await server.accept()
        for request in server.requests:
            assert request.params == {"vsn": "2.0.0", "token": "one", "nested": {"list": ["1"], "deep": {"er": "1"}}}
            assert request.header("x-a") == "1"
        assert len(server.requests) == 2


async def test_pairs_of_headers_are_sent_as_they_were(autojump_clock: MockClock) -> None:
    headers = [("x-a", "1"), ("x-a", "2")]
    connector = Scripted()
    connecting = connect(URL, transport=connector, headers=headers)
    headers.pop()
    async with connecting:
        assert connector.requests[0].headers == (("x-a", "1"), ("x-a", "2"))


async def test_a_function_is_there_for_values_that_change(autojump_clock: MockClock) -> None:
    params = {"token": "one"}
    connector = Scripted()
    async with connect(URL, transport=connector, params=lambda: params) as socket:
        params["token"] = "two"
        connector.peer.end()
        await until(lambda: socket.generation == 2)
    assert [request.url.partition("token=")[2] for request in connector.requests] == ["one", "two"]


def test_a_mapping_of_any_kind_is_copied() -> None:
    configuration = Configuration(url=URL, params=MappingProxyType({"a": MappingProxyType({"b": (1, 2)})}))
    assert configuration.params == {"a": {"b": [1, 2]}}


def recursive() -> dict[str, Any]:
    params: dict[str, Any] = {}
    params["self"] = params
    return params


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("params", Broken(), "copying this one raised LookupError"),
        ("params", {"a": Broken()}, "copying this one raised LookupError"),
        ("params", recursive(), "copying this one raised RecursionError"),
        ("params", {"a": {SECRET}}, "'a' is of type set"),
        ("params", {"a": f"{SECRET}\ud800"}, "lone surrogate"),
        ("params", {"vsn": "1.0.0"}, "an option of its own"),
        ("headers", Broken(), "a mapping of strings, or pairs of strings"),
        ("headers", {"x-a": 1}, "a mapping of strings, or pairs of strings"),
        ("headers", [("x-a", f" {SECRET}")], r"invalid header value of 'x-a' \(stray whitespace\?\)"),
        ("headers", [("x-a", "1"), (f"x {SECRET}", "1")], "invalid name of header number 2"),
        ("headers", {"host": "localhost"}, "the upgrade's own"),
        ("auth_token", f"{SECRET}\ud800", "lone surrogates"),
        ("trace_parent", SECRET, "a W3C traceparent"),
    ],
)
def test_a_value_that_cannot_be_sent_is_refused_at_the_call(option: str, value: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as raised:
        connect(URL, **OPTIONS({option: value}))
    assert raised.value.option == option
    error: BaseException | None = raised.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
