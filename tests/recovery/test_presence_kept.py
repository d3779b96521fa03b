"""What is kept of presences that nobody asks for yet, and what a reader may do with what it was given."""

import contextlib
import json
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from hypothesis import example, given, strategies as st
from tests.client.support import scripted
from tests.drawing import examples
from tests.peers import World
from tests.protocol import wire
from tests.recovery.presences import diff, metas, state, tell, told
from tests.recovery.support import connected_again, settle, world
from trio.testing import MockClock

from slipstream_trio import PresenceChange
from slipstream_trio.protocol import Frame, Message, Presence, V2Serializer

KIB = 1024


class Counting(V2Serializer):
    """Counts how often each presence message is decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded: Counter[Frame] = Counter()

    def decode(self, frame: Frame) -> Message:
        message = super().decode(frame)
        if message.event.startswith("presence_"):
            self.decoded[frame] += 1
        return message

    @property
    def times(self) -> list[int]:
        """How often, for each frame in the order of their coming."""
        return list(self.decoded.values())


async def diff_of(there: World, key: str, size: int) -> None:
    """Let the server say that somebody has come, in a message of about so many bytes."""
    await diff(there, {key: {"metas": [{"phx_ref": key, "pad": "x" * size}]}})


# What nobody has asked for


async def test_what_nobody_asks_for_is_decoded_for_its_readers_alone(autojump_clock: MockClock) -> None:
    serializer = Counting()
    async with world() as there:
        async with there.connect(serializer=serializer) as socket, socket.join("room:1") as channel:
            await diff(there, {"old": metas("1")})
            await state(there, a=metas("1"), b=metas("2"))
            await state(there, a=metas("1"), c=metas("3", "4"), d=metas("5"))
            await diff(there, {"e": metas("6")})
            assert serializer.times == [1, 1, 1, 1]
            async with channel.presence() as presence:
                assert set(presence) == {"a", "c", "d", "e"}
                assert serializer.times == [1, 1, 2, 2]  # a state leaves nothing of what came before it
                await diff(there, leaves={"a": metas("1")})
                assert serializer.times == [1, 1, 2, 2, 2]
                async with channel.presence() as another:
                    assert another == presence
            assert serializer.times == [1, 1, 2, 2, 2]


async def test_what_came_before_the_state_is_kept_with_it(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            await diff(there, {"early": metas("1")})
            await diff(there, leaves={"early": metas("1")})
            await diff(there, {"me": metas("9")})
            await state(there, early=metas("1"), other=metas("2", "3", "4"))
            await diff(there, {"late": metas("5")})
            async with channel.presence() as presence:
                assert dict(presence) == {"me": metas("9"), "other": metas("2", "3", "4"), "late": metas("5")}


async def test_what_outgrows_its_state_is_folded_into_it(autojump_clock: MockClock) -> None:
    serializer = Counting()
    async with world() as there:
        async with there.connect(serializer=serializer) as socket, socket.join("room:1") as channel:
            await state(there, a={"metas": [{"phx_ref": "1", "pad": "x" * 10 * KIB}]})
            for number in range(9):
                await diff_of(there, str(number), KIB)
            assert serializer.times == [1] * 10
            await diff_of(there, "9", KIB)
            assert serializer.times == [2] * 11
            for number in range(10, 19):
                await diff_of(there, str(number), KIB)
            assert serializer.times == [2] * 11 + [1] * 9
            await diff_of(there, "19", KIB)
            assert serializer.times == [2] * 21
            async with channel.presence() as presence:
                assert set(presence) == {"a", *map(str, range(20))}
            assert serializer.times == [2] * 21


async def test_what_nobody_asks_for_is_checked_at_once(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel:
            await state(there, a=metas("1"))
            await tell(there, "presence_state", {"a": {"metas": [{}]}})
            await tell(there, "presence_diff", {"joins": {"b": None}})
            assert len(there.told("message_dropped", "reason")) == 2
            async with channel.presence() as presence:
                assert (dict(presence), presence.synced) == ({"a": metas("1")}, True)


async def test_what_was_known_is_shown_until_there_is_another_state(autojump_clock: MockClock) -> None:
    serializer = Counting()
    async with world() as there:
        async with there.connect(serializer=serializer) as socket, socket.join("room:1") as channel:
            await diff(there, {"before": metas("7")})
            await state(there, a=metas("1"), b=metas("2", "3"), c=metas(*map(str, range(10, 20))))
            await diff(there, leaves={"a": metas("1")})
            for generation in (2, 3):
                there.connection.drop()
                await connected_again(there, socket, generation)
                await diff(there, {"me": metas(str(generation))})
            assert max(serializer.times) == 1
            async with channel.presence() as presence:
                assert (set(presence), presence.synced) == ({"b", "c", "before"}, False)
                changes: list[PresenceChange] = []
                presence.on_join(changes.append)
                presence.on_leave(changes.append)
                await state(there, b=metas("2"))
                assert (dict(presence), presence.synced) == ({"b": metas("2"), "me": metas("3")}, True)
                assert sorted(told(changes)) == [
                    ("join", "me"),
                    ("leave", "b"),
                    ("leave", "before"),
                    ("leave", "c"),
                ]


# What waits for a state


@pytest.mark.parametrize("followed", [True, False])
async def test_what_waits_for_a_state_is_bounded_in_bytes(*, followed: bool, autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, contextlib.AsyncExitStack() as stack:
            if followed:
                await stack.enter_async_context(channel.presence())
            for number in range(80):
                presence = {"metas": [{"phx_ref": str(number), "pad": "é" * 16 * KIB}]}  # é is two bytes
                frame = [None, None, "room:1", "presence_diff", {"joins": {str(number): presence}}]
                await there.connection.send_raw(json.dumps(frame, ensure_ascii=False))
            await settle()
            await state(there)
            async with channel.presence() as opened_late:
                assert list(opened_late) == [str(number) for number in range(80 - 31, 80)]


async def test_what_waits_for_a_state_may_just_reach_its_bound(autojump_clock: MockClock) -> None:
    def said(key: str, size: int) -> str:
        empty = wire.text(None, None, "room", "presence_diff", {"joins": {key: metas("")}})
        return wire.text(None, None, "room", "presence_diff", {"joins": {key: metas("x" * (size - len(empty)))}})

    for size, kept in ((KIB, {"a", "b"}), (KIB + 1, {"b"})):
        async with scripted() as (socket, peer), socket.join("room") as channel:
            peer.feed(said("a", KIB * KIB - KIB), said("b", size))
            peer.message("room", "presence_state", {})
            await settle()
            async with channel.presence() as presence:
                assert set(presence) == kept


async def test_one_that_waits_for_a_state_is_kept_however_large(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            await diff_of(there, "first", KIB)
            await diff_of(there, "large", 2 * KIB * KIB)
            await state(there)
            assert set(presence) == {"large"}


async def test_what_waits_for_a_state_is_bounded_in_number(autojump_clock: MockClock) -> None:
    serializer = Counting()
    async with world() as there:
        async with (
            there.connect(serializer=serializer) as socket,
            socket.join("room:1") as channel,
            channel.presence() as presence,
        ):
            frame = [None, None, "room:1", "presence_diff"]
            await there.connection.send_raw(
                *(json.dumps([*frame, {"joins": {str(number): metas(str(number))}}]) for number in range(2000))
            )
            await settle()
            await state(there)
            assert list(presence) == [str(number) for number in range(2000 - 1024, 2000)]
            assert serializer.times == [1] * (2000 - 1024) + [2] * 1024 + [2]  # the others were not kept


# Whatever happens, in whatever order

KEYS = st.sampled_from("ab")
PRESENCES = st.builds(lambda refs: metas(*sorted(refs)), st.sets(st.sampled_from("12345"), min_size=1, max_size=3))
STATES = st.dictionaries(KEYS, PRESENCES)
DIFFS = st.builds(lambda joins, leaves: {"joins": joins, "leaves": leaves}, STATES, STATES)
STEPS = st.lists(
    st.tuples(st.just("presence_state"), STATES)
    | st.tuples(st.just("presence_diff"), DIFFS)
    | st.tuples(st.sampled_from(["open", "open", "close", "drop"]), st.none()),
    max_size=12,
)


@examples(60)
@given(STEPS)
@example(
    [
        ("presence_state", {"a": metas("1"), "b": metas("2")}),
        ("presence_diff", {"joins": {"b": metas("1", "3")}, "leaves": {}}),
        ("presence_state", {"b": metas("1", "2", "3")}),
    ]
)
def test_it_makes_no_difference_when_somebody_asks(steps: list[tuple[str, Any]]) -> None:
    trio.run(compare, steps, clock=MockClock(autojump_threshold=0))


def refs_of(entries: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the refs of the metas; who followed before a state came keeps the order in which it learnt of them."""
    return {key: sorted(meta["phx_ref"] for meta in entry["metas"]) for key, entry in entries.items()}


async def compare(steps: list[tuple[str, Any]]) -> None:
    """Follow, and do not, and follow again; what is shown is what the pure functions say of all messages."""
    known, generation = Presence(), 1
    async with world() as there, there.connect() as socket, socket.join("room:1") as channel:
        followed = channel.presence()
        shown: Any = None
        for step, payload in [*steps, ("open", None)]:
            match step:
                case "open" if shown is None:
                    followed = channel.presence()
                    shown = await followed.__aenter__()
                case "close" if shown is not None:
                    await followed.__aexit__(None, None, None)
                    shown = None
                case "drop":
                    generation += 1
                    there.connection.drop()
                    await connected_again(there, socket, generation)
                    known = known.rejoined()
                case "presence_state" | "presence_diff":
                    await tell(there, step, payload)
                    known, _ = known.received_all([(step, payload)])
            if shown is not None:
                assert (refs_of(shown), shown.synced) == (refs_of(known.entries), known.synced)
        await followed.__aexit__(None, None, None)


# What was given may be changed


def spoil(value: Any) -> None:
    """Empty all dicts and lists in a value."""
    for item in list(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()):
        spoil(item)
    if isinstance(value, dict | list | deque):
        value.clear()


ALL = {"a": metas("1", "2"), "b": metas("3")}


@pytest.mark.parametrize("watched", [True, False])
async def test_a_reader_may_change_the_messages(*, watched: bool, autojump_clock: MockClock) -> None:
    async with world() as there:
        if not watched:
            there.telemetry.detach("world")
        async with there.connect() as socket, socket.join("room:1") as channel:
            messages = aiter(channel)
            async with channel.presence() as presence:
                await diff(there, {"c": metas("4")})
                await state(there, **ALL)
                await diff(there, {"d": metas("5")})
                for _ in range(3):
                    spoil((await anext(messages)).payload)
                assert dict(presence) == {**ALL, "c": metas("4"), "d": metas("5")}
            await state(there, **ALL)
            await diff(there, leaves={"b": metas("3")})
            for _ in range(2):
                spoil((await anext(messages)).payload)
            async with channel.presence() as opened_late:
                assert dict(opened_late) == {"a": ALL["a"]}
        assert there.told("message_dropped", "reason") == []


async def test_a_reader_may_change_what_the_mapping_gives(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            await state(there, **ALL)
            spoil(presence["a"])
            spoil(presence.get("a"))
            for value in presence.values():
                spoil(value)
            spoil(dict(presence.items()))
            presence.list(lambda _, found: spoil(found))
            assert dict(presence) == ALL
            await diff(there, leaves={"a": metas("1")})
            assert dict(presence) == {"a": metas("2"), "b": metas("3")}


async def test_a_reader_may_change_the_changes(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            seen: list[PresenceChange] = []

            def spoil_change(change: PresenceChange) -> None:
                for value in (change.before, change.after, *change.metas):
                    spoil(value)

            for attach in (presence.on_join, presence.on_leave):
                attach(spoil_change)
                attach(seen.append)
            presence.on_sync(lambda entries: spoil(entries["a"]))
            await state(there, **ALL)
            await diff(there, {"a": metas("4")}, {"a": metas("1", "2"), "b": metas("3")})
            assert dict(presence) == {"a": metas("4")}
            for expected in seen:
                change = await anext(presence)
                assert change == expected
                spoil_change(change)
            assert [(change.before, change.after) for change in seen] == [
                (None, ALL["a"]),
                (None, ALL["b"]),
                (ALL["a"], metas("1", "2", "4")),
                (metas("1", "2", "4"), metas("4")),
                (ALL["b"], None),
            ]


async def test_all_presences_that_a_callback_is_given_are_those_of_the_moment(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect() as socket, socket.join("room:1") as channel, channel.presence() as presence:
            given_: list[Any] = []
            presence.on_sync(given_.append)
            await state(there, **ALL)
            await diff(there, leaves={"b": metas("3")})
            assert given_ == [ALL, {"a": ALL["a"]}]
            assert [(len(entries), "b" in entries, list(entries)) for entries in given_] == [
                (2, True, ["a", "b"]),
                (1, False, ["a"]),
            ]
            assert repr(given_[1]) == repr({"a": ALL["a"]})


class Odd(V2Serializer):
    """Decodes to what JSON does not have."""

    def decode(self, frame: Frame) -> Message:
        message = super().decode(frame)
        if message.event == "presence_state":
            message.payload["a"]["odd"] = deque([1, 2])
            message.payload["a"]["metas"][0]["odd"] = deque([1, 2])
        return message


async def test_what_a_serializer_of_the_users_decoded_is_copied_too(autojump_clock: MockClock) -> None:
    async with world() as there:
        async with there.connect(serializer=Odd()) as socket, socket.join("room:1") as channel:
            async with channel.presence() as presence:
                await state(there, a=metas("1"))
                for holder in (presence["a"], presence["a"]["metas"][0]):
                    spoil(holder["odd"])
                assert (presence["a"]["odd"], presence["a"]["metas"][0]["odd"]) == (deque([1, 2]), deque([1, 2]))


class Binary(V2Serializer):
    """Takes frames of bytes for what others take as text."""

    def decode(self, frame: Frame) -> Message:
        return super().decode(frame.decode() if isinstance(frame, bytes) else frame)


async def test_presences_may_come_in_frames_of_bytes(autojump_clock: MockClock) -> None:
    async with scripted(serializer=Binary()) as (socket, peer), socket.join("room") as channel:
        peer.feed(wire.text(None, None, "room", "presence_state", {"KEY": metas("1")}).replace("KEY", "é").encode())
        await settle()
        async with channel.presence() as presence:
            assert dict(presence) == {"é": metas("1")}


class Lenient(V2Serializer):
    """Takes text that is none in UTF-8."""

    def decode(self, frame: Frame) -> Message:
        return Message(*json.loads(frame))


async def test_presences_may_come_in_text_that_has_no_bytes(autojump_clock: MockClock) -> None:
    async with scripted(serializer=Lenient()) as (socket, peer), socket.join("room") as channel:
        for event, payload in (("presence_diff", {"joins": {"KEY": metas("1")}}), ("presence_state", {})):
            peer.feed(wire.text(None, None, "room", event, payload).replace("KEY", "\ud800"))
        await settle()
        async with channel.presence() as presence:
            assert dict(presence) == {"\ud800": metas("1")}
