"""Scripts for `slipstream_trio.testing.scripted`."""

from hypothesis import strategies as st

from ..scripted import Act, JoinFate, ServerScript
from .frames import frames
from .names import events, statuses
from .payloads import binary_payloads, json_payloads

__all__ = ["acts", "server_scripts"]

_CODES = [1000, 1001, 1011, 1012, 4000]
_FATES: list[JoinFate] = ["accept", "accept", "accept", "refuse", "slow", "crash", "crash_after"]


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
