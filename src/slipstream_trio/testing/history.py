"""The history of a test's connections, as lines of text for a failure report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from ..telemetry import Record
from ..trace.text import Secrets, brief, named_secrets_in, printable
from ..trace.view import describe

__all__ = ["Moment", "tell"]

_ARROWS: Final = {"out": "→", "in": "←", "here": "·"}
_ABOUT: Final = ("client", "callback", "topic", "event")


@frozen
class Moment:
    """A record, and when it was emitted.

    Attributes:
        record: the record.
        at: in seconds of Trio's clock since the first record of a test, so that virtual time is told in virtual
            seconds; None outside of Trio.
    """

    record: Record
    at: float | None


def tell(moments: Sequence[Moment], limit: int) -> str:
    """Return the history of some connections: at most `limit` of the latest lines, and as many spans still open.

    Members of payloads whose names are those of secrets are masked, wherever their values occur.
    """
    secrets = Secrets.of(_secrets_of(moments))
    numbers: dict[Any, int] = {}
    open_spans: dict[Any, tuple[int, str]] = {}
    lines: list[tuple[int, str]] = []
    for moment in moments:
        record = moment.record
        number = numbers.setdefault(record.origin.connection_id or record.origin.socket_id, len(numbers) + 1)
        since = "-" if moment.at is None else f"+{moment.at:.3f} s"
        beginning = f"{since:>12}  #{number}  "
        line = describe(record, secrets)
        span_id = record.metadata.get("span_id")
        if record.name[-1] == "start":
            open_spans[span_id] = (number, f"{beginning}{_begun(record, secrets)}")
        else:
            open_spans.pop(span_id, None)
        if line is not None:
            words = (_ARROWS[line.direction], line.what, line.topic, line.event, line.status, line.detail(secrets))
            lines.append((number, beginning + " ".join(filter(None, words)).rstrip()))
    return _joined(lines, list(open_spans.values()), numbers, limit)


def _joined(
    lines: list[tuple[int, str]], still_open: list[tuple[int, str]], names: Mapping[Any, int], limit: int
) -> str:
    """Return the latest lines, each with its connection's number, and the names of these connections."""
    left_out = len(lines) - limit
    lines, still_open = lines[max(0, left_out) :], still_open[max(0, len(still_open) - limit) :]
    told = [f"  … {left_out} earlier ones"] if left_out > 0 else []
    told += [text for _, text in lines]
    if still_open:
        told += ["Begun and not ended:", *(text for _, text in still_open)]
    shown = {number for number, _ in (*lines, *still_open)}
    where = ", ".join(f"#{number} is {name}" for name, number in names.items() if number in shown)
    return "\n".join([*told, f"where {where}"] if where else told)


def _begun(record: Record, secrets: Secrets) -> str:
    """Return the description of a span that has only begun."""
    metadata = record.metadata
    words = [*record.name[1:-1], *(str(metadata[name]) for name in _ABOUT if name in metadata)]
    payload = f" {brief(metadata['params'], secrets)}" if "params" in metadata else ""
    return printable(secrets.hide(" ".join(words))) + payload


def _secrets_of(moments: Iterable[Moment]) -> Iterator[str]:
    for moment in moments:
        metadata = moment.record.metadata
        for value in (
            metadata.get("params"),
            metadata.get("response"),
            getattr(metadata.get("message"), "payload", None),
        ):
            yield from named_secrets_in(value)
