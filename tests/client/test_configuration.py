"""The options of `connect`: what is refused at the call, and what is never shown."""

import inspect
import ssl
from functools import partial
from types import SimpleNamespace
from typing import Any, get_type_hints

import attrs
import pytest
from tests.client.support import URL, Scripted

from slipstream_trio import Backoff, Channel, Configuration, ConfigurationError, ConnectOptions, Disconnect, connect
from slipstream_trio.protocol import Frame, Message, V1Serializer, V2Serializer
from slipstream_trio.telemetry import Telemetry, default_telemetry
from slipstream_trio.transport import OpenRequest, find_connector

SECRET = "s3cr3t"
OPTIONS: Any = dict
"""Options that the type checker need not believe in."""

TIMES = [
    "connect_timeout",
    "join_timeout",
    "push_timeout",
    "leave_timeout",
    "close_timeout",
    "heartbeat_interval",
    "heartbeat_timeout",
]


class Versioned:
    """A serializer that says which `vsn` it is for."""

    name = "versioned"

    def __init__(self, vsn: Any) -> None:
        self.vsn = vsn

    def encode(self, message: Message) -> str:
        raise NotImplementedError

    def decode(self, frame: Frame) -> Message:
        raise NotImplementedError


def configure(url: Any, options: Any) -> Configuration:
    return Configuration(url=url, **options)


def test_the_options_of_connect_are_the_fields_of_configuration() -> None:
    fields = [field.name for field in attrs.fields(Configuration) if field.init]
    assert fields == ["url", *ConnectOptions.__annotations__]
    hints, configured = get_type_hints(ConnectOptions), get_type_hints(Configuration)
    assert {name: hints[name] for name in hints} == {name: configured[name] for name in hints}


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (5, "int"),
        (b"ws://localhost", "bytes"),
        ("", "scheme"),
        ("localhost:4000/socket", "scheme"),
        ("ftp://localhost/", "scheme"),
        ("ws://", "host"),
        ("ws:///socket", "host"),
        ("ws://:4000/socket", "host"),
        ("ws://localhost:0/", "port 0"),
        ("ws://localhost:port/", "ort"),
        ("ws://localhost:70000/", "ort"),
        ("ws://[::1/", "host or port cannot be read"),
        (f"ws://user:{SECRET}@localhost/", "auth_token"),
        ("ws://localhost/#part", "fragment"),
        ("ws://localhost/web socket", "percent-encode"),
        ("ws://localhost/sökkel", "percent-encode"),
        (f"ws://localhost/?token={SECRET} 1", "percent-encode"),
        ("ws://localhost/\x7f", "percent-encode"),
    ],
)
def test_an_unusable_url_is_refused_at_the_call(url: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as raised:
        connect(url)
    assert raised.value.option == "url"
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("scheme", ["ws", "wss", "http", "https", "WSS"])
@pytest.mark.parametrize("rest", ["localhost", "localhost:4000/a/b?c=d", "[::1]:4000/", "127.0.0.1/socket/websocket"])
def test_a_url_is_used_as_it_is(scheme: str, rest: str) -> None:
    url = f"{scheme}://{rest}"
    assert configure(url, {}).url == url


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [0, -1, "10", True, float("inf"), float("nan"), [1]])
def test_a_time_is_a_number_above_zero_or_none(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="seconds") as raised:
        connect(URL, **OPTIONS({name: value}))
    assert raised.value.option == name
    for good in (None, 1, 0.25):
        assert getattr(configure(URL, OPTIONS({name: good})), name) == good


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("max_message_size", 0, "at least 1"),
        ("max_message_size", 1.5, "whole number"),
        ("buffer", 0, "at least 1"),
        ("buffer", True, "whole number"),
        ("buffer", None, "whole number"),
        ("overflow", "drop_some", "drop_oldest"),
        ("overflow", None, "'raise'"),
        ("join_window", 0, "at least 1"),
        ("join_window", 2.0, "whole number"),
        ("join_window", "8", "whole number"),
        ("retry_after_limit", 0, "seconds"),
        ("retry_after_limit", "5", "seconds"),
        ("max_header_size", 0, "at least 1"),
        ("max_header_size", "64K", "whole number"),
        ("buffer_bytes", 0, "at least 1"),
        ("buffer_bytes", None, "whole number"),
        ("proxy", 3128, "str or None; not int"),
        ("proxy", "", "a URL such as"),
        ("proxy", "ftp://user:s3cr3t@localhost:3128", "a URL such as"),
        ("proxy", "http://user:s3cr3t/@localhost:3128", "a URL such as"),
        ("proxy", "http://user:s3cr3t@localhost:0", "a URL such as"),
        ("proxy", "http://user:s3cr3t@", "a URL such as"),
        ("compression", "yes", "bool; not str"),
        ("cookies", {"s3cr3t": "1"}, "bool; not dict"),
        ("unix", 5, "str or PathLike or None; not int"),
        ("server_hostname", b"localhost", "str or None; not bytes"),
        ("server_hostname", "", "the name of a host"),
        ("host", 5, "str or None; not int"),
        ("host", "s3cr3t/path", "the name of a host"),
        ("host", "s3cr3t\r\nx: y", "the name of a host"),
        ("longpoll_fallback", 0, "seconds"),
        ("should_reconnect", True, "a function; not bool"),
        ("vsn", "3.0.0", "'2.0.0'"),
        ("vsn", "2", "'2.0.0'"),
        ("vsn", 2, "unsupported vsn 2: use '2.0.0'"),
        ("vsn", None, "'2.0.0'"),
        ("params", [("a", "b")], "Mapping"),
        ("params", "a=b", "function"),
        ("headers", "a: b", "Mapping"),
        ("headers", 5, "function"),
        ("auth_token", b"s3cr3t", "bytes"),
        ("auth_token", 5, "str"),
        ("auth_token", "s3cr3t\ud800", "lone surrogates"),
        ("trace_parent", 5, "str"),
        ("trace_parent", "00-s3cr3t", "a W3C traceparent"),
        ("ssl_context", "yes", "SSLContext"),
        ("ssl_context", True, "SSLContext"),
        ("telemetry", "bus", "Telemetry"),
        ("telemetry", None, "Telemetry"),
        ("transport", "carrier_pigeon", "carrier_pigeon"),
        ("transport", "base", "unknown transport 'base'; choose from auto, longpoll, trio_websocket, websockets"),
        ("transport", "", "unknown transport ''"),
        ("transport", None, "Connector"),
        ("transport", object(), "Connector"),
        ("transport", SimpleNamespace(name="mine"), "Connector"),
        ("reconnect", lambda: Backoff((1,)), "Backoff or None; not function"),
        ("serializer", "v2", "Serializer"),
        ("serializer", object(), "Serializer"),
        ("serializer", SimpleNamespace(name="mine", decode=print), "Serializer"),
        ("serializer", SimpleNamespace(encode=print, decode=print), "a Serializer with a name"),
        ("serializer", Versioned(3), "a version such as '3.0.0'"),
        ("serializer", Versioned(""), "a version such as '3.0.0'"),
        ("serializer", Versioned("3.0.0&token=s3cr3t"), "a version such as '3.0.0'"),
    ],
)
def test_an_unusable_option_is_refused_at_the_call_by_name(option: str, value: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as raised:
        connect(URL, **OPTIONS({option: value}))
    assert raised.value.option == option
    assert str(raised.value).startswith(f"{option}: ")
    assert SECRET not in str(raised.value)


def test_the_window_of_joins_and_the_limit_of_waits_are_kept() -> None:
    configuration = configure(URL, {"join_window": 1, "retry_after_limit": None})
    for kept in (configuration, configuration.options()):
        assert (kept.join_window, kept.retry_after_limit) == (1, None)


async def _never(_: Disconnect) -> bool:
    return False


class _Never:
    async def __call__(self, _: Disconnect) -> bool:
        return False


@pytest.mark.parametrize("decide", [_never, partial(_never), _Never()], ids=["function", "partial", "object"])
def test_an_async_should_reconnect_is_refused_as_its_answer_would_always_be_true(decide: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^should_reconnect: callbacks must be synchronous") as raised:
        connect(URL, should_reconnect=decide)
    assert raised.value.option == "should_reconnect"


def test_a_connector_without_a_name_is_refused() -> None:
    class Nameless:
        def open(self, request: OpenRequest, wake: Any) -> Any:
            raise NotImplementedError

    with pytest.raises(ConfigurationError, match="name"):
        connect(URL, transport=Nameless())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "suggestion"),
    [("header", "headers"), ("push_timout", "push_timeout"), ("hearbeat_interval", "heartbeat_interval")],
)
def test_an_unknown_option_is_refused_with_a_suggestion(given: str, suggestion: str) -> None:
    with pytest.raises(ConfigurationError, match=f"did you mean '{suggestion}'") as raised:
        connect(URL, **OPTIONS({given: 1}))
    assert raised.value.option == given


def test_an_unknown_option_that_is_like_no_other_is_refused_without_one() -> None:
    with pytest.raises(ConfigurationError) as raised:
        connect(URL, **OPTIONS({"zebra": 1}))
    assert str(raised.value) == "zebra: there is no such option"


@pytest.mark.parametrize("vsn", ["3.0.0", "1.0.0", "2.0.0"])
def test_the_vsn_of_a_serializer_of_ones_own_is_that_of_the_connection(vsn: str) -> None:
    serializer = Versioned(vsn)
    for url in (URL, f"{URL}?vsn={vsn}"):
        configuration = configure(url, {"serializer": serializer})
        assert configuration.chosen_vsn() == vsn
        assert configuration.options().vsn == vsn
        assert configure(url, {"serializer": serializer, "vsn": vsn}) == attrs.evolve(configuration, vsn=vsn)


def test_a_vsn_that_contradicts_the_serializer_is_refused() -> None:
    for url, options in ((URL, {"vsn": "1.0.0"}), (f"{URL}?vsn=2.0.0", {})):
        with pytest.raises(ConfigurationError, match=r"^vsn: .*that of the serializer is '3\.0\.0'"):
            configure(url, OPTIONS({"serializer": Versioned("3.0.0"), **options}))


def test_a_serializer_without_a_vsn_takes_that_of_the_option() -> None:
    for given in (None, "1.0.0"):
        options = {} if given is None else {"vsn": given}
        configuration = configure(URL, OPTIONS({"serializer": Versioned(None), **options}))
        assert configuration.chosen_vsn() == (given or "2.0.0")
    with pytest.raises(ConfigurationError, match=r"^vsn: unsupported vsn '3\.0\.0'"):
        configure(URL, OPTIONS({"serializer": Versioned(None), "vsn": "3.0.0"}))


def test_a_vsn_in_the_url_must_be_that_of_the_option() -> None:
    with pytest.raises(ConfigurationError, match=r"pass vsn='1\.0\.0'") as raised:
        connect(URL + "?vsn=1.0.0")
    assert raised.value.option == "vsn"
    assert configure(URL + "?vsn=2.0.0", {}).vsn == "2.0.0"
    assert configure(URL + "?vsn=1.0.0", {"vsn": "1.0.0"}).chosen_serializer().name == "v1"


def test_the_defaults_are_those_of_the_design() -> None:
    configuration = configure(URL, {})
    assert attrs.asdict(configuration.options(), recurse=False) == {
        "url": URL,
        "vsn": "2.0.0",
        "serializer": "v2",
        "transport": find_connector("auto").name,
        "connect_timeout": 10.0,
        "join_timeout": 10.0,
        "push_timeout": 10.0,
        "leave_timeout": 5.0,
        "close_timeout": 5.0,
        "heartbeat_interval": 30.0,
        "heartbeat_timeout": 30.0,
        "join_window": None,
        "max_message_size": 16 * 2**20,
        "buffer": 1024,
        "overflow": "raise",
        "retry_first": False,
        "reconnect": Backoff((0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1, 2, 5)),
        "rejoin": Backoff((1, 2, 5, 10)),
        "retry_after_limit": 300.0,
        "params": "absent",
        "headers": "absent",
        "auth_token": "absent",
    }
    assert configuration.max_header_size == 64 * 2**10
    assert configuration.buffer_bytes == 64 * 2**20
    assert configuration.telemetry is default_telemetry
    assert configuration.ssl_context is None
    assert configuration.compression is False


def test_the_heartbeat_timeout_is_the_interval_unless_said() -> None:
    assert configure(URL, {"heartbeat_interval": 7}).heartbeat_timeout == 7
    assert configure(URL, {"heartbeat_interval": None}).heartbeat_timeout is None
    assert configure(URL, {"heartbeat_interval": 7, "heartbeat_timeout": 2}).heartbeat_timeout == 2


def test_transports_and_serializers_are_chosen_by_name_or_given() -> None:
    connector, serializer = Scripted(), V1Serializer()
    given = configure(URL, {"transport": connector, "serializer": serializer})
    assert given.chosen_connector() is connector
    assert given.chosen_serializer() is serializer
    assert (given.options().transport, given.options().serializer) == ("scripted", "v1")
    for name in ("auto", "trio_websocket"):
        named = configure(URL, {"transport": name})
        assert type(named.chosen_connector()) is type(find_connector(name))
        assert isinstance(named.chosen_serializer(), V2Serializer)


def test_values_of_every_kind_are_taken() -> None:
    async def later() -> str:
        return ""

    bus, context = Telemetry(), ssl.create_default_context()
    configure(
        URL,
        {
            "params": dict,
            "headers": [("a", "b")],
            "auth_token": later,
            "trace_parent": later,
            "ssl_context": context,
            "telemetry": bus,
            "proxy": None,
            "compression": False,
        },
    )
    assert configure(URL, {"headers": (("a", "b"),)}).headers == (("a", "b"),)


def test_no_repr_shows_a_secret() -> None:
    options: Any = {
        "params": {"token": SECRET},
        "headers": {"authorization": SECRET},
        "auth_token": SECRET,
    }
    configuration = configure(f"{URL}?token={SECRET}", options)
    request = OpenRequest(
        url=f"{URL}?token={SECRET}", headers=(("authorization", SECRET),), subprotocols=("phoenix", SECRET)
    )
    for shown in (configuration, configuration.options(), request):
        assert SECRET not in repr(shown)
        assert URL in repr(shown)


def test_help_shows_that_a_timeout_is_by_default_that_of_the_option() -> None:
    assert "= DEFAULT" in str(inspect.signature(Channel.push))
