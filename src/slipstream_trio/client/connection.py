"""One connection at work: its state, its receive loop, and the telemetry of every input that it handles."""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, final

import trio

from .. import protocol
from ..errors import ConnectError, ConnectionLost, ConnectionRejected, EndedBy, SerializationError
from ..protocol import Frame, Input, Message, State, Transition
from ..protocol.transitions import ABNORMAL_CLOSURE, push_frame, receive
from ..telemetry import ConnectStart
from ..telemetry.secrecy import redactor
from ..telemetry.span import ConnectionSpans
from ..transport import Connector, OpenRequest, Transport, TransportEnded
from .handshake import masked, redacted_error, secrets_of, shown_url, with_trace_context, with_whole_timeout
from .spans import Span
from .status import Tasks, only_cancelled
from .timer import alarm_of_this_run
from .turn import MESSAGES_A_TURN, take_in, turn_of_this_run
from .writer import Writer

if TYPE_CHECKING:
    from .buffer import Backlog
    from .socket import Socket

logger: Final = logging.getLogger("slipstream_trio")

OPTION_FAILED: Final = "option_failed"
"""The reason of a connection that has ended before it was opened: a function among the options has failed."""

GRACE_PERIOD: Final = 1.0
"""Seconds to answer a close frame, or to find out why a write failed."""

PASSES_A_READ: Final = 2
"""Passes of the scheduler in which the receive loop has taken in what comes next, if it has come already."""


@final
class Connection:
    """One attempt at, and life of, one transport.

    Inputs are handled one at a time. A handler of telemetry, and any other code of the user's that is called while an
    input is being handled, may give another one `afterwards`: it is handled right after, so that spans do not nest,
    frames are sent in the order of the states, and nothing is delivered out of turn.
    """

    def __init__(self, socket: "Socket", state: State, attempt: int) -> None:
        self._state = state
        self._ref = state.current_ref  # ahead of the state's by the pushes that nothing but their refs is left of
        self.attempt: Span = socket._emitter.attempt(state, attempt)
        self.writer: Writer = Writer(socket._pushes)
        self.failure: ConnectError | None = None  # why it could not be opened
        self.option_error: Exception | None = None  # that a function among the options raised
        self.received: float = trio.current_time()  # the last whole data message, or else the opening
        self.response_headers: tuple[tuple[str, str], ...] = ()
        self.handling: bool = False
        self._socket = socket
        self._spans = ConnectionSpans(socket._emitter.telemetry, socket._emitter.origin)
        self._afterwards: list[Callable[[], object]] = []
        self._turn = turn_of_this_run()
        self._batches = 0  # of frames, taken in
        self._wakes = False  # whether a task wakes the readers that are held
        self._transport: Transport | None = None
        self._closer: trio.CancelScope | None = None
        self._broken = False
        self._scope = trio.CancelScope()
        self._tasks = Tasks(socket._supervisor.nursery, self._scope)

    @property
    def state(self) -> State:
        """The state of now."""
        if self._ref != self._state.current_ref:
            self._state = self._state.with_ref(self._ref)
        return self._state

    @property
    def is_open(self) -> bool:
        """Whether commands can be given."""
        return self._state.status == "open" and not self._broken

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self._state.status == "closed" or self._broken

    def _become(self, state: State) -> None:
        self._state, self._ref = state, state.current_ref

    @trio.lowlevel.enable_ki_protection
    def handle(self, given: Input, sent: Message | None = None, decoded: Message | None = None) -> Transition:
        """Let the core handle an input, and do what it says; then what was put off meanwhile.

        `sent` is the message that this sends, if nobody will be told otherwise should it never be written; `decoded` is
        that of a frame that was decoded already. Raises `SerializationError` for a command that cannot be sent.
        """
        if self.handling:
            raise RuntimeError("a telemetry handler may not wait for the connection whose records it is given")
        self.handling = True
        try:
            return self._handle(given, sent, decoded)
        except SerializationError as error:
            error.with_traceback(None)  # its way through the core helps no user
            raise
        finally:
            self.handling = False
            if self._afterwards:
                self._catch_up()

    @trio.lowlevel.enable_ki_protection
    def push(self, push: protocol.PushMessage, sent: Message | None = None) -> str:
        """Handle a push, and return its ref: as `handle` does, by a shortcut where nobody watches."""
        if self._spans.handle.active or self.handling:
            effect = self.handle(push, sent).return_[0]
            assert isinstance(effect, protocol.SendFrame)
            return effect.ref
        self.handling = True
        try:
            ref = str(self._ref + 1)
            frame = push_frame(self._state, push, ref, self._socket._serializer)
            self._ref += 1
            self.writer.put(frame, None if sent is None else sent._replace(ref=ref))
        finally:
            self.handling = False
            if self._afterwards:
                self._catch_up()
        return ref

    def handle_own(
        self, given: protocol.LeaveTopic | protocol.TimerTicked | protocol.FrameReceived, decoded: Message | None = None
    ) -> None:
        """Handle an input that nobody is told about: if the user's serializer fails, the connection ends."""
        try:
            self.handle(given, decoded=decoded)
        except SerializationError as error:
            self._end_speechless(error)

    def _end_speechless(self, error: SerializationError) -> None:
        logger.error("connection %s cannot go on: %s", self._state.connection_id, error)
        if self.is_open:
            self.handle(protocol.CloseConnection(1000, "serializer_failed"))

    def afterwards(self, action: Callable[[], object]) -> None:
        """Do something now, or right after the input that is being handled, if the connection is open then."""
        if self.handling:
            self._afterwards.append(action)
        else:
            action()

    def _catch_up(self) -> None:
        """Do what was put off. This ends: each topic is left once, and none can be joined without awaiting."""
        pending, self._afterwards = self._afterwards, []
        for action in pending:
            if self.is_open:  # its end is the end of its topics, and has been told
                action()

    def _handle(self, given: Input, sent: Message | None, decoded: Message | None) -> Transition:
        if self._spans.handle.active:
            start, transition = self._spans.handled(given, self.state, self._socket._serializer)
            self._become(transition.state)
            try:
                self._spans.stop_handle(start, transition)
            finally:
                # A handler may raise SystemExit; what the state says is done, is done.
                self._carry_out(transition, given, sent)
            return transition
        if decoded is not None and isinstance(given, protocol.FrameReceived):
            transition = receive(self.state, decoded, given, self._socket._serializer)
        else:
            transition = protocol.handle(self.state, given, self._socket._serializer)
        self._become(transition.state)
        self._carry_out(transition, given, sent)
        return transition

    def _carry_out(self, transition: Transition, given: Input, sent: Message | None) -> None:
        for effect in transition.return_:
            if isinstance(effect, protocol.SendFrame):
                self.writer.put(effect.frame, None if sent is None else sent._replace(ref=effect.ref))
                if effect.ref == self._state.heartbeat.ref:
                    self.writer.mark()
            else:
                self._close_transport(effect, by_timer=type(transition.message) is protocol.TimerTicked)
        for event in transition.built_events:
            self._socket._handle_event(event, given)
        deadline = None if type(given) is protocol.PushMessage else protocol.next_deadline(self._state)
        if deadline is not None:
            self._socket._timer.arm(deadline)
        joins = self._socket._joins
        if (joins._users or joins._library) and isinstance(given, protocol.FrameReceived | protocol.TimerTicked):
            self._afterwards.append(joins.pump)  # an answer has come, or is not waited for any more

    def _close_transport(self, close: protocol.CloseTransport, *, by_timer: bool) -> None:
        """Close the transport, in a task that is there for the last moment only."""
        if self._transport is not None:
            self._closer = trio.CancelScope()
            self._tasks.start(self._close_in, self._closer, self._transport, close)
        if by_timer:  # where a heartbeat was not answered, a close frame will hardly be
            self._end_by(trio.current_time() + GRACE_PERIOD)

    def tick(self, now: float) -> float | None:
        """Handle what is due; returns when the next is."""
        transport = self._transport
        if transport is None:
            return None
        heard = self.received if transport.heard is None else transport.heard
        deadline = protocol.next_deadline(self._state, heard, transport.write_blocked_since)
        if deadline is None or deadline > now:
            return deadline
        blocked = transport.write_blocked_since
        self.handle_own(protocol.TimerTicked(now, heard, self.writer.mark_written, blocked))
        return protocol.next_deadline(self._state, heard, blocked)

    def _end_by(self, deadline: float) -> None:
        self._scope.deadline = min(self._scope.deadline, deadline)

    def close(self, code: int, reason: str, deadline: float) -> None:
        """Close once everything queued is written; what is not closed by `deadline` is aborted."""
        if self.is_open:
            self.handle(protocol.CloseConnection(code, reason))
        self._end_by(deadline)

    async def run(self, connector: Connector, ask: Callable[[], Awaitable[OpenRequest]]) -> float | None:
        """Open the transport with what `ask` returns, and serve it until it ends; `state` and `failure` tell how.

        Returns how many seconds it was open, None if it never was.
        """
        lived, life = None, self._spans.start_connect(self.state)
        try:
            try:
                request = await ask()
            except Exception as error:  # noqa: BLE001 - what the user's functions raise is the user's
                self.option_error = error
                self.handle(protocol.TransportFailed(OPTION_FAILED))
            else:
                lived = await self._open(connector, request)
        except BaseException as error:
            if not only_cancelled(error):
                self._broken = True
                self._socket._failed(error)
                self._spans.fail_connect(life, error)
                raise
            try:
                self._end_if_needed("cancelled", by="client")
            finally:
                self._tell_end(life, "cancelled", "client")  # though a handler of telemetry has exited
            raise
        by: EndedBy = "server" if isinstance(self.failure, ConnectionRejected) else "network"
        self._tell_end(life, *(("connect_failed", by) if self.option_error is None else (OPTION_FAILED, "client")))
        return lived

    def _tell_end(self, life: ConnectStart | None, reason: str, by: EndedBy) -> None:
        """Emit the end of the connection's life; `reason` and `by` are those of one that was never open."""
        opened, lost = self._transport, self._socket._lifecycle.last
        how = (ConnectionLost(reason, ended_by=by),) if opened is None else (lost, opened.heard, self.received)
        self._spans.stop_connect(life, self.state, *how)

    async def _open(self, connector: Connector, request: OpenRequest) -> float | None:
        cookies = self._socket._supervisor.cookies
        request = cookies.added_to(request)
        emitter = self._socket._emitter
        propagated = emitter.telemetry.propagate(emitter.origin)
        try:
            opening = connector.open(with_trace_context(request, self.state, propagated), self.writer.wake)
            async with opening as self._transport:
                opened_at = trio.current_time()
                self._opened(request, self._transport, opened_at)
                await self._serve(self._transport, request)
                return trio.current_time() - opened_at
        except ConnectError as error:
            cookies.keep(request, error.headers)
            error = with_whole_timeout(error, request, self._socket._configuration)
            # Its way through this library helps no user; a cause of the user's own keeps its traceback.
            self.failure = failure = redacted_error(error, redactor(secrets_of(request))).with_traceback(None)
            url = shown_url(request, self._state.options)
            self.handle(protocol.TransportFailed(failure.reason, failure.status, failure.headers, failure.body, url))
            return None

    # Its own function, as what is made here, secrets among it, need not be kept for the life of the connection.
    def _opened(self, request: OpenRequest, transport: Transport, now: float) -> None:
        self.received = now
        self._socket._supervisor.cookies.keep(request, transport.response_headers)
        redact = redactor(secrets_of(request))
        self.response_headers = tuple((name, redact(value)) for name, value in transport.response_headers)
        url = shown_url(request, self._state.options)
        self.handle(protocol.TransportOpened(now, masked(self.response_headers), url))

    def _end_if_needed(self, message: str, *, by: EndedBy | None = None) -> None:
        if self._state.status == "opening":
            self.handle(protocol.TransportFailed(message))
        elif self._state.status != "closed":
            self.handle(protocol.TransportClosed(ABNORMAL_CLOSURE, message, by))

    async def _serve(self, transport: Transport, request: OpenRequest) -> None:
        try:
            async with self._tasks:
                with self._scope:
                    self.writer.open(self._start_writing)
                    await self._receive(transport, request)
                    if self._closer is not None:
                        self._closer.cancel()
                    # The writer ends when it has written the answer to a close frame.
                    self._end_by(trio.current_time() + GRACE_PERIOD)
                    self.writer.close()
                    await self._tasks.wait()
        finally:
            self.writer.close()  # also if the receive loop was cut off: the transport may wake it still
        self._end_if_needed("not closed in time")

    async def _receive(self, transport: Transport, request: OpenRequest) -> None:
        try:
            while True:
                frames = await transport.receive()
                if len(frames) > MESSAGES_A_TURN:
                    await trio.lowlevel.checkpoint()  # to find them in what was read has taken some ms already
                self.received = trio.current_time()
                self._batches += 1
                if self._socket._byte_limit.left <= 0:
                    self._turn.release()  # readers who keep up lose nothing, however many channels a flood is for
                    await trio.lowlevel.checkpoint()  # in which this task may run before them
                    await self._turn.catch_up(self._socket._byte_limit)
                await take_in(self, frames)
                if self._turn.held and not self._wakes:
                    self._wakes = True
                    self._tasks.start_own(self._wake_held)
        except TransportEnded as ended:
            message = redactor(secrets_of(request))(ended.message)
            self.handle(protocol.TransportClosed(ended.code, message, ended.ended_by, ended.reason))
        finally:
            self._turn.release()

    async def _wake_held(self) -> None:
        """Wake the readers that are held, as soon as what has come is all that there is."""
        try:
            while self._turn.held:
                batches = self._batches
                for _ in range(PASSES_A_READ):
                    await trio.lowlevel.checkpoint()
                if batches == self._batches:
                    self._turn.release()
        finally:
            self._wakes = False

    def take_in_watched(self, frame: Frame, now: float) -> "Backlog | None":
        """Handle a frame in a span, which is told before a message is delivered."""
        self.handling = True
        try:
            start, came_to = self._spans.received(frame, now, self.state, self._socket._serializer)
            crowded = None
            if not isinstance(came_to, Message):
                self._become(came_to.state)
            try:
                self._spans.stop_handle(start, came_to)
            finally:
                if isinstance(came_to, Message):
                    crowded = self._socket._deliver(came_to, frame)
                else:
                    self._carry_out(came_to, start.raw_message, None)
            return crowded
        except SerializationError as error:  # of what is sent as its answer
            failure = error
        finally:
            self.handling = False
            if self._afterwards:
                self._catch_up()
        self._end_speechless(failure)
        return None

    def _start_writing(self) -> None:  # a method, as a partial takes 250 bytes more for each connection
        self._tasks.start_own(self._write)

    async def _write(self) -> None:
        assert self._transport is not None
        alarm = alarm_of_this_run()
        alarm.watch(self._look_after_writing)
        try:
            await self.writer.run(self._transport)
        except TransportEnded:
            # Why is for the receive loop to find out: a close frame may wait there.
            self._end_by(trio.current_time() + GRACE_PERIOD)
        finally:
            alarm.unwatch(self._look_after_writing)

    def _look_after_writing(self, _: float) -> None:
        """See whether the writer can rest, or is held up: the core is told of the time when a blocked line is lost."""
        self.writer.look()
        assert self._transport is not None
        blocked, limit = self._transport.write_blocked_since, self._state.options.heartbeat_timeout
        if blocked is not None and limit is not None:
            self._socket._timer.arm(max(blocked + limit, trio.current_time()))  # or later, if a join holds that up

    async def _close_in(self, scope: trio.CancelScope, transport: Transport, close: protocol.CloseTransport) -> None:
        with scope:
            await self.writer.drained()
            await transport.close(close.code, close.reason)
