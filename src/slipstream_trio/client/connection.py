"""One connection at work: its state, its receive loop, its writer, and the telemetry of all that it handles."""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import trio

from ..errors import ConnectError, ConnectionRejected, ProtocolError
from ..protocol import (
    CloseConnection,
    CloseTransport,
    Event,
    Frame,
    FrameReceived,
    Input,
    LeaveTopic,
    Message,
    PushMessage,
    SendFrame,
    Serializer,
    State,
    TimerTicked,
    Transition,
    TransportClosed,
    TransportFailed,
    TransportOpened,
    handle,
    is_plain,
    next_deadline,
)
from ..protocol.transitions import ABNORMAL_CLOSURE, receive
from ..telemetry import Origin, Telemetry
from ..telemetry.span import ConnectionSpans
from ..transport import Connector, OpenRequest, Transport, TransportEnded
from .buffer import Crowd
from .handshake import redacted_error, redactor, shown_url, with_trace_context, with_whole_timeout
from .outbox import Outbox
from .pushes import PushTable
from .timer import Timer

__all__ = ["OPTION_FAILED", "Connection", "Owner", "only_cancelled"]

EASING: Final = 0.05
"""Seconds that the receive loop lets a consumer catch up, at most."""

OPTION_FAILED: Final = "option_failed"
"""The reason of a connection that has ended before it was opened: a function among the options has failed."""

LAST_WORDS: Final = 1.0
"""Seconds to answer a close frame, or to find out why a write failed."""


class Owner(Protocol):
    """Whom a connection reports to."""

    crowded: Crowd | None
    """A buffer that `deliver` found to fill up faster than it is read; the receive loop resets it."""

    def deliver(self, message: Message) -> None:
        """Give a plain message to its channel."""
        ...

    def handle_event(self, event: Event) -> None:
        """Take notice of any other event."""
        ...

    def fail(self, error: BaseException) -> None:
        """Take notice of a bug that has ended the connection; no event tells of it."""
        ...


class Connection:
    """One attempt at, and life of, one transport.

    Inputs are handled one at a time. A handler of telemetry, and any other code of the user's that is called while an
    input is being handled, may give another one to `submit`: it is handled right after, so that spans do not nest,
    frames are sent in the order of the states, and nothing is delivered out of turn.

    Parameters:
        state: the state to begin with, "opening".
        serializer: the serializer.
        telemetry: the bus.
        owner: whom events are reported to.
        timer: armed with the connection's deadlines; the owner calls `tick`.
    """

    def __init__(
        self, state: State, *, serializer: Serializer, telemetry: Telemetry, owner: Owner, timer: Timer
    ) -> None:
        self.state: State = state
        self.origin: Origin = Origin(state.connection_id, state.trace_id, state.socket_id, state.generation)
        self.outbox: Outbox = Outbox()
        self.pushes: PushTable = PushTable()
        self.failure: ConnectError | None = None
        self.option_error: Exception | None = None
        self.lived: float | None = None
        self.handling: bool = False
        self._submitted: deque[LeaveTopic] = deque()
        self._serializer = serializer
        self._telemetry = telemetry
        self._spans = ConnectionSpans(telemetry, self.origin)
        self._owner = owner
        self._timer = timer
        self._close: CloseTransport | None = None
        self._close_asked = trio.Event()
        self._broken = False
        self._scope = trio.CancelScope()

    @property
    def is_open(self) -> bool:
        """Whether commands can be given."""
        return self.state.status == "open" and not self._broken

    @trio.lowlevel.enable_ki_protection
    def handle(self, given: Input, note: Any = None) -> Transition:
        """Let the core handle an input, and do what it says; then handle what was submitted meanwhile.

        Parameters:
            note: what the outbox is told of the frame that this sends, together with its ref.

        Raises:
            SerializationError: a command's payload cannot be sent.
            RuntimeError: another input is being handled.
        """
        if self.handling:
            raise RuntimeError("a telemetry handler may not wait for the connection whose records it is given")
        self.handling = True
        try:
            return self._handle(given, note)
        finally:
            if self._submitted:
                self._catch_up()
            self.handling = False

    def submit(self, leave: LeaveTopic) -> None:
        """Handle a leave: now, or right after the input that is being handled. The connection has to be open.

        It is the one command that can be given without awaiting, thus from within a handler.
        """
        if self.handling:
            self._submitted.append(leave)
        else:
            self.handle(leave)

    def _handle(self, given: Input, note: Any) -> Transition:
        if self._spans.handle.active:
            return self._handle_in_span(given, note)
        transition = handle(self.state, given, self._serializer)
        self.state = transition.state
        self._carry_out(transition, note)
        return transition

    def _handle_in_span(self, given: Input, note: Any) -> Transition:
        spans = self._spans
        start = spans.new_handle(given, self.state)
        try:
            spans.handle.start.emit(start)
            transition = handle(self.state, given, self._serializer)
        except BaseException as error:
            spans.fail_handle(start, error)
            raise
        self.state = transition.state
        try:
            spans.stop_handle(start, transition)
        finally:
            # A handler may raise SystemExit; what the state says is done, is done.
            self._carry_out(transition, note)
        return transition

    def _catch_up(self) -> None:
        """Handle what was submitted. This ends: each topic is left once, and none can be joined without awaiting."""
        try:
            while self._submitted and self.is_open:
                self._handle(self._submitted.popleft(), None)
        finally:
            # The end of the connection is the end of its topics, and has been told.
            self._submitted.clear()

    def tick(self, now: float) -> float | None:
        """Handle what is due; returns when the next is."""
        deadline = next_deadline(self.state)
        if deadline is None or deadline > now or self._broken:
            return deadline
        self.handle(TimerTicked(now))
        return next_deadline(self.state)

    def close(self, code: int, reason: str, deadline: float) -> None:
        """Close once everything queued is written; what is not closed by `deadline` is aborted."""
        if self.is_open:
            self.handle(CloseConnection(code, reason))
        self._end_by(deadline)

    async def run(self, connector: Connector, ask: Callable[[], Awaitable[OpenRequest]]) -> None:
        """Open the transport, and serve it until it ends; `state`, `failure` and `option_error` tell how.

        Parameters:
            ask: returns what to open it with, or raises what an option's function did.
        """
        life = self._spans.start_connect(self.state)
        try:
            request = await self._asked(ask)
            if request is not None:
                await self._open(connector, request)
        except BaseException as error:
            if not only_cancelled(error):
                self._broken = True
                self._owner.fail(error)
                self._spans.fail_connect(life, error)
                raise
            self._end_if_needed("cancelled")
            self._spans.stop_connect(life, self.state, self.state.close_reason or "cancelled")
            raise
        reason = "connect_failed" if self.option_error is None else OPTION_FAILED
        self._spans.stop_connect(life, self.state, self.state.close_reason or reason)

    async def _asked(self, ask: Callable[[], Awaitable[OpenRequest]]) -> OpenRequest | None:
        try:
            return await ask()
        except Exception as error:  # noqa: BLE001 - what the user's functions raise is the user's
            self.option_error = error
            self.handle(TransportFailed(OPTION_FAILED))
            return None

    async def _open(self, connector: Connector, request: OpenRequest) -> None:
        redact = redactor(request)
        request = with_trace_context(request, self.state, self._telemetry.propagate(self.origin))
        try:
            async with connector.open(request, self.outbox.wake) as transport:
                opened_at = trio.current_time()
                headers = tuple((name, redact(value)) for name, value in transport.response_headers)
                self.handle(TransportOpened(opened_at, headers, shown_url(request, self.state.options)))
                await self._serve(transport)
                self.lived = trio.current_time() - opened_at
        except ConnectError as error:
            failure = redacted_error(with_whole_timeout(error, request, self.state.options), redact)
            self._fail(failure, shown_url(request, self.state.options))

    def _fail(self, error: ConnectError, url: str | None) -> None:
        self.failure = error
        if isinstance(error, ConnectionRejected):
            self.handle(TransportFailed(error.reason, error.status, error.headers, error.body, url))
        else:
            self.handle(TransportFailed(error.reason, url=url))

    def _end_if_needed(self, message: str) -> None:
        if self.state.status == "opening":
            self.handle(TransportFailed(message))
        elif self.state.status != "closed":
            self.handle(TransportClosed(ABNORMAL_CLOSURE, message))

    async def _serve(self, transport: Transport) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    closer = trio.CancelScope()
                    nursery.start_soon(self._write, transport)
                    nursery.start_soon(self._close_when_asked, transport, closer)
                    await self._receive(transport)
                    closer.cancel()
                    # The writer ends when it has written the answer to a close frame.
                    self._end_by(trio.current_time() + LAST_WORDS)
                    self.outbox.close()
        finally:
            self.outbox.close()  # also if the receive loop was cut off: users may wait for room
        self._end_if_needed("not closed in time")

    @trio.lowlevel.enable_ki_protection
    async def _receive(self, transport: Transport) -> None:
        try:
            while True:
                frames = await transport.receive()
                now = trio.current_time()
                for frame in frames:
                    self._take_in(frame, now)
                if self._owner.crowded is not None:
                    await _ease(self._owner.crowded)
                    self._owner.crowded = None
        except TransportEnded as ended:
            self.handle(TransportClosed(ended.code, ended.message))

    def _take_in(self, frame: Frame, now: float) -> None:
        """Handle a frame: by a shortcut, if nobody watches and there is nothing to it."""
        if self._spans.handle.active:
            self.handle(FrameReceived(now, frame))
            return
        try:
            message = self._serializer.decode(frame)
        except ProtocolError:
            self.handle(FrameReceived(now, frame))
            return
        if is_plain(self.state, message):
            self._owner.deliver(message)
        else:
            self._take_in_other(message, FrameReceived(now, frame))

    def _take_in_other(self, message: Message, received: FrameReceived) -> None:
        self.handling = True
        try:
            transition = receive(self.state, message, received)
            self.state = transition.state
            self._carry_out(transition, None)
        finally:
            if self._submitted:
                self._catch_up()
            self.handling = False

    def _carry_out(self, transition: Transition, note: Any) -> None:
        for effect in transition.return_:
            if isinstance(effect, SendFrame):
                self.outbox.put(effect.frame, None if note is None else (effect.ref, note))
            else:
                self._close = effect
                self._close_asked.set()
                if type(transition.message) is TimerTicked:
                    # A heartbeat was not answered; its server will hardly answer a close frame.
                    self._end_by(trio.current_time() + LAST_WORDS)
        for event in transition.built_events:
            self._owner.handle_event(event)
        if type(transition.message) is not PushMessage:
            self._arm()

    def _end_by(self, deadline: float) -> None:
        self._scope.deadline = min(self._scope.deadline, deadline)

    def _arm(self) -> None:
        deadline = next_deadline(self.state)
        if deadline is not None:
            self._timer.arm(deadline)

    @trio.lowlevel.enable_ki_protection
    async def _write(self, transport: Transport) -> None:
        try:
            while (frames := await self.outbox.take()) is not None:
                await transport.send(frames)
        except TransportEnded:
            # Why is for the receive loop to find out: a close frame may wait there.
            self._end_by(trio.current_time() + LAST_WORDS)

    @trio.lowlevel.enable_ki_protection
    async def _close_when_asked(self, transport: Transport, scope: trio.CancelScope) -> None:
        with scope:
            await self._close_asked.wait()
            assert self._close is not None
            await self.outbox.drained()
            await transport.close(self._close.code, self._close.reason)


def only_cancelled(error: BaseException) -> bool:
    """Tell whether an exception is a cancellation, or a nursery's group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


async def _ease(buffer: Crowd) -> None:
    """Let the consumer of a buffer catch up for as long as it does, but not for long."""
    until = time.perf_counter() + EASING
    size = len(buffer)
    while time.perf_counter() < until:
        await trio.lowlevel.checkpoint()
        if len(buffer) >= size or not buffer.crowded:
            return
        size = len(buffer)
