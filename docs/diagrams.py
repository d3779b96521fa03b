"""Diagrams made from the code's own tables, as SVG: the floors of imports, and the states of connections and topics.

The floors are those that `import-linter` holds (pyproject.toml). The states are found by giving the pure core each
input in each state that it can be in. `python docs/generated.py connection-states` prints one of them.
"""

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Final

from slipstream_trio.errors import ProtocolError
from slipstream_trio.protocol import (
    CloseConnection,
    FrameReceived,
    Input,
    JoinTopic,
    LeaveTopic,
    Options,
    SendHeartbeat,
    State,
    TimerTicked,
    TransportClosed,
    TransportFailed,
    TransportOpened,
    handle,
)

__all__ = ["DIAGRAMS"]

PYPROJECT: Final = Path(__file__).parent.parent / "pyproject.toml"
TOPIC: Final = "room:lobby"
LATE: Final = 1000.0

Edges = dict[tuple[str, str], list[str]]
"""From one state to another: the inputs that lead there."""

Place = tuple[float, float]


# Floors


def floors(contract: str) -> list[list[str]]:
    """Return the floors of a contract of import-linter, the top first, each with its modules."""
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [each["layers"] for each in contracts if each["name"] == contract]
    return [[name.strip(" ()") for name in layer.replace("|", ":").split(":")] for layer in layers]


def floor_diagram(contract: str) -> str:
    """Draw floors as boxes: each imports those below it only."""
    wide, high, gap = 700, 30, 12
    rows = floors(contract)
    parts = []
    for number, names in enumerate(rows):
        y = 8 + number * (high + gap)
        width = (wide - gap * (len(names) - 1)) / len(names)
        for column, name in enumerate(names):
            parts.append(box(8 + column * (width + gap), y, width, high, name))
        if number:
            parts.append(arrow((wide / 2 + 8, y - gap), (wide / 2 + 8, y)))
    return drawn(wide + 16, 16 + len(rows) * (high + gap) - gap, parts)


# States


def connection_edges() -> Edges:
    """Give every input to a connection in every status, until no new one is found."""
    inputs: dict[str, Callable[[State], Input]] = {
        "TransportOpened": lambda _: TransportOpened(now=0.0),
        "TransportFailed": lambda _: TransportFailed("refused"),
        "TransportClosed": lambda _: TransportClosed(1006),
        "CloseConnection": lambda _: CloseConnection(),
        "SendHeartbeat": lambda _: SendHeartbeat(now=0.0),
        "TimerTicked (no answer)": lambda _: TimerTicked(now=LATE),
        "JoinTopic": lambda _: JoinTopic(now=0.0, topic=TOPIC, payload={}, timeout=None),
    }
    return explored(new_connection(), inputs, lambda state: state.status)


def topic_edges() -> Edges:
    """Give a topic's inputs to an open connection, in every status of the topic."""

    def frame(event: str, payload: str) -> Callable[[State], Input]:
        def made(state: State) -> Input:
            ref = state.joins.get(TOPIC, "0")
            return FrameReceived(now=0.0, frame=f'["{ref}","{ref}","{TOPIC}","{event}",{payload}]')

        return made

    inputs: dict[str, Callable[[State], Input]] = {
        "JoinTopic": lambda _: JoinTopic(now=0.0, topic=TOPIC, payload={}, timeout=10.0),
        "LeaveTopic": lambda _: LeaveTopic(now=0.0, topic=TOPIC, timeout=10.0),
        "reply ok": frame("phx_reply", '{"status":"ok","response":{}}'),
        "reply error": frame("phx_reply", '{"status":"error","response":{}}'),
        "phx_close": frame("phx_close", "{}"),
        "phx_error": frame("phx_error", "{}"),
        "TimerTicked (late)": lambda _: TimerTicked(now=15.0),
    }
    opened = handle(new_connection(), TransportOpened(now=0.0)).state
    return explored(opened, inputs, topic_status)


def new_connection() -> State:
    """Return the state of a connection that is not open yet."""
    options = Options(url="ws://localhost/socket/websocket")
    return State(connection_id="1" * 16, trace_id="2" * 32, socket_id="3" * 16, generation=1, options=options)


def topic_status(state: State) -> str:
    """Return the status of the topic on a connection."""
    if TOPIC in state.leaves:
        return "leaving"
    if TOPIC in state.join_deadlines:
        return "joining"
    return "joined" if TOPIC in state.joins else "not joined"


def explored(first: State, inputs: Mapping[str, Callable[[State], Input]], status_of: Callable[[State], str]) -> Edges:
    """Give every input in every status that there is; the first state found with a status stands for it."""
    known, waiting, edges = {status_of(first): first}, [first], Edges()
    while waiting:
        state = waiting.pop(0)
        for name, make in inputs.items():
            try:
                after = handle(state, make(state)).state
                if name == "TimerTicked (no answer)":
                    after = handle(handle(state, SendHeartbeat(now=0.0)).state, make(state)).state
            except ProtocolError:
                continue  # the input does not fit the status
            here, there = status_of(state), status_of(after)
            if here != there and name not in edges.setdefault((here, there), []):
                edges[here, there].append(name)
            if there not in known:
                known[there] = after
                waiting.append(after)
    return edges


CONNECTION_PLACES: Final = {"opening": (20, 60), "open": (270, 60), "closing": (560, 60), "closed": (270, 240)}
TOPIC_PLACES: Final = {"not joined": (20, 130), "joining": (290, 20), "joined": (560, 130), "leaving": (290, 240)}


def state_diagram(edges: Edges, places: Mapping[str, Place]) -> str:
    """Draw states where `places` has them, and an arrow for each edge, with the inputs that take it."""
    wide, high = 110, 34
    parts = [box(x, y, wide, high, name) for name, (x, y) in places.items()]
    for (here, there), names in edges.items():
        start, end = (tuple_add(places[name], (wide / 2, high / 2)) for name in (here, there))
        side = 9 if (there, here) in edges else 0
        parts += edge(start, end, (wide / 2, high / 2), names, side)
    return drawn(700, 300, parts)


def tuple_add(a: Place, b: Place) -> Place:
    """Return the sum of two points."""
    return a[0] + b[0], a[1] + b[1]


def edge(start: Place, end: Place, half: Place, names: list[str], side: float) -> Iterator[str]:
    """Draw an arrow from one box to another, `side` pixels to its left, with its labels beside it."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    ux, uy = dx / length, dy / length
    shift = (uy * side, -ux * side)
    out, back = border(shift, (ux, uy), half), border(shift, (-ux, -uy), half)
    a = start[0] + shift[0] + ux * out, start[1] + shift[1] + uy * out
    b = end[0] + shift[0] - ux * back, end[1] + shift[1] - uy * back
    yield arrow(a, b)
    part = 0.5 if side == 0 and abs(ux) == 1 and length < 400 else 0.36
    yield label((a[0] + (b[0] - a[0]) * part, a[1] + (b[1] - a[1]) * part), names, above=ux >= 0 and abs(uy) < 0.5)


def border(inside: Place, way: Place, half: Place) -> float:
    """Return how far it is from a point in a box, told from the box's middle, to its border."""
    return min(
        (extent - math.copysign(at, at * step)) / abs(step)
        for at, step, extent in zip(inside, way, half, strict=True)
        if step
    )


# SVG


def box(x: float, y: float, width: float, height: float, text: str) -> str:
    """Draw a box with a text in it."""
    middle = f'x="{x + width / 2:.0f}" y="{y + height / 2 + 4:.0f}"'
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="5" fill="none" '
        f'stroke="currentColor"/><text {middle} text-anchor="middle">{escape(text)}</text>'
    )


def arrow(start: Place, end: Place) -> str:
    """Draw an arrow."""
    return (
        f'<line x1="{start[0]:.0f}" y1="{start[1]:.0f}" x2="{end[0]:.0f}" y2="{end[1]:.0f}" stroke="currentColor" '
        'marker-end="url(#tip)"/>'
    )


def label(middle: Place, lines: list[str], *, above: bool) -> str:
    """Write lines of text over or under a point."""
    x, y = middle
    first = y - 6 - 13 * (len(lines) - 1) if above else y + 15
    texts = (
        f'<text x="{x:.0f}" y="{first + 13 * number:.0f}" class="input" text-anchor="middle">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return "".join(texts)


def drawn(width: float, height: float, parts: list[str]) -> str:
    """Return parts as one drawing, in the colours of the page that it is put into."""
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'style="max-width: {width:.0f}px; width: 100%; font: 13px sans-serif; fill: currentColor">'
        "<style>.input { font-size: 11px; paint-order: stroke; stroke: var(--color-background-primary, white); "
        f"stroke-width: 4px }}</style><defs>{tip}"
        '<path d="M0 0 8 4 0 8z" fill="currentColor"/></marker></defs>'
    )
    return f"```{{raw}} html\n{head}{''.join(parts)}</svg>\n```"


DIAGRAMS: Final[Mapping[str, Callable[[], str]]] = {
    "floors": lambda: floor_diagram("Imports run downward only"),
    "client-modules": lambda: floor_diagram("The client's modules in their order"),
    "connection-states": lambda: state_diagram(connection_edges(), CONNECTION_PLACES),
    "topic-states": lambda: state_diagram(topic_edges(), TOPIC_PLACES),
}
