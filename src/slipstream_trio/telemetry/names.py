"""The names of all events, by the classes of their records."""

from collections.abc import Iterable
from typing import Final

from . import records
from .base import EventName

CALLBACKS: Final = (
    *("handle_connect", "handle_disconnect", "handle_join", "handle_message", "handle_reply", "handle_gap"),
    *("handle_topic_close", "handle_leave", "handle_info", "handle_call", "handle_cast", "terminate"),
)
"""The callbacks of a `Client`, each of which is a span."""

_ENDS: Final = ((records.ClientCallbackStart, "start"), (records.ClientCallbackStop, "stop"))
_NAMES: Final[tuple[tuple[type, EventName], ...]] = (
    *((kind, kind.name) for kind in vars(records).values() if isinstance(getattr(kind, "name", None), tuple)),
    *((kind, ("slipstream", "client", callback, end)) for callback in CALLBACKS for kind, end in _ENDS),
)


def names_of_events(kind: type | None = None) -> list[EventName]:
    """Return the names of all events, or of those whose records are of one class."""
    raised = [(records.SpanException, (*name[:-1], "exception")) for _, name in _NAMES if name[-1] == "start"]
    return [name for of, name in (*_NAMES, *raised) if kind in (None, of)]


def checked_names(event: object, *, prefix: bool) -> list[EventName]:
    """Return the names of the events that are meant; raises for what names none."""
    if isinstance(event, type):
        names = names_of_events(event)
        if not names:
            raise TypeError(f"{event.__name__} is not the class of an event's records")
        return names
    given = list(event) if isinstance(event, Iterable) else [event]
    words = [word for word in given if isinstance(word, str)]
    # Of a string, the letters would be the words.
    if isinstance(event, str) or len(words) < len(given):
        raise TypeError('an event is named by a tuple of strings, such as ("slipstream", "client", "push", "stop")')
    known, name = names_of_events(), tuple(words)
    begins = any(each[: len(name)] == name for each in known)
    if begins if prefix else name in known:
        return [name]
    if begins:
        raise ValueError(f"no event has just the name {name}: give prefix=True for all that begin with it")
    from difflib import get_close_matches  # needed after a mistake only

    (nearest,) = get_close_matches(" ".join(words), map(" ".join, known), 1, cutoff=0.0)
    raise ValueError(f"no event has the name {name}; the nearest is {tuple(nearest.split())}")
