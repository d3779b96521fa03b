"""What is fuzzed: functions of bytes that raise where something is wrong. The tests call them too, without a fuzzer.

* `fuzz_serializers`: no frame makes a serializer raise anything but `ProtocolError`, and both codecs agree on all.
* `fuzz_core`: whatever users, servers and time do, the core keeps what `CheckedConnection` checks, and raises for
  commands only, and only what it says it does.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from fuzz.scripts import read_script
from tests.protocol.checked import CheckedConnection

from slipstream_trio.errors import ProtocolError, SerializationError
from slipstream_trio.protocol import (
    Codec,
    Frame,
    FrameReceived,
    Message,
    Presence,
    Serializer,
    StdlibCodec,
    TransportClosed,
    V1Serializer,
    V2Serializer,
    default_codec,
)
from slipstream_trio.testing.server.wire import Wire

__all__ = ["TARGETS", "fuzz_core", "fuzz_serializers"]

CODECS: Final[list[Codec]] = [StdlibCodec()]
if default_codec().name != StdlibCodec.name:  # else there is nothing to agree with
    CODECS.append(default_codec())
SERIALIZERS: Final[Mapping[str, list[Serializer]]] = {
    "v1": [V1Serializer(codec) for codec in CODECS],
    "v2": [V2Serializer(codec) for codec in CODECS],
}
WIRES: Final[Mapping[str, Wire]] = {"v1": Wire("1.0.0"), "v2": Wire("2.0.0")}


def fuzz_serializers(data: bytes) -> None:
    """Decode a frame: the first byte says as what, the rest is the frame."""
    if not data:
        return
    name = "v1" if data[0] & 1 else "v2"
    # Bytes that are no UTF-8 become lone surrogates, which no transport delivers, and no codec may pass.
    frame: Frame = data[1:] if data[0] & 2 else data[1:].decode("utf-8", "surrogateescape")
    decoded = [_decoded(serializer, frame) for serializer in SERIALIZERS[name]]
    if any(_exactly(other) != _exactly(decoded[0]) for other in decoded[1:]):
        raise AssertionError(f"the codecs do not agree: {decoded}")
    _server_decodes(WIRES[name], frame)
    if decoded[0] is not None:
        for serializer in SERIALIZERS[name]:
            _goes_round(serializer, WIRES[name], decoded[0])
        _is_no_trouble_as_presence(decoded[0].payload)


def _decoded(serializer: Serializer, frame: Frame) -> Message | None:
    try:
        return serializer.decode(frame)
    except ProtocolError as error:
        if not error.problem or len(error.problem.splitlines()) != 1:
            raise AssertionError(f"an error that is no line: {error.problem!r}") from error
        return None


def _server_decodes(wire: Wire, frame: Frame) -> None:
    try:
        wire.decode(frame)
    except ProtocolError:
        return


def _goes_round(serializer: Serializer, wire: Wire, message: Message) -> None:
    """Whatever was decoded can be sent, and the server reads what was sent; but for names too long for binary."""
    try:
        sent = wire.decode(serializer.encode(message))
    except SerializationError:
        names = [text.encode() for text in message[:4] if text is not None]
        if type(message.payload) is not bytes and not _has_bytes(message.payload):
            raise
        if serializer.name == "v2" and not _has_bytes(message.payload) and max(map(len, names)) <= 255:
            raise
        return
    refs = (sent.join_ref or None, sent.ref or None)
    if _exactly(sent._replace(join_ref=refs[0], ref=refs[1])) != _exactly(_with_plain_refs(message)):
        raise AssertionError(f"{message} is read by the server as {sent}")


def _with_plain_refs(message: Message) -> Message:
    return message._replace(join_ref=message.join_ref or None, ref=message.ref or None)


def _has_bytes(payload: Any) -> bool:
    """Tell whether it is the payload of a binary reply: an object with bytes in it, which no client sends."""
    return isinstance(payload, dict) and any(type(value) is bytes for value in payload.values())


def _is_no_trouble_as_presence(payload: Any) -> None:
    presence = Presence()
    for event in ("presence_diff", "presence_state", "presence_diff"):
        try:
            presence, _ = presence.received_all([(event, payload)])
        except ProtocolError:
            continue


def _exactly(value: Any) -> Any:
    """Return something that is equal only for values of the same types, the sign of a zero and all."""
    if isinstance(value, dict):
        return {key: _exactly(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [_exactly(item) for item in value]
    return type(value), value, math.copysign(1, value) if isinstance(value, float) else 0


def fuzz_core(data: bytes) -> None:
    """Play a script (`fuzz.scripts` has its format) on a connection, and end it."""
    options, steps = read_script(data)
    connection = CheckedConnection(options)
    for given in steps(connection):
        try:
            connection.feed(given)
        except (ProtocolError, SerializationError):
            if isinstance(given, FrameReceived):
                raise
    if connection.state.status != "closed":
        connection.feed(TransportClosed(1006))
    connection.finish()


TARGETS: Final = {"serializers": fuzz_serializers, "core": fuzz_core}
"""By name; `fuzz/corpus` has a folder of each."""
