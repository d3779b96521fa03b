"""The window and the pace of joins: tables, properties, and servers in pure time."""

import heapq
from collections import deque
from collections.abc import Callable

import pytest
from attrs import define, evolve, field
from hypothesis import given, strategies as st
from tests.drawing import examples

from slipstream_trio.protocol import RECONNECT, JoinPacing
from slipstream_trio.protocol.joining import FASTEST, LARGEST_WINDOW, SLOWEST


def sent(pacing: JoinPacing, *times: float) -> JoinPacing:
    for time in times:
        pacing = pacing.sent(time)
    return pacing


# The window


def test_eight_joins_may_be_unanswered_at_first_and_one_more_for_each_answer() -> None:
    pacing = JoinPacing()
    for answers in range(300):
        assert pacing.window == min(8 + answers, 256)
        assert pacing.next_join(5.0, pacing.window) is None
        assert pacing.next_join(5.0, pacing.window - 1) == 5.0
        pacing = pacing.answered()


def test_a_refusal_is_not_counted_as_growth() -> None:
    pacing = JoinPacing()
    assert pacing.answered(refused=True) is pacing


def test_a_join_that_takes_too_long_halves_the_window_once_a_window() -> None:
    pacing = sent(JoinPacing(learned=100), *range(50))
    for number in (1, 2, 50):
        pacing = pacing.timed_out(number)
        assert pacing.window == 50
    pacing = pacing.sent(60.0)
    assert pacing.timed_out(50).window == 50
    assert pacing.timed_out(51).window == 25
    assert pacing.timed_out(51).sent(61.0).timed_out(52).window == 12


def test_the_window_never_closes() -> None:
    pacing = JoinPacing()
    for n in range(10):
        pacing = pacing.sent(float(n))
        pacing = pacing.timed_out(pacing.number)
    assert pacing.window == 1
    assert pacing.next_join(0.0, 0) is not None


def test_the_number_of_a_join_is_counted_over_connections() -> None:
    pacing = sent(JoinPacing().opened(0.0), 0.0, 0.1).ended(5.0, 0).opened(6.0)
    assert pacing.sent(6.0).number == 3


@pytest.mark.parametrize(("unanswered", "window"), [(0, 100), (1, 50), (60, 50)])
def test_a_connection_that_ends_while_joins_are_unanswered_halves_the_window(unanswered: int, window: int) -> None:
    pacing = sent(JoinPacing(learned=100).opened(0.0), *range(60))
    assert pacing.ended(60.0, unanswered).window == window


def test_an_end_does_not_halve_again_what_was_halved_for_the_same_joins() -> None:
    pacing = sent(JoinPacing(learned=100).opened(0.0), *range(60)).timed_out(3)
    assert pacing.ended(60.0, 10).window == 50


def test_what_was_learned_outlives_the_reconnect() -> None:
    pacing = sent(JoinPacing().opened(0.0), 0.0).answered().answered()
    assert pacing.ended(1.0, 0).opened(2.0).window == 10


def test_a_fixed_window_stays_and_has_a_pace() -> None:
    pacing = sent(JoinPacing(fixed=3).opened(0.0), *(n / 40 for n in range(40)))
    for changed in (pacing.answered(), pacing.timed_out(40), pacing.ended(1.0, 2)):
        assert changed.window == 3
        assert changed.next_join(1.0, 3) is None
    assert pacing.ended(1.0, 2).pace == 19.5


# The pace


@pytest.mark.parametrize(
    ("times", "unanswered", "pace"),
    [
        ([n / 60 for n in range(60)], 5, 29.5),
        ([9.5] * 40, 40, 20.0),
        ([9.5] * 40, 0, None),
        ([0.0] * 40 + [9.5] * 10, 1, 5.0),
        ([9.5], 1, 4.0),
        ([9.5] * 400, 1, 200.0),
        ([9.5] * 401, 1, None),
        ([9.5] * 5000, 1, None),
        ([9.0] * 40, 3, None),
        ([], 1, None),
    ],
)
def test_an_end_in_the_middle_of_joins_sets_half_the_pace_of_its_last_second(
    times: list[float], unanswered: int, pace: float | None
) -> None:
    end = 1.0 if times and times[-1] < 1 else 10.0
    pacing = sent(JoinPacing().opened(0.0), *times).ended(end, unanswered)
    assert pacing.pace == pace
    assert pacing.opened(20.0).pace_at(20.0) == pace


def test_a_pace_spaces_joins() -> None:
    pacing = JoinPacing(pace=8.0).opened(100.0)
    assert pacing.next_join(100.0, 0) == 100.0
    assert pacing.sent(100.0).next_join(100.0, 1) == 100.125
    assert pacing.sent(100.0).next_join(107.0, 1) == 100.125


def test_a_pace_grows_by_a_tenth_for_every_ten_seconds_that_a_connection_holds() -> None:
    pacing = JoinPacing(pace=100.0).opened(50.0)
    paces = [pacing.pace_at(50.0 + seconds) for seconds in (0, 9.9, 10, 19.9, 20, 70)]
    assert paces == pytest.approx([100.0, 100.0, 110.0, 110.0, 121.0, 194.87171])
    assert pacing.pace_at(130.0) is None
    assert pacing.pace_at(1e12) is None
    assert pacing.sent(131.0).next_join(131.0, 1) == 131.0


def test_what_a_pace_has_grown_to_outlives_the_reconnect() -> None:
    pacing = JoinPacing(pace=10.0).opened(0.0).ended(25.0, 0)
    assert pacing.pace == pytest.approx(12.1)
    assert pacing.pace_at(1000.0) == pytest.approx(12.1)
    assert JoinPacing(pace=190.0).opened(0.0).ended(25.0, 0).pace is None


def test_joins_of_the_connection_before_set_no_pace() -> None:
    pacing = sent(JoinPacing().opened(0.0), *[0.9] * 50).ended(1.0, 0).opened(1.01)
    assert pacing.sent(1.1).ended(1.2, 1).pace == SLOWEST


# Properties

STEPS = st.lists(
    st.tuples(st.sampled_from(["opened", "sent", "answered", "refused", "timed_out", "ended"]), st.floats(0.0, 30.0)),
    max_size=80,
)


@examples(200)
@given(st.none() | st.integers(1, 20), STEPS)
def test_whatever_happens_window_and_pace_keep_their_limits(fixed: int | None, steps: list[tuple[str, float]]) -> None:
    pacing, now = JoinPacing(fixed=fixed), 0.0
    for what, wait in steps:
        now += wait
        before = pacing
        pacing = step(pacing, what, now)
        assert 1 <= pacing.learned <= LARGEST_WINDOW
        assert pacing.window == (pacing.learned if fixed is None else fixed)
        assert pacing.number - before.number == (what == "sent")
        assert pacing.learned >= before.learned // 2
        if pacing.learned < before.learned:
            assert before.number > before.halved_after
            assert pacing.timed_out(pacing.number) is pacing
        pace = pacing.pace_at(now)
        assert pace is None or SLOWEST <= pace <= FASTEST
        due = pacing.next_join(now, pacing.window - 1)
        assert due is not None
        assert pace is not None or due == now
        assert due <= now + 1 / SLOWEST
        assert pacing.next_join(now, pacing.window) is None


def step(pacing: JoinPacing, what: str, now: float) -> JoinPacing:
    match what:
        case "opened" | "sent":
            return getattr(pacing, what)(now)  # type: ignore[no-any-return]
        case "timed_out":
            return pacing.timed_out(max(0, pacing.number - int(now) % 3))
        case "ended":
            return pacing.ended(now, int(now) % 3)
    return pacing.answered(refused=what == "refused")


# Servers, in pure time


@define
class World:
    """A client that joins channels on a server, one connection after the other.

    Attributes:
        channels: how many are to be joined.
        trip: seconds from one side to the other.
        work: seconds that the server needs for a join; it works them off one at a time.
        most: joins that the server takes in a second; it hangs up on whoever sends more. None: any.
    """

    channels: int
    trip: float = 0.0
    work: float = 0.0
    most: int | None = None
    pacing: JoinPacing = field(factory=JoinPacing)
    now: float = 0.0
    joined: int = 0
    unanswered: int = 0
    hung_up: int = 0
    opened: bool = True
    sending: bool = False
    busy_until: float = 0.0
    arrivals: deque[float] = field(factory=deque)
    events: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    order: int = 0

    def at(self, time: float, do: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.events, (time, self.order, do))

    def run(self, horizon: float) -> None:
        """Let the client join from now on, until nothing is left to do or the time is over."""
        self.connect()
        self.go_on(horizon)

    def go_on(self, horizon: float) -> None:
        while self.events and self.events[0][0] <= horizon:
            self.now, _, do = heapq.heappop(self.events)
            do()

    def connect(self) -> None:
        self.opened, self.sending, self.joined, self.unanswered = True, False, 0, 0
        self.arrivals.clear()
        self.busy_until = self.now
        self.pacing = self.pacing.opened(self.now)
        self.send()

    def send(self) -> None:
        self.sending = False
        while self.opened and self.joined + self.unanswered < self.channels:
            due = self.pacing.next_join(self.now, self.unanswered)
            if due is None:
                return
            if due > self.now:
                self.sending = True
                self.at(due, self.for_this(self.send))
                return
            self.pacing = self.pacing.sent(self.now)
            self.unanswered += 1
            self.at(self.now + self.trip, self.for_this(self.arrive))

    def for_this(self, do: Callable[[], None]) -> Callable[[], None]:
        """Return what does it if the connection is still the same."""
        connection = self.hung_up
        return lambda: do() if self.hung_up == connection else None

    def arrive(self) -> None:
        self.arrivals.append(self.now)
        while self.arrivals[0] <= self.now - 1:
            self.arrivals.popleft()
        if self.most is not None and len(self.arrivals) > self.most:
            self.at(self.now + self.trip, self.for_this(self.end))
            return
        self.busy_until = max(self.busy_until, self.now) + self.work
        self.at(self.busy_until + self.trip, self.for_this(self.answer))

    def answer(self) -> None:
        self.joined += 1
        self.unanswered -= 1
        self.pacing = self.pacing.answered()
        if not self.sending:
            self.send()

    def end(self) -> None:
        self.pacing = self.pacing.ended(self.now, self.unanswered)
        self.at(self.now + RECONNECT.delay(self.hung_up, 0.5), self.connect)
        self.hung_up += 1
        self.opened = False


@pytest.mark.parametrize("channels", [30, 60, 100])
@pytest.mark.parametrize("trip", [0.0, 0.005, 0.05, 0.2])
def test_a_server_that_hangs_up_on_fast_clients_gets_all_channels_back_and_keeps_them(
    channels: int, trip: float
) -> None:
    world = World(channels, trip=trip, most=20)
    world.run(15.0 if channels == 60 else 30.0)
    assert world.joined == channels
    ends, joins = world.hung_up, world.pacing.number
    world.go_on(3600.0)
    assert (world.joined, world.hung_up, world.pacing.number) == (channels, ends, joins)


def test_two_thousand_joins_over_a_long_line_take_less_than_two_seconds() -> None:
    world = World(2000, trip=0.025)
    world.run(10.0)
    assert world.joined == 2000
    assert world.now < 2.0


@pytest.mark.parametrize(("channels", "work"), [(100, 0.3), (30, 1.0), (1, 5.0)])
def test_a_server_that_takes_its_time_is_never_idle(channels: int, work: float) -> None:
    world = World(channels, trip=0.01, work=work)
    world.run(1000.0)
    assert world.joined == channels
    assert world.now <= channels * work * 1.1


def test_a_fixed_window_of_one_asks_for_one_join_at_a_time() -> None:
    world = World(10, trip=0.1, pacing=JoinPacing(fixed=1))
    world.run(100.0)
    assert world.joined == 10
    assert world.now == pytest.approx(2.0)


@examples(50)
@given(st.integers(1, 100), st.sampled_from([0.0, 0.01, 0.1]), st.sampled_from([5, 10, 40, 100]))
def test_whatever_a_server_allows_all_channels_are_joined_in_the_end(channels: int, trip: float, most: int) -> None:
    world = World(channels, trip=trip, most=most)
    world.run(600.0)
    assert world.joined == channels


def test_a_pacing_is_a_value() -> None:
    assert evolve(JoinPacing()) == JoinPacing()
    assert sent(JoinPacing(), 1.0) == sent(JoinPacing(), 1.0)
