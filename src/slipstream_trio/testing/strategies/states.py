"""Connections as the pure core has them: options, inputs that fit a state, and the states that they lead to."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from attrs import evolve, frozen
from hypothesis import strategies as st

from ... import protocol
from ...protocol.message import CLOSE, ERROR, PHOENIX
from ...protocol.state import Identity
from ..deterministic import SequentialIds
from ..server.wire import Wire
from .frames import binary_payloads, events, frames, json_payloads, json_values, statuses, topics

URL: Final = "ws://localhost:4000/socket/websocket"


@frozen
class History:
    """The history of one connection from before its upgrade: its first state, its inputs, the transition of each."""

    start: protocol.State
    inputs: tuple[protocol.Input, ...] = ()
    transitions: tuple[protocol.Transition, ...] = ()

    @property
    def state(self) -> protocol.State:
        """The state that it led to."""
        return self.transitions[-1].state if self.transitions else self.start

    @property
    def now(self) -> float:
        """The time of its last input that has one, in seconds; 0.0 at its beginning."""
        return next((given.now for given in reversed(self.inputs) if hasattr(given, "now")), 0.0)

    def then(self, given: protocol.Input) -> "History":
        """Return the history that goes on with an input; raises what `handle` raises."""
        transitions = (*self.transitions, protocol.handle(self.state, given))
        return History(self.start, (*self.inputs, given), transitions)


def options() -> st.SearchStrategy[protocol.Options]:
    """Options that matter to the core: the version of the protocol, and the heartbeat's times, in seconds.

    Some have no URL, as with a function for it.
    """
    return st.builds(
        protocol.Options,
        url=st.sampled_from([URL, URL, URL, None]),
        vsn=st.sampled_from(["2.0.0", "2.0.0", "1.0.0"]),
        heartbeat_interval=st.sampled_from([30.0, 1.0, 7.0, None]),
        heartbeat_timeout=st.sampled_from([10.0, 1.0, None]),
    ).map(lambda drawn: evolve(drawn, serializer=f"v{drawn.vsn[0]}"))


def opening_state(chosen: protocol.Options | None = None) -> protocol.State:
    """Return the state of a connection whose transport is being opened, with ids that are always the same.

    Parameters:
        chosen: its options; None: the defaults.
    """
    ids, options = SequentialIds(), protocol.Options(url=URL) if chosen is None else chosen
    return protocol.State(identity=Identity(ids.span_id(), ids.trace_id(), ids.span_id(), 1, options))


# Inputs

# Made once: an input is drawn for every step of a history, and to make a strategy costs more than to draw from it.
_JSON: Final = st.sampled_from([{}, {"n": 1}, {"body": "hi"}, None, [1], "text"]) | json_payloads() | json_values()
_PAYLOADS: Final = {"1.0.0": _JSON, "2.0.0": _JSON | binary_payloads()}
_FRAMES: Final = lru_cache(maxsize=16)(frames)
_WIRE: Final = lru_cache(maxsize=16)(Wire)
_TOPICS: Final = topics()
_EVENTS: Final = events()
_ANY_EVENTS: Final = events(reserved=True)
_STATUSES: Final = st.sampled_from(["ok", "ok", "ok", "error"]) | st.sampled_from(["ok", "ok", "error"]) | statuses()
_CODES: Final = st.sampled_from([1000, 1001, 1002, 1006, 1007, 1009, 1011, 1012, 4000, 4999])
_DELAYS: Final = st.sampled_from([0.0, 0.001, 0.5, 1.0, 7.0, 30.0])
_TIMEOUTS: Final = st.sampled_from([1.0, 5.0, 10.0, None])
_DEADLINES: Final = st.sampled_from([None, None, 1.0, 7.0])
_REFUSALS: Final = st.sampled_from([None, 403, 404, 429, 503])
_ENDED_BYS: Final[list[protocol.EndedBy | None]] = [None, None, "client", "server", "network"]
_REASONS: Final = st.sampled_from([None, None, None, "protocol_error", "message_too_big"])
_ENDS: Final = st.builds(protocol.TransportClosed, _CODES, st.just(""), st.sampled_from(_ENDED_BYS), _REASONS)
_AGO: Final = st.sampled_from([None, 0.0, 0.5, 1.0, 7.0, 31.0])
_LINE: Final = st.tuples(_AGO, _AGO, st.none() | _AGO)

_HEARD: Final = ("answer", "answer", "answer", "own", "own", "tick", "stray")
_KINDS: Final[Mapping[str, Sequence[str]]] = {
    "opening": (*["opened"] * 6, "refused", "end", "tick"),
    "open": (*("join", "join", "push", "push", "leave", "beat", *_HEARD) * 4, "end", "close"),
    "closing": (*_HEARD, "end"),
    "closed": ("tick",),
}
"""The kinds of inputs by the status of the connection; repeated ones are drawn more often."""


@st.composite
def inputs(
    draw: st.DrawFn,
    state: protocol.State,
    now: float = 0.0,
    *,
    topic: st.SearchStrategy[str] = _TOPICS,
    answers: bool = True,
) -> protocol.Input:
    """Inputs that fit a state: `handle` accepts each of them.

    Commands, if the connection is open; reports of its transport; the timer; and frames: answers, ends of channels,
    messages on joined topics and on others, and anything else that a server may send.

    Parameters:
        state: of the connection.
        now: the time of the latest input, in seconds; those drawn are not earlier.
        topic: the topics of joins, and of frames that have nothing to do with the state.
        answers: whether answers to what the client sent are among them.
    """
    lacking = (() if state.joins else ("push", "own")) + (() if answers else ("answer",))
    kind = draw(st.sampled_from([kind for kind in _KINDS[state.status] if kind not in lacking]))
    now += draw(_DELAYS)
    url = URL if state.options.url is None else None
    match kind:
        case "opened":
            return protocol.TransportOpened(now, (("upgrade", "websocket"), ("connection", "Upgrade")), url)
        case "refused":
            return protocol.TransportFailed("refused", draw(_REFUSALS), url=url)
        case "end":
            return draw(_ENDS)
        case "tick":
            return _tick(draw, state, now)
        case "answer":
            return protocol.FrameReceived(now, _answer(draw, state, topic))
        case "own":
            return protocol.FrameReceived(now, _own(draw, state))
        case "stray":
            return protocol.FrameReceived(now, draw(_FRAMES(_WIRE(state.options.vsn).vsn, topic=topic)))
    return _command(draw, kind, state, now, topic)


def _command(
    draw: st.DrawFn, kind: str, state: protocol.State, now: float, topics: st.SearchStrategy[str]
) -> protocol.Input:
    match kind:
        case "join":
            limit = draw(_DEADLINES)
            deadline, topic = None if limit is None else now + limit, _topic(draw, state, topics)
            return protocol.JoinTopic(now, topic, draw(_JSON), draw(_TIMEOUTS), deadline, rejoin=draw(st.booleans()))
        case "leave":
            return protocol.LeaveTopic(now, _topic(draw, state, topics), draw(_TIMEOUTS))
        case "push":
            topic, vsn = draw(st.sampled_from(sorted(state.joins))), _WIRE(state.options.vsn).vsn
            return protocol.PushMessage(topic, draw(_EVENTS), draw(_PAYLOADS[vsn]))
        case "beat":
            return protocol.SendHeartbeat(now)
    return protocol.CloseConnection(draw(_CODES))


def _tick(draw: st.DrawFn, state: protocol.State, now: float) -> protocol.Input:
    if (deadline := protocol.next_deadline(state)) is not None and draw(st.booleans()):
        now = max(now, deadline)
    if draw(st.booleans()):
        return protocol.TimerTicked(now)
    heard, written, blocked = (None if ago is None else now - ago for ago in draw(_LINE))
    return protocol.TimerTicked(now, heard, None if state.heartbeat_ref is None else written, blocked)


def _answer(draw: st.DrawFn, state: protocol.State, topics: st.SearchStrategy[str]) -> protocol.Frame:
    """A reply to the join, the leave or the heartbeat that awaits one, or to a push of the past."""
    awaited = [(topic, ref) for known in (state.joins, state.leaves) for topic, ref in sorted(known.items())]
    awaited += [(topic, ref) for ref, topic in state.turns.items()]
    if state.heartbeat_ref is not None:
        awaited.append((PHOENIX, state.heartbeat_ref))
    if not awaited or draw(st.integers(0, 3)) == 3:
        awaited = [(_topic(draw, state, topics), str(draw(st.integers(1, max(1, state.current_ref)))))]
    topic, ref = draw(st.sampled_from(awaited))
    wire = _WIRE(state.options.vsn)
    return wire.encode_reply(None, ref, topic, draw(_STATUSES), draw(_PAYLOADS[wire.vsn]))


def _own(draw: st.DrawFn, state: protocol.State) -> protocol.Frame:
    """A push of a joined channel, its end, or a broadcast on it."""
    topic = draw(st.sampled_from(sorted(state.joins)))
    ref, wire = state.joins[topic], _WIRE(state.options.vsn)
    match draw(st.sampled_from(["push", "push", "push", "broadcast", "broadcast", CLOSE, ERROR])):
        case "push":
            return wire.encode(protocol.Message(ref, None, topic, draw(_EVENTS), draw(_PAYLOADS[wire.vsn])))
        case "broadcast":
            return wire.encode(protocol.Message(None, None, topic, draw(_ANY_EVENTS), draw(_PAYLOADS[wire.vsn])))
        case ending:
            return wire.encode(protocol.Message(ref, ref, topic, ending, {}))


def _topic(draw: st.DrawFn, state: protocol.State, topics: st.SearchStrategy[str]) -> str:
    joined = sorted(state.joins)
    usual: st.SearchStrategy[str] = st.sampled_from(joined) if joined else topics
    return draw(usual if draw(st.booleans()) else topics)


@st.composite
def histories(draw: st.DrawFn, *, max_inputs: int = 20) -> History:
    """Whole lives of connections, or their beginnings: each input fits the state before it.

    Parameters:
        max_inputs: the most inputs of one.
    """
    history = History(opening_state(draw(options())))
    for _ in range(draw(st.integers(0, max_inputs))):
        history = history.then(draw(inputs(history.state, history.now)))
    return history


def states(*, max_inputs: int = 20) -> st.SearchStrategy[protocol.State]:
    """States that a connection can reach: opening, open with topics joined and left, closing, closed.

    Parameters:
        max_inputs: the most inputs before it.
    """
    return histories(max_inputs=max_inputs).map(lambda history: history.state)
