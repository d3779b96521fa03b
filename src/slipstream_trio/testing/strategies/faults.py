"""Bad networks, as descriptions for `slipstream_trio.testing.faults`."""

from hypothesis import strategies as st

from .. import faults as net

__all__ = ["fault_rules", "faults", "links", "moments"]

_SHARES = st.sampled_from([0.0, 0.5, 1.0, 0.25, 0.9])
_TOWARD = st.sampled_from(["client", "server"])


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
