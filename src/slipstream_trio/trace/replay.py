"""Replay: recorded inputs go through the pure core again, and the results are compared.

The core is a function of a state and an input, and a recording has both. So a recording can be checked against the core
of this version, wherever it was made; and a bug that was seen once can be seen again, step by step.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import define, field, frozen

from .. import protocol
from ..errors import ProtocolError
from .encode import BUILT_IN
from .redact import Redacted
from .schema import Recorded
from .values import shown


@frozen
class Absent:
    """Stands for the missing side of a difference."""

    def __repr__(self) -> str:
        return "(nothing)"


@frozen
class Difference:
    """A difference of two values.

    Attributes:
        field: the way to it, such as "joins" or "built_events[0].response.body".
        expected: the first value there.
        got: the second value there.
    """

    field: str
    expected: Any
    got: Any


@frozen
class Divergence:
    """A place where the core does something else than recorded.

    Attributes:
        line: the line of the record, in its file.
        connection_id: the connection.
        field: the differing field, such as "end_state.current_ref" or "built_events[0].status".
        expected: the recorded value.
        got: the core's value.
    """

    line: int
    connection_id: str | None
    field: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        return f"line {self.line}: {self.field}: {self.expected!r} was recorded, and the core gives {self.got!r}"


@frozen
class ReplayStep:
    """One input, replayed.

    Attributes:
        record: the record of its end, which has all that was recorded of it.
        before: the state before it.
        transition: the core's transition now; None where it raises.
        divergences: where that is not what was recorded.
    """

    record: Recorded
    before: protocol.State
    transition: protocol.Transition | None
    divergences: tuple[Divergence, ...]

    @property
    def after(self) -> protocol.State:
        """The state after it, as recorded."""
        state: protocol.State = self.record.metadata.get("end_state", self.before)
        return state


@define
class Replayer:
    """Replays records one by one, of any number of connections.

    What was recorded of messages that went through a serializer of the user's is taken as it is.

    Parameters:
        payloads_hidden: whether payloads are not as they were, so that what could not be sent now can.
    """

    _payloads_hidden: bool = False
    _states: dict[str | None, protocol.State] = field(factory=dict, init=False)

    def feed(self, record: Recorded) -> ReplayStep | None:
        """Take in the next record; returns the step, if an input was handled with it."""
        name = record.name
        if name[1:3] == ("connection", "connect"):
            if name[-1] == "start":
                self._states[record.connection_id] = record.metadata["state"]
            else:
                self._states.pop(record.connection_id, None)
        elif name[1:3] == ("connection", "handle") and name[-1] != "start":
            return self._replay(record)
        return None

    def missed(self) -> None:
        """Note that records are missing here: states continue as recorded."""
        self._states.clear()

    def _replay(self, record: Recorded) -> ReplayStep:
        metadata = record.whole()
        recorded: protocol.State = metadata["state"]
        found = list(differences(recorded, self._states.get(record.connection_id, recorded), "state"))
        given = metadata["raw_message"]
        hidden = type(given) is protocol.FrameReceived and isinstance(given.frame, Redacted)
        serializer = _AsRecorded(metadata) if hidden or recorded.options.serializer not in BUILT_IN else None
        transition = None
        try:
            transition = protocol.handle(recorded, given, serializer)
        except Exception as error:  # noqa: BLE001 - whatever the core raises is an outcome like any other
            kind, expected = type(error).__name__, metadata.get("kind", "no exception")
            found += [] if expected == kind else [Difference("exception", expected, f"{kind}: {error}")]
        else:
            if record.name[-1] == "exception" and not self._payloads_hidden:
                found.append(Difference("exception", metadata["kind"], "no exception"))
            elif record.name[-1] != "exception":
                got = transition.message, transition.built_events, transition.return_, transition.state
                for name, its in zip(("message", "built_events", "return", "end_state"), got, strict=True):
                    found += differences(metadata[name], its, name)
        self._states[record.connection_id] = metadata.get("end_state", recorded)
        line = getattr(record, "line", 0)  # a live record has none
        divergences = [Divergence(line, record.connection_id, each.field, each.expected, each.got) for each in found]
        return ReplayStep(record, recorded, transition, tuple(divergences))


@define
class _AsRecorded:
    """A serializer that gives what was recorded of one input."""

    name = vsn = "as recorded"
    metadata: Mapping[str, Any]

    def encode(self, message: protocol.Message) -> protocol.Frame:
        sent = (each for each in self.metadata.get("return", ()) if isinstance(each, protocol.SendFrame))
        return next((each.frame for each in sent if each.ref == message.ref), "")

    def decode(self, frame: protocol.Frame) -> protocol.Message:  # noqa: ARG002 - there is but one
        for event in self.metadata.get("built_events", ()):
            if isinstance(event, protocol.FrameRejected) and not isinstance(self.metadata["message"], protocol.Message):
                raise ProtocolError(event.reason)
        message: protocol.Message = self.metadata["message"]
        return message


def replay(records: Iterable[Recorded], *, payloads_hidden: bool = False) -> Iterator[Divergence]:
    """Replay records; gives each difference between what was recorded and what the core does.

    What was recorded of messages that went through a serializer of the user's is taken as it is.

    Parameters:
        records: such as `read` gives them.
        payloads_hidden: whether payloads are not as they were.
    """
    replayer = Replayer(payloads_hidden)
    for record in records:
        if (step := replayer.feed(record)) is not None:
            yield from step.divergences


def differences(expected: Any, got: Any, field: str = "") -> Iterator[Difference]:
    """Give where two values differ: states, events, messages, payloads.

    Frames are the same if they say the same: codecs write numbers in more than one way.

    Parameters:
        field: the beginning of the path to a difference.
    """
    if expected is got or expected == got:
        return
    before, after = _parts(expected), _parts(got)
    if before is None or after is None or type(expected) is not type(got):
        if not (field.rpartition(".")[2] == "frame" and _same_frame(expected, got)):
            yield Difference(field, expected, got)
        return
    for key in dict.fromkeys((*before, *after)):
        place = f"{field}{key}" if field else key.removeprefix(".")
        yield from differences(before.get(key, Absent()), after.get(key, Absent()), place)


def _parts(value: Any) -> dict[str, Any] | None:
    """Return what a value consists of, under the ways to it; None if it is one thing."""
    fields = value if isinstance(value, Mapping) else shown(value)
    if fields is not None:
        return {f".{key}": item for key, item in fields.items()}
    if isinstance(value, tuple | list):
        return {f"[{index}]": item for index, item in enumerate(value)}
    return None


def _same_frame(expected: Any, got: Any) -> bool:
    try:
        return isinstance(expected, str) and isinstance(got, str) and bool(json.loads(expected) == json.loads(got))
    except ValueError:
        return False
