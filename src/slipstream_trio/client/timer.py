"""Timers: each socket's knows the earliest of its deadlines, and one task a Trio run wakes them all; that of exits."""

import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias, final

import trio

from ..telemetry import LoopStalled
from .turn import settle

if TYPE_CHECKING:
    from .join_request import Request
    from .push import Call
    from .socket import Socket

    Timed: TypeAlias = "Call | Request"

SWEEP_ABOVE: Final = 32
"""So many entries that mean nothing any more may stay in a list, besides as many as there are live ones."""

WATCH_INTERVAL: Final = 0.25
STALL: Final = 0.1
"""Seconds between two looks, and by how many of them a look has to be late to tell that the event loop stood still."""

ENTRIES_A_STEP: Final = 128
"""The number of deadlines handled before other tasks run: each settles a task, and may emit telemetry."""

_numbers: Final = count()


@final
class Timer:
    """The deadlines of a socket: those of operations, by a heap, and that of the connection, which is asked for it."""

    __slots__ = ("_alarm", "_heap", "_socket", "_sweep_at", "next")

    def __init__(self, socket: "Socket") -> None:
        # When it wants to be woken; while it is at work, which ends with a look, -infinity.
        self.next: float = math.inf
        self._socket = socket
        self._heap: list[tuple[float, int, Timed]] = []
        self._sweep_at = SWEEP_ABOVE
        self._alarm: Alarm | None = None

    def start(self) -> None:
        """Begin to wake up."""
        self._alarm = alarm_of_this_run()
        self._alarm.add()
        self._watch(self._alarm)
        if self.next < math.inf:
            self._alarm.set(self.next, self)

    def stop(self) -> None:
        """Wake up no more."""
        alarm, self._alarm, self.next = self._alarm, None, math.inf
        self._heap.clear()
        if alarm is not None:
            alarm.unwatch(self.look)
            alarm.remove()

    def add(self, deadline: float, timed: "Timed") -> None:
        """Expire an operation at `deadline` (infinity: never), unless it is over by then."""
        if deadline == math.inf:
            return
        heapq.heappush(self._heap, (deadline, next(_numbers), timed))
        if len(self._heap) > self._sweep_at:
            # Most operations end before their deadline; their entries would make the heap grow with the traffic.
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapq.heapify(self._heap)
            self._sweep_at = 2 * len(self._heap) + SWEEP_ABOVE
        self.arm(deadline)

    def arm(self, deadline: float) -> None:
        """Wake up at `deadline`, if not before."""
        if deadline < self.next:
            self.next = deadline
            if self._alarm is not None:
                self._alarm.set(deadline, self)

    def ring(self) -> None:
        """See to what is due, in a task."""
        self.next = -math.inf
        if self._alarm is not None:
            self._socket._supervisor.tasks.start_own(self._handle_due)

    def _watch(self, alarm: "Alarm") -> None:
        # Trio does not export the class of its own clock. Of others, the time passes when nobody looks, or not at all.
        is_real = type(trio.lowlevel.current_clock()).__name__ == "SystemClock"
        if is_real and self._socket._emitter.is_heard(LoopStalled):
            alarm.watch(self.look)

    def look(self, late: float) -> None:
        """Tell if the event loop stood still."""
        if late >= STALL:
            self._socket._emitter.emit(LoopStalled, late)
        if self._alarm is not None and not self._socket._emitter.is_heard(LoopStalled):
            self._alarm.unwatch(self.look)

    async def _handle_due(self) -> None:
        # Input that has come is handled before anything is found to be too late.
        if (connection := self._socket._connection) is not None and connection._transport is not None:
            await settle(connection._transport)
        if self._alarm is None:
            return
        self._watch(self._alarm)
        self.next = math.inf
        now = trio.current_time()
        self.arm(self._socket._tick(now))
        self.arm(self._expire(now))

    def _expire(self, now: float) -> float:
        """Expire what is due, but not too much at a time; returns when to go on (infinity: never)."""
        heap = self._heap
        for _ in range(ENTRIES_A_STEP):
            if not heap or heap[0][0] > now:
                break
            timed = heapq.heappop(heap)[2]
            if not timed.over:
                timed.expire()
        while heap and heap[0][2].over:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf


@final
class Alarm:
    """Wakes the timers of a Trio run, by one task: thousands of tasks that sleep cost megabytes.

    The task is there as long as there are timers. An entry of its heap counts if it is the time that its timer wants.
    """

    def __init__(self) -> None:
        self._timers = 0
        self._heap: list[tuple[float, int, Timer]] = []
        self._sweep_at = SWEEP_ABOVE
        self._watchers: dict[Callable[[float], None], None] = {}  # a set with an order
        self._task = self._sleep = trio.CancelScope()
        self._watch: trio.CancelScope | None = None

    def add(self) -> None:
        """Begin to wake one more timer."""
        self._timers += 1
        if self._timers == 1:
            self._task = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._run, self._task)

    def remove(self) -> None:
        """Wake one timer less."""
        self._timers -= 1
        if not self._timers:
            self._heap.clear()
            self._task.cancel()
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None

    def set(self, deadline: float, timer: Timer) -> None:
        """Wake a timer at `deadline`."""
        heapq.heappush(self._heap, (deadline, next(_numbers), timer))
        if len(self._heap) > self._sweep_at:
            self._heap = [entry for entry in self._heap if entry[2].next == entry[0]]
            heapq.heapify(self._heap)
            self._sweep_at = 2 * len(self._heap) + SWEEP_ABOVE
        if deadline < self._sleep.deadline:  # noqa: PLR1730 - to set it takes long, even to what it is
            self._sleep.deadline = deadline

    def watch(self, look: Callable[[float], None]) -> None:
        """Call a function every `WATCH_INTERVAL` seconds from now on, with how many seconds late that is."""
        if self._watch is None:
            self._watch = trio.CancelScope()
            trio.lowlevel.spawn_system_task(self._look, self._watch)
        self._watchers[look] = None

    def unwatch(self, look: Callable[[float], None]) -> None:
        """Call it no more."""
        self._watchers.pop(look, None)

    async def _run(self, task: trio.CancelScope) -> None:
        """Sleep until a timer wants to be woken, and wake it, until cancelled."""
        with task:
            while True:
                with trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._sleep:
                    await trio.sleep_forever()
                now = trio.current_time()
                while self._heap and self._heap[0][0] <= now:
                    deadline, _, timer = heapq.heappop(self._heap)
                    if timer.next == deadline:
                        timer.ring()

    async def _look(self, watch: trio.CancelScope) -> None:
        """Look at what is watched, while there is anything."""
        with watch:
            while self._watchers:
                due = trio.current_time() + WATCH_INTERVAL
                await trio.sleep_until(due)
                late = trio.current_time() - due
                for look in list(self._watchers):
                    look(late)
            self._watch = None


_ALARM: Final[trio.lowlevel.RunVar[Alarm | None]] = trio.lowlevel.RunVar("slipstream_trio alarm", default=None)


def alarm_of_this_run() -> Alarm:
    """Return the alarm that all timers of this Trio run share."""
    alarm = _ALARM.get()
    if alarm is None:
        alarm = Alarm()
        _ALARM.set(alarm)
    return alarm


@final
class Exits(trio.abc.Instrument):
    """The exits of a socket's channel blocks.

    Four nested blocks whose leaves are not answered cost one `leave_timeout`, not four. Exits belong together if no
    task ran between them: as an instrument of Trio, this notices when one does. It is attached between two exits only.
    """

    def __init__(self, socket: "Socket") -> None:
        self._socket = socket
        self._deadline: float | None = None

    def take_deadline(self) -> float:
        """Return the deadline of this row of exits, which is a new one unless another exit has just ended."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            trio.lowlevel.remove_instrument(self)
            return deadline
        timeout = self._socket._options.leave_timeout
        return math.inf if timeout is None else trio.current_time() + timeout

    def ended(self, deadline: float) -> None:
        """Take note of an exit, which had this deadline: it is that of the next one, too, unless a task runs first."""
        self._deadline = deadline
        trio.lowlevel.add_instrument(self)

    def final_limit(self, limit: float, grace: float) -> float:
        """Return until when to wait for leaves at the end of the socket's block.

        Where the block's end follows the exits of its channels, and these have left all there is, their deadline holds
        for it too, but for a short `grace` for the leaves that were sent after it. Otherwise it is `limit`.
        """
        deadline, channels = self._deadline, self._socket._channels.values()
        if deadline is None or any(channel.status != "leaving" for channel in channels):
            return limit
        return min(limit, max(deadline, trio.current_time() + grace))

    def end(self) -> None:
        """Let the next exit have a time limit of its own: the socket is used otherwise."""
        self.take_deadline()

    def before_task_step(self, _: trio.lowlevel.Task) -> None:
        """Take note that a task runs after the latest exit."""
        self.take_deadline()
