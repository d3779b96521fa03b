"""Silences, told apart by who was alive: this process, the link, the server, or a single handler."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from ..text import many
from .facts import LARGE, SECOND, Ask, Connection, Facts, Line, Quiet
from .finding import Cause, Finding, at, family, found, long, of_asks, stillness
from .losses import losses

# fmt: off
STOOD_STILL: Final = Cause("process_stood_still", "serious", "this process",
    "the process stood still: it neither sent nor received{outcome}",
    "find what blocks the event loop (time.sleep, a synchronous request, heavy computing, a full disk) and move it to"
    " trio.to_thread.run_sync, or give the process more CPU; a machine that sleeps loses its connections")
DEAD_LINK: Final = Cause("dead_link", "grave", "network or proxy",
    "the link was dead: this process went on sending, its timers were on time, and no answer ever came again",
    "look for what drops connections without a word (a firewall, NAT, VPN, proxy); shorter heartbeats notice it sooner")
SLOW_JOIN: Final = Cause("slow_join", "serious", "server",
    "a slow join/3 held up its whole socket: it runs in the socket's process, and all else waits, heartbeats too",
    "make join/3 return at once, and load what it needs in handle_info(:after_join) or a task")
LARGE_MESSAGE: Final = Cause("large_message", "serious", "network or proxy",
    "a large message was at the head of the line: while it came, nothing else could",
    "send large things in pieces or by HTTP; if the line should be faster, look at the network")
UPLOAD: Final = Cause("upload_fills_line", "serious", "application",
    "what is pushed fills the line: {event} above all, and everything that is sent after it waits, heartbeats too",
    "send less at once (await one answer before the next push), or send large things by HTTP")
DOWNLOAD: Final = Cause("download_fills_line", "serious", "network or proxy",
    "what the server sends fills the line: {event} above all, and every answer waits behind it",
    "have the server send less at once, or large things by HTTP; if the line should be faster, look at the network")
LINE_FULL: Final = Cause("line_full", "serious", "network or proxy",
    "answers of all kinds were late, and came in the order in which they were asked for: the line was full",
    "see what is large, which this recording does not tell, and send less of it at once, or by HTTP")
STALLED: Final = Cause("network_stalled", "serious", "network or proxy",
    "nothing came for a while, then all at once, while this process was alive: the network, or the server, stood still",
    "look at packet loss between client and server, and at the server's load at that time")
JOIN_TOO_SHORT: Final = Cause("join_timeout_too_short", "grave", "configuration",
    "join/3 takes longer than join_timeout: its answer came after the join was given up",
    "raise join_timeout above what join/3 takes, and let join/3 return at once")
TURNS: Final = Cause("joins_by_turns", "serious", "server",
    "joins wait for each other: the server works off the joins of a socket one at a time",
    "make join/3 quick (load in handle_info(:after_join)), or spread the topics over several sockets", "--kind joined")
SLOW_HANDLER: Final = Cause("slow_handler", "serious", "server",
    "the server is slow to answer {event}, and answers other events quickly",
    "look at the server's handle_in for {event}: a query, a lock, another service", "--event {event}")
# fmt: on


def diagnose(facts: Facts) -> Iterator[Finding]:
    """Find the times in which nothing came though something should have."""
    yield from _stood_still(facts)
    kinds: dict[Cause | None, list[Quiet]] = {}
    for silence in facts.silences:
        kinds.setdefault(_cause(silence), []).append(silence)
    for cause, tell in _KINDS:
        if isinstance(tell, str):
            yield from _full_lines(facts, cause, tell)
            continue
        its = [each for each in kinds.get(cause, ()) if not facts.covered(each.began, each.ended)]
        for each in its:
            facts.explained.append((each.connection.socket, each.began, each.ended))
            each.connection.explained |= each.size is None
        if its:
            topic = None if cause in (DEAD_LINK, STALLED) else family(each.first[0] for each in its)
            yield _found(facts, cause, its, [text for each in its for text in tell(facts, each)], topic=topic)
    yield from _turns(facts)
    yield from _full_lines(facts, LINE_FULL, "up")
    yield from _slow_events(facts)


def _found(facts: Facts, cause: Cause, times: list[Quiet], told: Iterable[str], **words: Any) -> Finding:
    seen = [(quiet.began, place) for quiet in times for place in quiet.places]
    return found(facts, cause, seen, told, until=times[-1].ended, count=len(times), **words)


def _stood_still(facts: Facts) -> Iterator[Finding]:
    dead: list[Connection] = []
    pauses = [pause for pause in facts.pauses if _still(facts, pause)]
    facts.explained += [(None, pause.began, pause.ended) for pause in pauses]
    for pause in pauses:
        for each in facts.connections.values():
            if not each.explained and (each.stood is pause or pause.killed(each)):
                dead.append(each)
                each.stood, each.explained = pause, not each.refused
                facts.explained.append((each.socket, pause.began, each.last))
    # Where credentials expired meanwhile, that is told, and this with it.
    pauses = [pause for pause in pauses if not any(each.refused and each.stood is pause for each in dead)]
    dead = [each for each in dead if each.stood in pauses]
    if pauses:
        outcome = ", and what had come meanwhile was read all at once"
        if dead:
            outcome = f", and {many(len(dead), 'connection was', 'connections were')} dead after it"
        told = [*(stillness(facts, pause) for pause in pauses), *losses(facts, dead)]
        yield _found(facts, STOOD_STILL, pauses, told, outcome=outcome)


def _still(facts: Facts, pause: Quiet) -> bool:
    """Tell whether the process stood still: a timer came late, or what is steady at other times came all at once."""
    if pause.slept:  # or the clock was set, if nothing died of it
        return any(map(pause.killed, facts.connections.values()))
    if pause.told or pause.late * 2 >= SECOND:
        return pause.late * (1 if pause.told else 2) >= SECOND
    active = max(facts.last - facts.first - facts.pace.quiet, 1)
    caught_up = pause.is_caught_up(facts.pace.frames * pause.length / active, 5)
    own = facts.acts * pause.length / active
    steady = facts.pace.is_steady(active, pause.length)
    return caught_up and steady and own >= 3 and pause.overdue > 0 and not pause.cut_off


def _cause(silence: Quiet) -> Cause | None:
    pace, others = silence.connection.pace, [ask for ask in silence.waiting if ask is not silence.join]
    if silence.unheeded:
        return DEAD_LINK
    if silence.size is None:
        return _last_cause(silence, others)
    if silence.length < 2 * silence.connection.quickest:
        return None  # no answer is any quicker
    steady = _is_steady(silence) and silence.expected >= 8 and silence.is_caught_up(silence.expected, 4)
    if silence.size >= max(LARGE, 3 * (silence.connection.down.sent - silence.size) // max(pace.frames, 1)):
        return LARGE_MESSAGE if others or steady else None
    if silence.join is not None and _held_up(silence, silence.join) and (others or steady):
        return JOIN_TOO_SHORT if silence.join.outcome == "timeout" else SLOW_JOIN
    wide = len({ask.topic for ask in others}) > 1 or any(ask.kind == "heartbeat" for ask in others)
    return STALLED if wide or steady else None


def _held_up(silence: Quiet, join: Ask) -> bool:
    """Tell whether a join held up its socket: what was to come came until it was sent, and then no more.

    Where messages are steady, they show it. Where few come, a join is the likelier cause of a silence that ends with
    its answer if something came shortly before it was sent, as the line would have had to fail within that moment.
    """
    sent, expected = join.sent or silence.began, silence.expected
    lead = sent - silence.began
    before = lead * expected / silence.length
    steady = _is_steady(silence, 0 if expected >= 8 else 3) and expected >= 4
    within = max(SECOND, silence.length // 20)
    sudden = silence.size is not None and lead <= within and 4 * silence.connection.quickest < silence.length
    # What was asked just before the join may still be behind it.
    first = min((ask.sent or silence.began for ask in silence.waiting), default=sent)
    alone = join.took * 2 >= silence.length and first > sent - SECOND // 2
    return alone and (sudden or (steady and before < max(1, min(3, expected / 4))))


def _is_steady(silence: Quiet, least: int = 3) -> bool:
    pace = silence.connection.pace
    return pace.is_steady(silence.connection.life - pace.quiet, silence.length, least)


def _last_cause(silence: Quiet, waiting: list[Ask]) -> Cause | None:
    """Return the cause of a silence in which a connection ended, or the recording."""
    reason = silence.connection.reason
    # Where the application ended it, a join that was given up still tells that something was amiss.
    given_up = any(ask.kind == "join" and ask.outcome == "timeout" for ask in waiting)
    if not (given_up or reason in ("heartbeat_timeout", "lost", "")) or not waiting or not silence.sent:
        return None
    if reason != "heartbeat_timeout" and silence.length < 5 * SECOND:
        return None
    for join in waiting:
        if join.kind == "join" and _held_up(silence, join):
            silence.first = (join.topic, "")
            return SLOW_JOIN
    return DEAD_LINK


def _tell_dead(facts: Facts, silence: Quiet) -> Iterator[str]:
    joins = [ask.topic for ask in silence.waiting if ask.kind == "join"]
    late = f" (a join of {joins[0]} was pending: if join/3 hangs on the server, it looks the same)" if joins else ""
    sent = f"from {at(facts, silence.began)} on nothing came, while {many(silence.sent, 'frame')} went"
    if silence.unheeded:
        sent = f"from {at(facts, silence.began)} on nothing that went was answered, but frames came (in one direction)"
    yield f"{sent}; noticed after {long(silence.length)}, at {at(facts, silence.ended)}{late}"
    yield from losses(facts, [silence.connection])


def _tell_join(facts: Facts, silence: Quiet) -> Iterator[str]:
    answered = "was never answered"
    if silence.join is not None:
        answered = f"took {long(silence.join.took)}; its answer was the first frame after it"
    quiet = f"from {at(facts, silence.began)} nothing came for {long(silence.length)}"
    waited = f"{many(len(silence.waiting), 'request')} waited"
    if not _is_steady(silence, 0):
        waited += "; little else was to come: a link that failed as the join was sent would look the same"
    yield f"{quiet}: the join of {silence.first[0]} {answered}; {waited}"


def _tell_large(facts: Facts, silence: Quiet) -> Iterator[str]:
    size = silence.size or 0
    rate = f"{size / 1000:,.0f} kB at {size / silence.length * SECOND / 1000:,.0f} kB/s"
    yield f"from {at(facts, silence.began)} for {long(silence.length)}: {' '.join(silence.first)}, {rate}"


def _tell_stall(facts: Facts, silence: Quiet) -> Iterator[str]:
    waiting = f"{many(len(silence.waiting), 'request')} waited, {silence.expected:.0f} were to come"
    yield f"from {at(facts, silence.began)} for {long(silence.length)}: {many(silence.sent, 'frame')} went, {waiting}"
    if silence.join is not None:
        yield f"  the first that came answered the join of {silence.first[0]}, which may have held up the socket"


_KINDS: Final = (
    (DEAD_LINK, _tell_dead),
    (SLOW_JOIN, _tell_join),
    (JOIN_TOO_SHORT, _tell_join),
    (LARGE_MESSAGE, _tell_large),
    (UPLOAD, "up"),
    (DOWNLOAD, "down"),
    (STALLED, _tell_stall),
)


def _full_lines(facts: Facts, cause: Cause, way: str) -> Iterator[Finding]:
    """Find connections on which answers of several topics were late, and as much passed as ever did.

    Where sizes are not known, a join or a heartbeat has to be among them, which a slow channel does not hold up.
    """
    for connection in facts.connections.values():
        line: Line = getattr(connection, way)
        asks = facts.unexplained(connection.late)
        if cause is LINE_FULL:
            asks = asks if connection.hidden and {ask.kind for ask in asks} & {"join", "heartbeat"} else []
        else:
            asks = [ask for ask in asks if line.is_full(getattr(ask, way), ask.took)]
        if len(asks) < 3 or len({ask.topic for ask in asks}) < 2 or len(asks) <= line.prompt:
            continue
        # Other sockets share the line.
        facts.explained += [(None, ask.sent or 0, ask.answered or 0) for ask in asks]
        if cause is LINE_FULL:
            yield of_asks(facts, cause, asks, [])
            continue
        size, (topic, event) = max((size, kind) for kind, size in line.kinds.items())
        share = size * 100 // max(line.sent, 1)
        told = f"{line.fastest / 1000:,.1f} kB/s at the most; {share} % of it was {topic} {event}"
        yield of_asks(facts, cause, asks, [told], event=event)


def _turns(facts: Facts) -> Iterator[Finding]:
    for connection in facts.connections.values():
        total, count, first = sum(connection.turns), len(connection.turns), connection.turn
        if count >= 4 and total >= 2 * SECOND and first is not None and first.sent is not None:
            told = f"{count} joins waited for others; each took {long(total / count)}, {long(total)} in sum"
            until = first.sent + total
            facts.explained.append((connection.socket, first.sent, until))
            yield found(facts, TURNS, [(first.began, first.place)], [told], until=until, count=count)


def _slow_events(facts: Facts) -> Iterator[Finding]:
    answered = sum(each.answered - each.slowly for each in facts.events.values())
    for event, its in facts.events.items():
        asks = [ask for ask in its.slow if not facts.covered(ask.served, ask.answered or 0, ask.connection)]
        longest = max((ask.took for ask in asks), default=0)
        apart = sum(not ask.alone for ask in asks)
        # Where nothing else came meanwhile, it may have been the network, unless that happens again and again.
        if apart >= 3 or len(asks) >= max(3, its.answered / 2) or (apart and longest >= 3 * SECOND):
            answers = f"{len(asks)} of {many(its.answered, 'answer')} took up to {long(longest)}"
            quick = f"{answered - its.answered + its.slowly} to other events were quick"
            yield of_asks(facts, SLOW_HANDLER, asks, [f"{answers}; {quick}"], event=event)
