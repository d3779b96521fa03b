"""Scripts of servers for `testing.scripted`, and bad networks for `testing.faults`."""

from typing import Final

from hypothesis import strategies as st

from .. import faults as net
from ..scripted import Act, ServerScript
from .frames import binary_payloads, events, frames, json_payloads, statuses

_PAYLOADS: Final = json_payloads() | binary_payloads()
# No text frame can have lone surrogates.
_SENDABLE: Final = frames().map(lambda frame: frame.encode(errors="replace").decode() if type(frame) is str else frame)
_ACTS: Final = st.one_of(
    st.builds(Act, st.just("reply"), st.tuples(statuses(), _PAYLOADS)),
    st.builds(Act, st.just("push"), st.tuples(events(), _PAYLOADS)),
    st.builds(Act, st.just("burst"), st.integers(1, 12)),
    st.builds(Act, st.just("broadcast"), st.tuples(events(reserved=True), json_payloads())),
    st.builds(Act, st.just("sleep"), st.sampled_from([0.1, 0.5, 4.0])),
    st.builds(Act, st.just("raw"), _SENDABLE),
    st.sampled_from([Act("ping"), Act("stop"), Act("crash"), Act("drop")]),
    st.builds(Act, st.just("close"), st.sampled_from([1000, 1001, 1011, 1012, 4000])),
)


def server_scripts() -> st.SearchStrategy[ServerScript]:
    """Scripts of a server: upgrades, joins accepted, refused and slow, replies in any order and number, ends.

    The plainest is that of a server that accepts all and echoes. Refused upgrades are worth another attempt.
    """
    return st.builds(
        ServerScript,
        st.lists(st.sampled_from([None, 503, 429, 500]), max_size=2),
        st.lists(st.sampled_from(["accept", "accept", "accept", "refuse", "slow", "crash", "crash_after"]), max_size=6),
        st.lists(st.lists(_ACTS, max_size=3), max_size=12),
    )


_LINKS: Final = st.builds(
    net.Link,
    st.sampled_from([0.0, 0.01, 0.3]),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([None, 100_000.0, 2_000.0]),
    st.sampled_from([65_536, 1_024]),
)
_SHARES: Final = st.sampled_from([0.0, 0.5, 1.0, 0.25, 0.9])
_MOMENTS: Final = st.one_of(
    st.builds(net.AtFrame, st.integers(1, 12), _SHARES),
    st.builds(net.AtByte, st.integers(0, 2_000)),
    st.builds(net.AtTime, st.sampled_from([0.0, 0.1, 1.0, 10.0, 60.0])),
    st.builds(net.EachFrame, st.sampled_from([0.01, 0.1]), st.none() | _SHARES),
    st.builds(net.EachByte, st.sampled_from([0.0001, 0.001])),
)
_OPENING: Final = st.sampled_from([net.Refuse(), net.SlowOpening(0.5), net.SlowOpening(2.0, 1.0), net.Ignore()])
_LATER: Final = st.one_of(
    st.sampled_from([net.Reset(), net.Truncate(), net.Vanish(), net.Vanish(both=False)]),
    st.sampled_from([net.Stall(1.0), net.Stall(30.0, both=True)]),
    st.builds(net.Corrupt, st.integers(1, 20)),
)
_OF: Final = st.integers(1, 3).map(lambda number: (number,))
_RULES: Final = st.one_of(
    # Hypothesis takes one object but once, and these are to come twice as often.
    *(st.builds(net.Rule, _LATER, _MOMENTS, st.sampled_from(["client", "server"]), _OF) for _ in range(2)),
    st.builds(net.Rule, _OPENING, st.none(), st.just("client"), _OF),
)


def faults() -> st.SearchStrategy[net.Faults]:
    """Schedules of a network's faults: resets, stalls, silence, damaged bytes, refused and slow openings, slow links.

    The plainest has none. Each holds for one of the first three connections, so that the network is good in the end.
    """
    return st.builds(net.Faults, st.integers(0, 2**16), _LINKS, _LINKS, st.lists(_RULES, max_size=4))
