"""Ends of connections that nobody asked for, and attempts that failed: what they have in common is their cause."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import attrs

from ..text import brief
from .facts import SECOND, Connection, Facts
from .finding import Cause, Finding, at, found, long
from .losses import losses
from .outages import Outage, outages
from .refusals import REFUSALS

__all__ = ["SERVER_ENDS", "diagnose", "evicted", "right_after"]

SMALL: Final = 50_000  # bytes of a message that any server takes

KNOWN: Final = (30, 50, 55, 60, 90, 100, 120, 180, 240, 300, 350, 600, 900, 1200, 1800, 3600)
"""Seconds after which servers and proxies are known to close what is idle."""

# fmt: off
OWN_LIMIT: Final = Cause("own_message_limit", "grave", "configuration",
    "a message exceeds this client's own max_message_size of {limit:,} bytes, so it closes with 1009",
    "raise max_message_size above the largest message, or have the server send that in pieces")
THEIR_LIMIT: Final = Cause("server_message_limit", "grave", "application",
    "the server closed with 1009: a message of this client exceeds the server's limit",
    "send less at once, or raise max_frame_size on the server")
BROKEN: Final = Cause("broken_protocol", "serious", "network or proxy",
    "what came broke the WebSocket protocol, so the client closed the connection",
    "look at what stands between client and server, and changes bytes")
EVICTED: Final = Cause("evicted", "serious", "application",
    "sockets of one user evict each other: whenever one connects, the server closes the other",
    "open one socket for a user, and share it; or let the server tell sessions apart")
RESTARTED: Final = Cause("server_restart", "serious", "server",
    "the server was restarted, or drained: it closed with {codes}",
    "nothing, if that was a deployment; a shorter drain, or more of the same server, makes the outage shorter")
DISCONNECTED: Final = Cause("disconnected_by_server", "serious", "server",
    "the server closed the connection with {codes} while others went on",
    "see what disconnects this user there (a broadcast of disconnect: another session, a logout, an administrator)")
IDLE: Final = Cause("idle_close", "serious", "configuration",
    "the server or a proxy closes a connection on which the client sent nothing for {idle}",
    "set heartbeat_interval well below {idle}")
AGE: Final = Cause("maximum_age", "serious", "network or proxy",
    "something ends every connection at an age of {age}",
    "nothing, if a short gap does no harm; else raise the limit of a connection's age in the proxy")
GONE: Final = Cause("server_gone", "grave", "server",
    "the server went away: the connection was cut, and new ones were not accepted for a while",
    "see why the server ended (a crash, the kernel's OOM killer, a deployment without draining)")
UNREACHABLE: Final = Cause("unreachable", "grave", "configuration",
    "the server could not be reached from the beginning", "check the URL, DNS, the proxy, and whether the server runs")
CUT: Final = Cause("connection_cut", "serious", "network or proxy",
    "the connection was cut without a close frame, and another was had at once",
    "see whether a proxy or the server was restarted at these times, or the network changed")
CLOSED: Final = Cause("closed_by_server", "serious", "server",
    "the server closed the connection with {codes}",
    "see the server's log at these times: 1011 is a failure there, or a frame that it could not read")
# fmt: on

SERVER_ENDS: Final = frozenset({DISCONNECTED.name, CLOSED.name})


def diagnose(facts: Facts) -> Iterator[Finding]:
    """Find why connections ended, and why there was no other."""
    rest = list(outages(facts))
    facts.explained += [(each.socket, each.began, each.until) for each in rest]
    for choose in (*REFUSALS, *_ENDS):
        told, cause, words, evidence = choose(facts, rest)
        if told:
            rest = [each for each in rest if each not in told]
            if cause is not None:
                yield _found(facts, told, cause, words, evidence)


def _found(facts: Facts, told: Sequence[Outage], cause: Cause, words: dict[str, Any], evidence: list[str]) -> Finding:
    """Return the finding of outages of one cause, with what they cost."""
    down = sum(each.until - each.began for each in told)
    gave_up = any(each.gave_up for each in told)
    if gave_up:
        evidence.append("the socket gave up: no other attempt followed")
    if down > SECOND:
        evidence.append(f"without a connection for {long(down)} in sum")
    for each in told:
        if each.ended is not None and not each.ended.explained:
            evidence += losses(facts, each.ended)
    connections = [connection for each in told[:8] for connection in each.all[:6]]
    seen = [(each.last, each.end or each.place) for each in connections]
    until = max(each.until for each in told)
    return found(facts, cause, seen, evidence, until=until, count=len(told), grave=gave_up, **words)


Chosen = tuple[Sequence[Outage], Cause | None, dict[str, Any], list[str]]
"""Outages of one cause, the cause (None: told already), words of its text, and what shows it."""

NONE: Final[Chosen] = ((), None, {}, [])


def _times(facts: Facts, told: Iterable[Outage]) -> str:
    times = [at(facts, each.began) for each in told]
    return f"at {', '.join(times[:8])}" + (f" and {len(times) - 8} more" if len(times) > 8 else "")


def _ends(told: Iterable[Outage]) -> list[Connection]:
    return [each.ended for each in told if each.ended is not None]


def _codes(told: Iterable[Outage]) -> dict[str, Any]:
    ends = _ends(told)
    text = next((f" ({brief(end.message, limit=60)})" for end in ends if end.message), "")
    return {"codes": " and ".join(map(str, sorted({end.code or 0 for end in ends}))) + text}


def _own_limit(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told = [each for each in rest if each.code == 1009 and any(map(_by_client, _ends([each])))]
    ends = _ends(told)
    if not ends:
        return NONE
    asked = Counter((ask.topic, ask.event, brief(ask.payload)) for end in ends for ask in end.lost)
    texts = [end.message for end in ends if end.message][:1]
    evidence = [": ".join([_times(facts, told), *texts])]
    evidence.append(f"the largest that passed had {max(end.largest for end in ends):,} bytes")
    for what, count in asked.most_common(1):
        evidence.append(f"in flight at {count} of {len(ends)} ends: {' '.join(what)}")
    return told, OWN_LIMIT, {"limit": getattr(ends[0].options, "max_message_size", 0)}, evidence


def _by_client(end: Connection) -> bool:
    """Tell whether it was this client's limit; in an old recording, if nothing was sent that the server may refuse."""
    older = end.ended_by is None and end.largest_sent < SMALL
    return older or end.ended_by == "client" or "maximum message size" in end.message


def _by_code(cause: Cause, *codes: int) -> Callable[[Facts, Sequence[Outage]], Chosen]:
    """Return what takes all ends of these codes; of any, if none is given."""

    def choose(facts: Facts, rest: Sequence[Outage]) -> Chosen:
        told = [each for each in rest if not codes or each.code in codes]
        return told, cause, _codes(told), [_times(facts, told)]

    return choose


def _explained(_: Facts, rest: Sequence[Outage]) -> Chosen:
    return [each for each in rest if each.ended is not None and each.ended.explained], None, {}, []


def _broken(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told = [each for each in rest if any(map(_by_protocol, _ends([each])))]
    return told, BROKEN, {}, [_times(facts, told), *(end.message for end in _ends(told)[:4])]


def _by_protocol(end: Connection) -> bool:
    """Tell whether this client ended it; in an old recording, if it is not the server's close of an idle connection."""
    older = end.ended_by is None and end.code in (1002, 1007) and end.last - end.spoke < 10 * SECOND
    return older or end.reason == "protocol_error"


def right_after(end: int, opened: int) -> bool:
    """Tell whether an end is due to an opening elsewhere; what tells of them may have come the other way round."""
    return -SECOND // 50 <= end - opened < SECOND // 2


def evicted(finding: Finding) -> Finding:
    """Return the ends of a socket as evictions by one of another recording."""
    changed = {name: getattr(EVICTED, name) for name in ("gravity", "blame", "mechanism", "advice")}
    evidence = (*finding.evidence, "each as the socket of another recording opened")
    return attrs.evolve(finding, cause=EVICTED.name, evidence=evidence, **changed)


def _evicted(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    """Find ends right after the opening of another socket, which soon has its end in the same way."""
    opened = [(each.opened, each.socket) for each in facts.connections.values() if each.opened is not None]
    told = [
        each
        for each in rest
        if each.code in (1000, 1001, 1006) or (each.code or 0) >= 4000
        if any(socket != each.socket and right_after(each.began, when) for when, socket in opened)
    ]
    ends = Counter(each.socket for each in told)
    if len(ends) < 2 or max(ends.values()) < 2:
        return NONE
    evidence = [f"{len(told)} ends of {len(ends)} sockets, each as another opened, {_times(facts, told)}"]
    return told, EVICTED, {}, evidence


def _batches(times: Iterable[int], apart: int) -> int:
    ordered = sorted(times)
    return bool(ordered) + sum(later - before > apart for before, later in pairwise(ordered))


def _restarted(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told = [each for each in rest if each.code in (1001, 1012)]
    sockets = {each.socket for each in told}
    if not any(each.code == 1012 for each in told) and len(sockets) < 3:
        return NONE
    batches = _batches((each.began for each in told), SECOND)
    evidence = [f"{len(told)} ends of {len(sockets)} sockets in {batches} batches, {_times(facts, told)}"]
    return told, RESTARTED, _codes(told), evidence


def _alike(lengths: Sequence[int]) -> bool:
    return max(lengths) - min(lengths) <= max(SECOND // 2, max(lengths) // 40)


def _idle(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told = [each for each in rest if each.code in (1000, 1001, 1002, 1006) and not each.attempts]
    ends = [end for end in _ends(told) if end.options is not None]  # of others the beginning is not known
    idle = [end.last - end.spoke for end in ends]
    if not idle or min(idle) < 3 * SECOND:
        return NONE
    known = any(abs(idle[0] - seconds * SECOND) <= max(SECOND, idle[0] // 50) for seconds in KNOWN)
    if not (_alike(idle) if len(idle) > 1 else known or ends[0].code == 1002):
        return NONE
    if any(each.paused > max(idle) + max(SECOND, max(idle) // 20) for each in facts.connections.values()):
        return NONE  # a longer pause did no harm
    beats = getattr(ends[0].options, "heartbeat_interval", None)
    said = "no heartbeats were sent" if beats is None else f"heartbeat_interval is {beats:g} s"
    evidence = [f"{len(ends)} ends, {long(min(idle))} to {long(max(idle))} after the last frame sent; {said}"]
    return told, IDLE, {"idle": long(min(idle))}, [*evidence, f"{_times(facts, told)}, code {ends[0].code}"]


def _age(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    codes = (1000, 1001, 1006, 1008)
    told = [each for each in rest if not each.attempts and (each.code in codes or (each.code or 0) >= 3000)]
    ends = [end for end in _ends(told) if end.options is not None]
    lives = [end.life for end in ends]
    if (
        not lives
        or min(lives) < 3 * SECOND
        or not _alike(lives)
        or _batches((end.last for end in ends), 2 * SECOND) < 2
    ):
        return NONE
    evidence = [f"{len(ends)} connections lived {long(min(lives))} to {long(max(lives))}; ends {_times(facts, told)}"]
    return told, AGE, {"age": long(max(lives))}, evidence


def _gone(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told = [each for each in rest if each.attempts]
    failed = [each for outage in told for each in outage.attempts]
    first = [outage for outage in told if outage.ended is None]
    texts = brief(failed[0].message, limit=90) if failed else ""
    evidence = [f"{_times(facts, first or told)}; {len(failed)} attempts failed: {texts}"]
    return (first, UNREACHABLE, {}, evidence) if first else (told, GONE, {}, evidence)


def _cut(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told = [each for each in rest if each.code == 1006]
    return told, CUT, {}, [f"{len(told)} times on {len({each.socket for each in told})} sockets, {_times(facts, told)}"]


_ENDS: Final[Sequence[Callable[[Facts, Sequence[Outage]], Chosen]]] = (
    *(_explained, _own_limit, _by_code(THEIR_LIMIT, 1009), _broken, _evicted, _restarted, _idle, _age),
    *(_by_code(DISCONNECTED, 1000, 1001), _gone, _gone, _cut, _by_code(CLOSED)),
)
"""The surest first: each takes what it explains. The first `_gone` takes sockets that were never connected."""
