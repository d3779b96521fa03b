"""What the upgrade tells the server of the connection's trace, by W3C Trace Context."""

from collections.abc import Iterable, Iterator

import attrs

from ..protocol import State
from ..transport import OpenRequest

__all__ = ["with_trace_context"]


def with_trace_context(request: OpenRequest, state: State, propagated: Iterable[tuple[str, str]]) -> OpenRequest:
    """Return the request with the headers that tell of the trace.

    A header that the user gave is left as it is.

    Parameters:
        propagated: what the telemetry's propagator wants to be sent. Without a traceparent among it, a connection that
            was given a `trace_parent` sends one, whose parent is the connection; others send none.
    """
    given = {name.lower() for name, _ in request.headers}
    added = {name.lower(): value for name, value in propagated}
    for name, value in _given_trace(state):
        added.setdefault(name, value)
    new = tuple((name, value) for name, value in added.items() if name not in given)
    return attrs.evolve(request, headers=(*request.headers, *new)) if new else request


def _given_trace(state: State) -> Iterator[tuple[str, str]]:
    if state.trace_parent is not None:
        flags = state.trace_parent[-2:]
        yield "traceparent", f"00-{state.trace_id}-{state.connection_id}-{flags}"
