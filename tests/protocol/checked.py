"""A connection of the pure core that checks itself: after every input, everything that must hold."""

from collections.abc import Iterator
from unittest.mock import patch

from tests.protocol.ledger import Ledger, check_state

from slipstream_trio.protocol import (
    STATE_FIELDS,
    FrameReceived,
    Input,
    Message,
    MessageReceived,
    Options,
    Serializer,
    State,
    Transition,
    handle,
    is_plain,
    serializer_for,
    transitions,
)
from slipstream_trio.protocol.transitions import plain_reply, receive
from slipstream_trio.testing.stateful import ConnectionMachine, CoreConnection


def check_shortcuts(state: State, given: Input, transition: Transition, serializer: Serializer) -> Iterator[str]:
    """Give what is wrong with the shortcuts around `handle`, where the input is a frame that has a message."""
    message = transition.message
    if not isinstance(given, FrameReceived) or not isinstance(message, Message):
        return
    with patch.object(transitions, "plain_reply", return_value=None):
        if receive(state, message, given, serializer) != transition:
            yield "receive() does something else without its shortcut"
    reply = plain_reply(state, message)
    if reply is not None and transition != Transition(state, message, (reply,)):
        yield f"plain_reply() is {reply} of a message that does something else"
    plain = transition.state is state and transition == Transition(state, message, (MessageReceived(message),))
    if is_plain(state, message) != plain:
        yield f"is_plain() is {not plain} of a message that is {'' if plain else 'not '}just delivered"


class CheckedConnection(CoreConnection):
    """Handles every input twice, holds the state against a copy of itself, and the connection against a ledger."""

    def __init__(self, options: Options | None = None, **more: object) -> None:
        super().__init__(options, **more)  # type: ignore[arg-type]
        self.ledger = Ledger()
        self._checked_by = serializer_for(self.state.options.vsn)

    def feed(self, given: Input) -> Transition:
        # It shares no mapping with the state, being made of all that this shows; all else in it is frozen.
        self.snapshot = State(**{name: getattr(self.state, name) for name in STATE_FIELDS})
        return super().feed(given)

    def check(self, before: State, given: Input, transition: Transition) -> list[str]:
        wrong = ["the state before the input was changed in place"] if before != self.snapshot else []
        # Of the copy, as a core that changes states in place would stumble over what it has done.
        if handle(self.snapshot, given, self._checked_by) != transition:
            wrong.append("the same input does something else when it is handled again")
        if transition.message is not given and not isinstance(transition.message, Message):
            wrong.append(f"the transition shows neither a message nor its input, but {transition.message!r}")
        wrong += check_shortcuts(before, given, transition, self._checked_by)
        return [*wrong, *check_state(transition.state), *self.ledger.note(given, transition)]

    def finish(self) -> None:
        super().finish()
        if self.ledger.ends != 1:
            raise AssertionError(f"the connection ended {self.ledger.ends} times")


class CheckedMachine(ConnectionMachine):
    """The machine of users, with connections that check the core itself."""

    connection_type = CheckedConnection
