"""Ids of the telemetry for OpenTelemetry's spans.

OpenTelemetry's API cannot choose the id of a span: its SDK asks its `IdGenerator`, in the thread that starts the span.
So a thread-local variable holds the ids of the span that is being started, and the generator takes them from there. It
works alike for spans that are sampled out, and for traces that a `trace_parent` chose.
"""

import threading
from typing import TYPE_CHECKING

from ...ids import RandomIds

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.id_generator import IdGenerator as Base
else:
    # This package needs the API only, and the user's SDK asks for methods, not for the class.
    Base = object


class _Handed(threading.local):
    trace_id: str | None = None
    span_id: str | None = None


handed: _Handed = _Handed()  # the ids for the next span that this thread starts


class IdGenerator(Base):
    """For a `TracerProvider`: gives the telemetry's spans the telemetry's ids, and all others those of `others`.

    ```
    provider = TracerProvider(id_generator=IdGenerator())
    ```

    Parameters:
        others: the generator for all other spans; None makes random ids.
    """

    def __init__(self, others: "Base | None" = None) -> None:
        self._others = others
        self._random = RandomIds()

    def generate_trace_id(self) -> int:
        """Return the id of a new trace."""
        given, handed.trace_id = handed.trace_id, None
        if given is None and self._others is not None:
            return self._others.generate_trace_id()
        return int(given or self._random.trace_id(), 16)

    def generate_span_id(self) -> int:
        """Return the id of a new span."""
        given, handed.span_id = handed.span_id, None
        if given is None and self._others is not None:
            return self._others.generate_span_id()
        return int(given or self._random.span_id(), 16)

    def is_trace_id_random(self) -> bool:
        """Tell whether trace ids are random: the telemetry's are, unless its bus has another source."""
        return True if self._others is None else self._others.is_trace_id_random()
