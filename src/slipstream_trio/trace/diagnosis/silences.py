"""Silences, told apart by who was alive: this process, the link, the server, or a single handler."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from .facts import SECOND, Ask, Facts, Pause, Silence
from .finding import Cause, Finding, at, family, found, long, of_asks
from .losses import losses

__all__ = ["JOIN_TOO_SHORT", "diagnose"]

LARGE: Final = 100_000  # bytes of a message that may take long by itself

# fmt: off
STOOD_STILL: Final = Cause("process_stood_still", "serious", "this process",
    "the process stood still: it neither sent nor received, and what had come meanwhile was read all at once",
    "find what blocks the event loop (time.sleep, a synchronous request, heavy computing, a full disk) and move it to"
    " trio.to_thread.run_sync, or give the process more CPU")
DEAD_LINK: Final = Cause("dead_link", "grave", "network or proxy",
    "the link was dead: this process went on sending, its timers were on time, and nothing ever came again",
    "look for what drops connections without a word between client and server (a firewall, NAT, VPN, a proxy); shorter"
    " heartbeat_interval and heartbeat_timeout notice it sooner")
SLOW_JOIN: Final = Cause("slow_join", "serious", "server",
    "a slow join/3 held up its whole socket: the server runs it in the socket's process, and everything else waits,"
    " heartbeats too",
    "make join/3 return at once, and load what it needs in handle_info(:after_join) or a task")
LARGE_MESSAGE: Final = Cause("large_message", "serious", "network or proxy",
    "a large message was at the head of the line: while it came, nothing else could",
    "send large things in pieces or by HTTP; if the line should be faster, look at the network")
STALLED: Final = Cause("network_stalled", "serious", "network or proxy",
    "nothing came for a while, then everything at once, while this process was alive: the network stood still, or the"
    " server's socket did",
    "look at packet loss between client and server, and at the server's load at that time")
JOIN_TOO_SHORT: Final = Cause("join_timeout_too_short", "grave", "configuration",
    "join/3 takes longer than join_timeout: its answer came after the join was given up",
    "raise join_timeout above what join/3 takes, and let join/3 return at once")
TURNS: Final = Cause("joins_by_turns", "serious", "server",
    "joins wait for each other: the server works off the joins of a socket one at a time",
    "make join/3 quick (load in handle_info(:after_join)), or spread the topics over several sockets", "--kind joined")
SLOW_HANDLER: Final = Cause("slow_handler", "serious", "server",
    "the server is slow to answer {event}, and answers other events quickly",
    "look at the server's handle_in for {event}: a query, a lock, another service; what is pushed on its topic"
    " meanwhile waits, too", "--event {event}")
# fmt: on


def diagnose(facts: Facts) -> Iterator[Finding]:
    """Find the times in which nothing came though something should have."""
    yield from _stood_still(facts)
    kinds: dict[str, list[Silence]] = {}
    for silence in facts.silences:
        if not facts.covered(silence.began, silence.ended):
            kinds.setdefault(_kind(silence), []).append(silence)
    for kind, cause, tell in _KINDS:
        if silences := kinds.get(kind):
            yield _of_silences(facts, cause, silences, tell)
    yield from _turns(facts)
    yield from _slow_events(facts)


def _of_silences(
    facts: Facts, cause: Cause, silences: Sequence[Silence], tell: Callable[[Facts, Silence], Iterable[str]]
) -> Finding:
    for silence in silences:
        facts.explained.append((silence.connection.socket, silence.began, silence.ended))
        silence.connection.explained |= silence.size is None
    return found(
        facts,
        cause,
        [(silence.began, place) for silence in silences for place in silence.places],
        [text for silence in silences for text in tell(facts, silence)],
        until=silences[-1].ended,
        count=len(silences),
        topic=None if cause in (DEAD_LINK, STALLED) else family(each.first[0] for each in silences),
    )


# This process


def _stood_still(facts: Facts) -> Iterator[Finding]:
    pauses = [pause for pause in facts.pauses if _still(facts, pause)]
    facts.explained += [(None, pause.began, pause.ended) for pause in pauses]
    if pauses:
        seen = [(pause.began, place) for pause in pauses for place in pause.places]
        evidence = [f"from {at(facts, pause.began)} for {long(pause.length)}{_proof(pause)}" for pause in pauses]
        yield found(facts, STOOD_STILL, seen, evidence, until=pauses[-1].ended, count=len(pauses))


def _still(facts: Facts, pause: Pause) -> bool:
    """Tell whether the process stood still: a timer came late, or what is steady at other times came all at once."""
    if pause.told or pause.late * 2 >= SECOND:
        return pause.late * (1 if pause.told else 2) >= SECOND
    active = max(facts.last - facts.first - facts.idle, 1)
    expected, own = (count * pause.length / active for count in (facts.frames, facts.acts))
    caught_up = pause.burst >= max(5, 0.4 * min(expected, 50))
    steady = facts.busy * SECOND // 2 >= active >= 3 * pause.length and facts.idle <= active
    return caught_up and steady and own >= 3 and pause.overdue > 0 and not pause.cut_off


def _proof(pause: Pause) -> str:
    late = f": {'the event loop' if pause.told else 'a timer'} was {long(pause.late)} late" if pause.late else ""
    burst = f"; then {pause.burst} frames within 0.3 s" if pause.burst else ""
    return late + burst + (f"; the callback {pause.busy} took as long" if pause.busy else "")


# The link, and the server


def _kind(silence: Silence) -> str:
    connection = silence.connection
    others = [ask for ask in silence.waiting if ask is not silence.join]
    if silence.size is None:
        return _last_kind(silence, others)
    active = connection.life - connection.quiet
    steady = connection.busy * SECOND // 2 >= active >= 3 * silence.length and connection.quiet <= active
    steady = steady and silence.expected >= 8 and silence.burst >= max(4, 0.4 * min(silence.expected, 50))
    if silence.size >= max(LARGE, 20 * (connection.size - silence.size) // max(connection.frames, 1)):
        return "large" if others or steady else ""
    if _held_up(silence, silence.join) and (others or steady):
        return "overdue" if silence.join is not None and silence.join.outcome == "timeout" else "join"
    wide = len({ask.topic for ask in others}) > 1 or any(ask.kind == "heartbeat" for ask in others)
    return "stall" if wide or steady else ""


def _held_up(silence: Silence, join: Ask | None) -> bool:
    """Tell whether a join held up its socket: what came steadily came until it was sent, and then no more."""
    if join is None or join.took * 2 < silence.length or silence.expected < 8:
        return False
    before = ((join.sent or silence.began) - silence.began) * silence.expected / silence.length
    return before < 3


def _last_kind(silence: Silence, waiting: list[Ask]) -> str:
    """Return the kind of a silence in which a connection ended, or the recording."""
    reason = silence.connection.reason
    if reason not in ("heartbeat_timeout", "lost", "") or not waiting or not silence.sent:
        return ""
    if reason != "heartbeat_timeout" and silence.length < 5 * SECOND:
        return ""
    for join in waiting:
        # What was asked just before the join may still be behind it.
        sent = join.sent or silence.began
        first = min(ask.sent or sent for ask in waiting)
        if join.kind == "join" and _held_up(silence, join) and first > sent - SECOND // 2:
            silence.first = (join.topic, "")
            return "hung"
    return "dead"


def _tell_dead(facts: Facts, silence: Silence) -> Iterator[str]:
    joins = [ask.topic for ask in silence.waiting if ask.kind == "join"]
    late = f" (a join of {joins[0]} that was pending may have put that off)" if joins else ""
    sent = f"from {at(facts, silence.began)} on nothing came, while {silence.sent} frames were sent"
    yield f"{sent}; noticed after {long(silence.length)}, at {at(facts, silence.ended)}{late}"
    yield from losses(facts, silence.connection)


def _tell_join(facts: Facts, silence: Silence) -> Iterator[str]:
    join = silence.join
    answer = (
        "was never answered" if join is None else f"took {long(join.took)}; its answer was the first frame after it"
    )
    quiet = f"from {at(facts, silence.began)} nothing came for {long(silence.length)}"
    yield f"{quiet}: the join of {silence.first[0]} {answer}; {len(silence.waiting)} requests waited"


def _tell_large(facts: Facts, silence: Silence) -> Iterator[str]:
    size = silence.size or 0
    rate = f"{size / 1000:,.0f} kB at {size / silence.length * SECOND / 1000:,.0f} kB/s"
    yield f"from {at(facts, silence.began)} for {long(silence.length)}: {' '.join(silence.first)}, {rate}"


def _tell_stall(facts: Facts, silence: Silence) -> Iterator[str]:
    due = f"{len(silence.waiting)} requests waiting, {silence.expected:.0f} frames expected"
    yield f"from {at(facts, silence.began)} for {long(silence.length)}: {silence.sent} frames sent, {due}"


_KINDS: Final = (
    ("dead", DEAD_LINK, _tell_dead),
    ("hung", SLOW_JOIN, _tell_join),
    ("join", SLOW_JOIN, _tell_join),
    ("overdue", JOIN_TOO_SHORT, _tell_join),
    ("large", LARGE_MESSAGE, _tell_large),
    ("stall", STALLED, _tell_stall),
)


def _turns(facts: Facts) -> Iterator[Finding]:
    for connection in facts.connections.values():
        total, count, first = sum(connection.turns), len(connection.turns), connection.turn
        if count >= 4 and total >= 2 * SECOND and first is not None and first.sent is not None:
            told = f"{count} joins waited for others; each took {long(total / count)}, {long(total)} in sum"
            until = first.sent + total
            facts.explained.append((connection.socket, first.sent, until))
            yield found(facts, TURNS, [(first.began, first.place)], [told], until=until, count=count)


# A single handler


def _slow_events(facts: Facts) -> Iterator[Finding]:
    slow: dict[str, list[Ask]] = {}
    for (_, event), events in facts.events.items():
        slow.setdefault(event, []).extend(
            ask for ask in events.slow if not facts.covered(ask.served, ask.answered or 0, ask.socket)
        )
    for event, asks in slow.items():
        longest = max((ask.took for ask in asks), default=0)
        count = sum(each.answered for (_, name), each in facts.events.items() if name == event)
        apart = sum(not ask.alone for ask in asks)
        # Where nothing else came meanwhile, it may have been the network, unless that happens again and again.
        if apart >= 3 or len(asks) >= max(3, count / 2) or (apart and longest >= 3 * SECOND):
            quick = sum(each.answered - each.slowly for (_, name), each in facts.events.items() if name != event)
            told = f"{len(asks)} of {count} answers took up to {long(longest)}; {quick} to other events were quick"
            yield of_asks(facts, SLOW_HANDLER, asks, [told], event=event)
