"""Every record can be written and read again, and is what it was."""

import gzip
import json
import math
import re
from datetime import UTC
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st
from tests.client.support import scripted
from tests.drawing import examples
from tests.telemetry.support import ORIGIN
from tests.trace.scenes import Scene
from tests.trace.support import back, encoded, live_records, values, written

from slipstream_trio import ConnectionLost, Message, RecordingError
from slipstream_trio.protocol import V2Serializer
from slipstream_trio.telemetry import ClientCallbackStart, ClientCallbackStop, ClientPushStart, Record, Telemetry
from slipstream_trio.trace import (
    Damage,
    Header,
    Recorded,
    RecordingWarning,
    Unencodable,
    check,
    read,
    read_entries,
    verify,
)
from slipstream_trio.trace.encode import FULL_EVERY, Encoder
from slipstream_trio.trace.read import read_header
from slipstream_trio.trace.redact import Redactor
from slipstream_trio.trace.values import decode_value, encode_value

ALL = Redactor(secrets=None)


@pytest.fixture(scope="module")
def good() -> list[Any]:
    return live_records()


def same(live: Any, recorded: Recorded) -> bool:
    """Tell whether a recorded record says what the live one did."""
    return (
        recorded.name == live.name
        and recorded.origin == live.origin
        and recorded.measurements == live.measurements
        and recorded.metadata == live.metadata
        and {key: type(value) for key, value in recorded.metadata.items()}
        == {key: type(value) for key, value in live.metadata.items()}
    )


def test_what_is_read_is_what_happened(good: list[Any], tmp_path: Path) -> None:
    recorded = back(tmp_path / "trace.jsonl", good)
    assert len(recorded) == len(good) > 150
    for number, (live, read_back) in enumerate(zip(good, recorded, strict=True), 2):
        assert same(live, read_back)
        assert read_back.line == number
        assert (read_back.connection_id, read_back.trace_id) == (live.connection_id, live.trace_id)
        assert (read_back.socket_id, read_back.generation) == (live.socket_id, live.generation)
        assert read_back.start_time == live.start_time
        assert read_back.span_id == live.metadata.get("span_id")
        assert read_back.system_time == getattr(live, "start", live).measurements["system_time"]
    assert verify(recorded) == []


@pytest.mark.parametrize("options", [{"vsn": "1.0.0"}, {"trace_parent": f"00-{'a' * 32}-{'b' * 16}-01"}])
def test_other_connections_are_read_as_they_were(options: dict[str, Any], tmp_path: Path) -> None:
    async def scenario(telemetry: Telemetry) -> None:
        async with scripted(telemetry=telemetry, reconnect=None, **options) as (_, peer):
            peer.feed("{", '{"topic":"a","event":"b","payload":null,"ref":null}', "[null,null,null]")
            peer.end(1011, "said the server")
            await trio.sleep_forever()

    async def lost(telemetry: Telemetry) -> None:
        with pytest.raises(ConnectionLost):
            await scenario(telemetry)

    records = live_records(lost)
    assert all(map(same, records, back(tmp_path / "trace.jsonl", records)))


class Reversing(V2Serializer):
    """A serializer that nobody else knows."""

    name = "reversing"

    def encode(self, message: Message) -> str:
        return str(super().encode(message))[::-1]

    def decode(self, frame: Any) -> Message:
        return super().decode(frame[::-1] if frame.startswith("]") else frame)


def test_what_a_serializer_of_the_users_decoded_is_written(tmp_path: Path) -> None:
    async def scenario(telemetry: Telemetry) -> None:
        async with scripted(telemetry=telemetry, serializer=Reversing(), answers=()) as (socket, peer):
            peer.feed('[null,null,"room","event",{"a":1}]'[::-1])
            await socket.disconnect()

    records = live_records(scenario)
    recorded = back(tmp_path / "trace.jsonl", records)
    assert all(map(same, records, recorded))
    assert Message(None, None, "room", "event", {"a": 1}) in [each.metadata.get("message") for each in recorded]


def test_lines_repeat_nothing(good: list[Any]) -> None:
    lines = [values(line) for line in encoded(good)]
    full = [line for line in lines if "options" in str(line.get("state")) or "options" in str(line.get("end_state"))]
    assert len(full) == 2  # one a connection
    stops = [line for line in lines if line.get("name") == "slipstream connection handle stop"]
    assert not any("raw_message" in line or "state" in line or "trace_id" in line for line in stops)
    assert sum("trace_id" in line for line in lines) == 2
    messages = [line["message"] for line in stops if line["message"]["$"] == "Message"]
    assert messages
    assert not any("payload" in message for message in messages)


def test_a_restarted_encoder_repeats_what_is_needed(good: list[Any], tmp_path: Path) -> None:
    encoder = Encoder(Redactor())
    lines = encoded([])[:1]
    for record in good:
        encoder.restart()
        lines.append(encoder.encode(record))
    recorded = list(read(written(tmp_path / "trace.jsonl", lines)))
    assert all(map(same, good, recorded))


def test_now_and_then_a_state_is_written_in_full(good: list[Any], tmp_path: Path) -> None:
    async def scenario(telemetry: Telemetry) -> None:
        async with scripted(telemetry=telemetry) as (socket, _), socket.join("room") as channel:
            for _ in range(300):
                await channel.push("echo")

    records = live_records(scenario)
    lines = encoded(records)
    assert sum(b'"options"' in line for line in lines[3:]) >= 2
    # So that what is damaged does not cost the rest.
    broken = lines.index(next(line for line in lines[20:] if b'"from":' in line))
    lines[broken] = b"(damaged)\n"
    entries = list(read_entries(written(tmp_path / "trace.jsonl", lines)))
    damaged = [entry.line for entry in entries if isinstance(entry, Damage)]
    assert damaged[0] == broken + 1
    assert max(damaged) < broken + 400
    assert isinstance(entries[-2], Recorded)


def test_recordings_can_be_written_again(good: list[Any], tmp_path: Path) -> None:
    recorded = back(tmp_path / "trace.jsonl", good)
    assert all(map(same, recorded, back(tmp_path / "again.jsonl", recorded)))


def test_a_state_of_many_topics_is_written_as_what_has_changed(tmp_path: Path) -> None:
    scene = Scene()
    scene.connect()
    for number in range(300):
        scene.join(f"room:{number}")
    scene.end("closed_by_client")
    lines = encoded(scene.records)
    long = [line for line in lines[2:] if len(line) > 1500]
    assert len(long) < len(lines) / FULL_EVERY + 1  # those that are written in full
    recorded = back(tmp_path / "trace.jsonl", scene.records)
    assert [each.metadata for each in recorded] == [each.metadata for each in scene.records]
    assert list(recorded[-1].metadata["state"].joins) == [f"room:{number}" for number in range(300)]


def test_an_older_recording_says_what_it_cannot_tell(good: list[Any], tmp_path: Path) -> None:
    lines = encoded(good)
    lines[0] = lines[0].replace(b'"1.2"', b'"1.1"')
    stops = [index for index, line in enumerate(lines) if b'"slipstream client push stop"' in line]
    for index in stops:
        lines[index] = re.sub(rb',"reason":.*"waited":[0-9]+', b"", lines[index])
    path = written(tmp_path / "trace.jsonl", lines)
    assert any("how long they waited" in each for each in read_header(path).untold)
    pushes = [each.metadata for each in read(path) if each.name[2:] == ("push", "stop")]
    assert len(pushes) == len(stops) > 0
    assert {(each["reason"], each["sent"], each["waited"]) for each in pushes} == {(None, None, None)}
    current = written(tmp_path / "current.jsonl", encoded(good))
    assert read_header(current).untold == ()
    assert list(check([path])) == []


# What has no place in JSON


class Opaque:
    def __repr__(self) -> str:
        return "<an object of the user's>"


class Nasty:
    def __repr__(self) -> str:
        raise RuntimeError("no")


CYCLIC: list[Any] = []
CYCLIC.append(CYCLIC)


def callback(*arguments: Any, result: Any = None) -> list[Record]:
    start = ClientCallbackStart(ORIGIN, "a" * 16, 1, 1, "Some", "handle_info", arguments)
    return [start, ClientCallbackStop(start, ORIGIN, 2, "ok", result)]


def test_objects_are_written_by_their_repr(tmp_path: Path) -> None:
    start, stop = back(tmp_path / "trace.jsonl", callback(Opaque(), Nasty(), CYCLIC, {"x": Opaque()}, result=Opaque()))
    opaque = Unencodable(f"{__name__}.Opaque", "<an object of the user's>")
    first, nasty, _, inner = start.metadata["arguments"]
    assert (first, inner, stop.metadata["return"]) == (opaque, {"x": opaque}, opaque)
    assert repr(first) == "<an object of the user's>"
    assert "RuntimeError" in nasty.text
    assert stop.metadata["client"] == "Some"


class Topic(StrEnum):
    LOBBY = "room:lobby"
    SECRET = "Bearer 0123456789abcdef"


def test_a_name_of_an_enumeration_is_text_without_secrets(tmp_path: Path) -> None:
    start = ClientPushStart(ORIGIN, "a" * 16, 1, 1, Topic.LOBBY, "new_msg", {"kind": Topic.SECRET})
    (read_back,) = back(tmp_path / "trace.jsonl", [start])
    assert read_back.metadata["topic"] == "room:lobby"
    kind = Unencodable(f"{__name__}.Topic", "<Topic.SECRET: [redacted]>")  # so that it is refused again
    assert read_back.metadata["params"] == {"kind": kind}


def test_a_long_repr_is_cut(tmp_path: Path) -> None:
    (start, _) = back(tmp_path / "trace.jsonl", callback({1, *range(5000)}))
    assert len(start.metadata["arguments"][0].text) == 1000


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs"]), max_size=3)
    | st.binary()
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.sampled_from(["$", "\ud800"]) | st.integers(), inner)
        | st.lists(inner).map(tuple)
    ),
    max_leaves=20,
)


@given(value=TREES)
@examples(50)
def test_values_are_read_as_they_were_written(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    start = ClientPushStart(ORIGIN, "a" * 16, 1, 1, "room", "event", value)
    (recorded,) = back(tmp_path_factory.getbasetemp() / "trace.jsonl", [start], redactor=ALL)
    assert recorded.metadata["params"] == value
    assert type(recorded.metadata["params"]) is type(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_beyond_json_are_read_as_they_were(number: float) -> None:
    assert repr(decode_value(encode_value(number, ALL))) == repr(number)


# Versions


def with_header(lines: list[bytes], **changes: Any) -> list[bytes]:
    header = values(lines[0])
    header["slipstream_trace"].update(changes)
    return [json.dumps(header).encode() + b"\n", *lines[1:]]


def test_a_newer_minor_version_is_read_without_what_is_new(good: list[Any], tmp_path: Path) -> None:
    lines = with_header(encoded(good), schema="1.7", colour="blue")
    news = b'{"weather":"fine"}\n'
    lines = [line.replace(b'"$":"PushMessage"', b'"$":"PushMessage","priority":3') for line in lines]
    lines = [line.replace(b'"$":"Options"', b'"$":"Options","mood":{"$":"Mood","level":9}') for line in lines]
    recorded = list(read(written(tmp_path / "trace.jsonl", [lines[0], news, *lines[1:], news])))
    assert all(map(same, good, recorded))
    assert decode_value({"$": "Mood", "level": 9}).type == "Mood"


def test_another_major_version_is_refused_in_a_sentence(good: list[Any], tmp_path: Path) -> None:
    path = written(tmp_path / "trace.jsonl", with_header(encoded(good), schema="2.0", library="9.9"))
    with pytest.raises(RecordingError, match=r"of schema 2\.0, .* reads 1\.2: use slipstream-trio 9\.9"):
        list(read(path))


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"hello\n", b"{}\n", b'{"name":"slipstream a b"}\n', b"\x1f\x8bnonsense"]
)
def test_what_is_no_recording_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="not a recording"):
        list(read(path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"nowhere\.jsonl: it cannot be read: No such file"):
        list(read(tmp_path / "nowhere.jsonl"))


# Damage


def test_damaged_lines_are_told_with_their_number_and_the_rest_is_read(good: list[Any], tmp_path: Path) -> None:
    lines = encoded(good)
    where = next(index for index, line in enumerate(lines) if b'"slipstream client push stop"' in line)
    lines[where] = lines[where][:-20] + b"\n"
    path = written(tmp_path / "trace.jsonl", lines)
    damaged: list[Damage] = []
    recorded = list(read(path, damaged=damaged.append))
    assert damaged[0].line == where + 1
    assert "not JSON" in str(damaged[0])
    assert len(recorded) + len(damaged) == len(good)
    with pytest.warns(RecordingWarning, match=f"trace.jsonl: line {where + 1}: not JSON"):
        list(read(path))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b'"monotonic_time":', b'"monotonic_time":"x","y":', "monotonic_time is not a whole number"),
        (b'"connection_id":', b'"connection":', "it has no 'connection_id'"),
        (b'"built_events":[{"$":"ConnectionOpened"', b'"built_events":[7,{"$":"ConnectionOpened"', "int"),
        (
            b'"raw_message":{"$":"TransportOpened","now"',
            b'"raw_message":{"$":"TransportOpened","then"',
            "TransportOpened",
        ),
        (b'"message":{"$":"Message","join_ref"', b'"message":{"$":"Message","ref_join"', "join_ref"),
        (b'"$":"Message","join_ref":"1","ref":"1"', b'"$":"Message","join_ref":"1","ref":"9"', "not that of the frame"),
        (b'"end_state":5}', b'"end_state":77}', "state 77 of the connection is not known"),
    ],
)
def test_lines_that_say_the_impossible_are_damaged(
    good: list[Any], tmp_path: Path, old: bytes, new: bytes, problem: str
) -> None:
    lines = encoded(good)
    where = next(index for index, line in enumerate(lines) if index > 3 and old in line)
    lines[where] = lines[where].replace(old, new)
    entries = read_entries(written(tmp_path / "trace.jsonl", lines))
    damage = next(entry for entry in entries if isinstance(entry, Damage))
    assert damage.line == where + 1
    assert problem in damage.problem


@pytest.mark.parametrize(
    "line", [b"[]\n", b"7\n", b'{"what":"?"}\n', b'{"missing":{}}\n', b"\xff\xfe\n", b"[" * 5000 + b"\n"]
)
def test_lines_that_are_nothing_are_damaged(good: list[Any], tmp_path: Path, line: bytes) -> None:
    lines = encoded(good)
    entries = list(read_entries(written(tmp_path / "trace.jsonl", [*lines[:9], line, *lines[9:]])))
    assert [entry.line for entry in entries if isinstance(entry, Damage)] == [10]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_recording_cut_off_anywhere_is_read_up_to_there(good: list[Any], tmp_path: Path, *, zipped: bool) -> None:
    lines = encoded(good)
    members = [gzip.compress(line) if zipped else line for line in lines]
    data = b"".join(members)
    path = tmp_path / "trace"
    first = len(members[0])
    for cut in range(first, first + 4000, 97):
        path.write_bytes(data[:cut])
        whole, size = 0, 0
        while size + len(members[whole]) <= cut:
            size += len(members[whole])
            whole += 1
        entries = list(read_entries(path))
        assert isinstance(entries[0], Header)
        assert len([entry for entry in entries if isinstance(entry, Recorded)]) >= whole - 1
        assert all(entry.last for entry in entries if isinstance(entry, Damage))
        list(read(path))  # no warning


def test_a_damaged_member_of_a_zipped_recording_costs_itself(good: list[Any], tmp_path: Path) -> None:
    lines = encoded(good)
    members = [bytearray(gzip.compress(b"".join(lines[index : index + 10]))) for index in range(0, len(lines), 10)]
    members[3][20:40] = bytes(20)
    path = tmp_path / "trace.jsonl.gz"
    path.write_bytes(b"".join(members))
    entries = list(read_entries(path))
    records = [entry for entry in entries if isinstance(entry, Recorded)]
    assert any(isinstance(entry, Damage) for entry in entries)
    assert same(good[5], records[5])
    assert same(good[-1], records[-1])
