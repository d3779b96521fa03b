"""How OpenTelemetry's spans come to have the telemetry's ids.

OpenTelemetry has no way to say what id a span is to have: its SDK asks its `IdGenerator`, in the thread that starts the
span and while it does. So the ids of the span that is being started lie in a thread's own variable, and the generator
takes them from there. That works alike for spans that are sampled out, and for traces that a `trace_parent` chose.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...ids import RandomIds

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.id_generator import IdGenerator as Base
else:
    # The SDK is the user's business: this package needs the API only, and an SDK asks for methods, not for the class.
    Base = object

__all__ = ["IdGenerator", "handing_over"]


class _HandOver(threading.local):
    trace_id: str | None = None
    span_id: str | None = None


_next = _HandOver()


@contextmanager
def handing_over(trace_id: str | None, span_id: str | None) -> Iterator[None]:
    """Let the next span that this thread starts have these ids, if it is started in this block."""
    _next.trace_id, _next.span_id = trace_id, span_id
    try:
        yield
    finally:
        _next.trace_id = _next.span_id = None


class IdGenerator(Base):
    """For a `TracerProvider`: gives the telemetry's spans the telemetry's ids, and all others those of `others`.

    ```
    provider = TracerProvider(id_generator=IdGenerator())
    ```

    Parameters:
        others: the generator that you would have had without this one; None makes random ids.
    """

    def __init__(self, others: "Base | None" = None) -> None:
        self._others = others
        self._random = RandomIds()

    def generate_trace_id(self) -> int:
        """Return the id of a new trace."""
        handed, _next.trace_id = _next.trace_id, None
        if handed is None and self._others is not None:
            return self._others.generate_trace_id()
        return int(handed or self._random.trace_id(), 16)

    def generate_span_id(self) -> int:
        """Return the id of a new span."""
        handed, _next.span_id = _next.span_id, None
        if handed is None and self._others is not None:
            return self._others.generate_span_id()
        return int(handed or self._random.span_id(), 16)

    def is_trace_id_random(self) -> bool:
        """Tell whether trace ids are random: the telemetry's are, unless its bus was given a source of others."""
        return True if self._others is None else self._others.is_trace_id_random()
