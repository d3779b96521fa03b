"""Scripts of servers for `testing.scripted`, and bad networks for `testing.faults`."""

from hypothesis import strategies as st

from .. import faults as net
from ..scripted import Act, JoinFate, ServerScript
from .frames import frames
from .values import binary_payloads, events, json_payloads, statuses

__all__ = ["acts", "fault_rules", "faults", "links", "moments", "server_scripts"]

_CODES = [1000, 1001, 1011, 1012, 4000]
_FATES: list[JoinFate] = ["accept", "accept", "accept", "refuse", "slow", "crash", "crash_after"]
_SHARES = st.sampled_from([0.0, 0.5, 1.0, 0.25, 0.9])
_TOWARD = st.sampled_from(["client", "server"])


def acts() -> st.SearchStrategy[Act]:
    """Acts of a channel on a push: replies, pushes, broadcasts, malformed frames, ends of all kinds."""
    payloads = json_payloads() | binary_payloads()
    # No text frame can have lone surrogates.
    sendable = frames().map(
        lambda frame: frame if isinstance(frame, bytes) else frame.encode(errors="replace").decode()
    )
    replies = st.builds(Act, st.just("reply"), st.tuples(statuses(), payloads))
    return st.one_of(
        replies,
        replies,
        st.builds(Act, st.just("push"), st.tuples(events(), payloads)),
        st.builds(Act, st.just("burst"), st.integers(1, 12)),
        st.builds(Act, st.just("broadcast"), st.tuples(events(reserved=True), json_payloads())),
        st.builds(Act, st.just("sleep"), st.sampled_from([0.1, 0.5, 4.0])),
        st.builds(Act, st.just("raw"), sendable),
        st.sampled_from([Act("ping"), Act("stop"), Act("crash"), Act("drop")]),
        st.builds(Act, st.just("close"), st.sampled_from(_CODES)),
    )


def server_scripts() -> st.SearchStrategy[ServerScript]:
    """Scripts of a server: upgrades, joins accepted, refused and slow, replies in any order and number, ends.

    The plainest is that of a server that accepts all and echoes. Refused upgrades are worth another attempt.
    """
    return st.builds(
        ServerScript,
        st.lists(st.sampled_from([None, 503, 429, 500]), max_size=2),
        st.lists(st.sampled_from(_FATES), max_size=6),
        st.lists(st.lists(acts(), max_size=3), max_size=12),
    )


def links() -> st.SearchStrategy[net.Link]:
    """One direction of a network: a perfect one, or one with latency, jitter, little bandwidth and a small buffer."""
    return st.builds(
        net.Link,
        st.sampled_from([0.0, 0.01, 0.3]),
        st.sampled_from([0.0, 0.05]),
        st.sampled_from([None, 100_000.0, 2_000.0]),
        st.sampled_from([65_536, 1_024]),
    )


def moments() -> st.SearchStrategy[net.Moment]:
    """Moments on an open connection: at a byte, in a frame, at a time, or by probability."""
    return st.one_of(
        st.builds(net.AtFrame, st.integers(1, 12), _SHARES),
        st.builds(net.AtByte, st.integers(0, 2_000)),
        st.builds(net.AtTime, st.sampled_from([0.0, 0.1, 1.0, 10.0, 60.0])),
        st.builds(net.EachFrame, st.sampled_from([0.01, 0.1]), st.none() | _SHARES),
        st.builds(net.EachByte, st.sampled_from([0.0001, 0.001])),
    )


def fault_rules() -> st.SearchStrategy[net.Rule]:
    """Single faults and when they happen: resets, stalls, silence, damaged bytes, refused and slow openings.

    Each holds for one of the first three connections, so that the network is good in the end.
    """
    of = st.integers(1, 3).map(lambda number: (number,))
    opening = st.sampled_from([net.Refuse(), net.SlowOpening(0.5), net.SlowOpening(2.0, 1.0), net.Ignore()])
    vanished = [net.Vanish(), net.Vanish(both=False)]
    later = st.one_of(
        st.sampled_from([net.Reset(), net.Truncate(), *vanished, net.Stall(1.0), net.Stall(30.0, both=True)]),
        st.builds(net.Corrupt, st.integers(1, 20)),
    )
    return st.one_of(
        st.builds(net.Rule, later, moments(), _TOWARD, of),
        st.builds(net.Rule, later, moments(), _TOWARD, of),
        st.builds(net.Rule, opening, st.none(), st.just("client"), of),
    )


def faults() -> st.SearchStrategy[net.Faults]:
    """Schedules of a network's faults; the plainest has none."""
    return st.builds(net.Faults, st.integers(0, 2**16), links(), links(), st.lists(fault_rules(), max_size=4))
