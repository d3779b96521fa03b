"""Ends of connections that nobody asked for, and attempts that failed: what they have in common is their cause."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import attrs

from ..text import brief, many
from .facts import SECOND, Ask, Connection, Events, Facts
from .finding import Cause, Finding, at, between, found, long, often, stillness
from .losses import losses
from .outages import RESTARTED, Outage, Rule, Told, all_restarted, batches, by_clock, evictions, outages, restarted

RECENT: Final = 2 * SECOND  # what was pushed longer before an end has nothing to do with it
SMALL: Final = 50_000  # bytes of a message that any server takes

KNOWN: Final = (30, 50, 55, 60, 90, 100, 120, 180, 240, 300, 350, 600, 900, 1200, 1800, 3600)
"""Seconds after which servers and proxies are known to close what is idle."""

# fmt: off
OPTION: Final = Cause("option_failed", "grave", "application",
    "a function among the options (url, params, headers, auth_token) raised, so no attempt could be made",
    "see what it raised in reconnect_scheduled, or in Disconnect.error, and let it try again by itself")
REDIRECT: Final = Cause("redirect", "grave", "configuration",
    "the server redirects the upgrade with {status} to {where}, and a WebSocket does not follow",
    "connect to {where} (with ws or wss in place of http or https)")
STALE: Final = Cause("stale_token", "grave", "application",
    "a reconnect was refused with {status}, though the same credentials had been accepted before: they have expired",
    "give auth_token (params, headers) as a function that returns a fresh token: it is asked at every attempt")
UNAUTHORIZED: Final = Cause("unauthorized", "grave", "configuration",
    "the server refused the credentials with {status} from the beginning",
    "check the token, the params and the headers, what connect/3 asks for, and check_origin")
REVOKED: Final = Cause("credentials_revoked", "grave", "server",
    "a reconnect was refused with {status}, though a function was asked for fresh credentials",
    "see what changed on the server (its keys, what this user may), and whether the function returns what is fresh")
NOT_WEBSOCKET: Final = Cause("not_websocket", "grave", "network or proxy",
    "the upgrade was answered with {status}, as by something that speaks no WebSocket",
    "see what stands before the server: a proxy that does not pass Upgrade and Connection on, a captive portal")
RATE: Final = Cause("rate_limit", "serious", "application",
    "too many connections are opened: the server refuses them with {status}",
    "look for a loop that opens socket after socket in place of one that lives on, and spread what starts at once")
OTHER: Final = Cause("refused_{status}", "serious", "server",
    "the upgrade was refused with {status}", "see the log of the server or proxy; Phoenix's path ends in /websocket")
TOO_LONG: Final = attrs.evolve(OTHER, blame="configuration", mechanism=OTHER.mechanism + ": too long a header")
OWN_LIMIT: Final = Cause("own_message_limit", "grave", "configuration",
    "a message exceeds this client's own max_message_size of {limit:,} bytes, so it closes with 1009",
    "raise max_message_size above the largest message, or have the server send that in pieces")
THEIR_LIMIT: Final = Cause("server_message_limit", "grave", "application",
    "the server closed with 1009: a message of this client exceeds the server's limit",
    "send less at once, or raise max_frame_size on the server")
BROKEN: Final = Cause("broken_protocol", "serious", "network or proxy",
    "what came broke the WebSocket protocol, so the client closed the connection with {codes}",
    "look at what stands between client and server, and changes bytes")
DISCONNECTED: Final = Cause("disconnected_by_server", "serious", "server",
    "the server closed the connection with {codes}{others}",
    "see what disconnects this user there (a broadcast of disconnect: another session, a logout, an administrator)")
POISON: Final = Cause("push_ends_connection", "grave", "server",
    "the connection ends each time that {event} was pushed: the server's socket, or a proxy, fails at it",
    "see the server's log at these times, and whether the payload is too large on the way", "--event {event}")
SESSION_GONE: Final = Cause("session_gone", "serious", "network or proxy",
    "the server does not know the session of long-polling: its requests reach several nodes, or a new one",
    "let the balancer send a client's requests to one node (sticky sessions), or use WebSocket")
IDLE: Final = Cause("idle_close", "serious", "configuration",
    "the server or a proxy closes a connection on which the client sent nothing for {idle}",
    "set heartbeat_interval well below {idle}")
AGE: Final = Cause("maximum_age", "serious", "network or proxy",
    "something ends every connection at an age of {age}",
    "nothing, if a short gap does no harm; else raise the limit of a connection's age in the proxy")
GONE: Final = Cause("server_gone", "grave", "server",
    "the server went away: the connection was cut, and new ones were not accepted for a while",
    "see why the server ended (a crash, the kernel's OOM killer, a deployment without draining)")
OUT_OF_REACH: Final = Cause("network_down", "grave", "network or proxy",
    "the server was out of reach for a while: attempts to connect got no answer, no route, or no address of its name",
    "look at the network between client and server: name resolution, and what drops packets (a firewall, a VPN)")
TLS_FAILED: Final = Cause("tls_failed", "grave", "server",
    "the server's certificate was not accepted, so no attempt to connect got further",
    "renew the certificate, or give the authority that signed it by ssl_context")
UNREACHABLE: Final = Cause("unreachable", "grave", "configuration",
    "the server could not be reached from the beginning", "check the URL, DNS, the proxy, and whether the server runs")
CUT: Final = Cause("connection_cut", "serious", "network or proxy",
    "the connection was cut without a close frame, and another was had at once",
    "see whether a proxy or the server was restarted at these times, or the network changed")
CLOSED: Final = Cause("closed_by_server", "serious", "server",
    "the server closed the connection with {codes}",
    "see the server's log at these times: 1011 is a failure there, or a frame that it could not read")
# fmt: on

SERVER_ENDS: Final = frozenset({DISCONNECTED.name, CLOSED.name, RESTARTED.name})

UNREACHED: Final = (
    (TLS_FAILED, re.compile("certificate is not accepted")),
    (OUT_OF_REACH, re.compile("connect_timeout|host is unknown|unreachable|No route")),
)
"""What attempts that got no answer tell of their cause, where all of them do."""

REFUSALS: Final = {
    **dict.fromkeys((301, 302, 303, 307, 308), REDIRECT),
    **dict.fromkeys((401, 403), UNAUTHORIZED),
    **dict.fromkeys((200, 400, 405, 426, 501), NOT_WEBSOCKET),
    **dict.fromkeys((413, 414, 431), TOO_LONG),
    429: RATE,
}
"""The causes by the status of the upgrade."""


def diagnose(facts: Facts) -> Iterator[Finding]:
    """Find why connections ended, and why there was no other."""
    rest = outages(facts)
    facts.explained += [(each.socket, each.began, each.until) for each in rest]
    for rule in _RULES:
        for told, cause, evidence, words in list(rule(facts, rest)):
            rest = [each for each in rest if each not in told]
            if told and _cost_nothing(facts, cause, told):
                facts.noise["closes by the server that cost nothing, as of a deployment"] += len(told)
            elif told and cause is not None:
                yield _found(facts, told, cause, evidence, words)


def _found(facts: Facts, told: Sequence[Outage], cause: Cause, more: Iterable[str], words: dict[str, Any]) -> Finding:
    """Return the finding of outages of one cause, with what they cost."""
    ends, down = _ends(told), sum(each.until - each.began for each in told)
    gave_up = any(each.gave_up for each in told)
    times, sockets = [at(facts, each.began) for each in told], len({each.socket for each in told})
    in_batches = many(batches((each.began for each in told), SECOND), "batch", "batches")
    where = "1 socket" if sockets == 1 else f"{sockets} sockets in {in_batches}"
    rest = f" and {len(times) - 8} more" if len(times) > 8 else ""
    evidence = [f"{often(len(told))}, on {where}, at {', '.join(times[:8])}{rest}", *more]
    if gave_up:
        evidence.append("the socket gave up: no other attempt followed")
    failed = [attempt for each in told if each.status is None for attempt in each.attempts if attempt.message]
    if failed:
        evidence.append(f"{many(len(failed), 'attempt')} failed: {brief(failed[0].message, limit=160)}")
    if down > SECOND:
        evidence.append(f"without a connection for {long(down)} in sum")
    evidence += losses(facts, [end for end in ends if not end.explained])
    seen = [(its.last, its.end or its.place) for each in told[:8] for its in each.all[:6]]
    text = next((f" ({brief(end.message, limit=60)})" for end in ends if end.message), "")
    words["codes"] = " and ".join(map(str, sorted({end.code or 0 for end in ends}))) + text
    words["others"] = " while others went on" if len({each.socket for each in facts.connections.values()}) > 1 else ""
    until = max(each.until for each in told)
    return found(facts, cause, seen, evidence, until=until, count=len(told), grave=gave_up, **words)


def _cost_nothing(facts: Facts, cause: Cause | None, told: Sequence[Outage]) -> bool:
    """Tell whether sockets (all, but for a restart) were closed hardly more than once, and soon back without a loss."""
    if cause not in (RESTARTED, DISCONNECTED) or max(Counter(each.socket for each in told).values()) > 3:
        return False
    if cause is DISCONNECTED:
        first, last = told[0].began, told[-1].began
        if any(first > (each.opened or first) and each.last > last for each in facts.connections.values()):
            return False
    for each in told:
        streams = [stream for (socket, _, _), stream in facts.streams.items() if socket == each.socket]
        missed = any(stream.is_missed(each.began, each.until) for stream in streams)
        if each.back is None or each.until - each.began > 10 * SECOND or missed:
            return False
    return not any(losses(facts, _ends(told)))


def _ends(told: Iterable[Outage]) -> list[Connection]:
    return [each.ended for each in told if each.ended is not None]


def _all(cause: Cause | None, test: Callable[[Outage], bool]) -> Rule:
    """Return what takes all outages of a kind."""
    return lambda _, rest: [([each for each in rest if test(each)], cause, (), {})]


def _option(facts: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    told = [each for each in rest if any(attempt.reason == "option_failed" for attempt in each.attempts)]
    raised = [f"{kind}: {reason}" for what, kind, reason in facts.raised if what == "client connect"]
    yield told, OPTION, raised[:2], {}


def _refused(facts: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    by_cause: dict[tuple[Cause, int], list[Outage]] = {}
    for each in rest:
        if each.status is not None:
            cause, given = REFUSALS.get(each.status, OTHER), _credentials(each.ended).values()
            if cause is UNAUTHORIZED and each.ended is not None:
                cause = REVOKED if "function" in given and "value" not in given else STALE
            by_cause.setdefault((cause, each.status if cause in (OTHER, TOO_LONG) else 0), []).append(each)
    for (cause, _), told in by_cause.items():
        refusals = [each for outage in told for each in outage.attempts if each.status == outage.status]
        first, ended = refusals[0], told[0].ended
        text = f"refused {often(len(refusals))}, first at {at(facts, first.last)}: {brief(first.message, limit=100)}"
        evidence = [text]
        if cause is STALE and ended is not None:
            values = [f"{name} was given as a value" for name, how in _credentials(ended).items() if how == "value"]
            evidence.append(", ".join([f"accepted before, for {long(ended.life)}", *values]))
        stood = [each.stood for each in _ends(told) if each.stood is not None]
        evidence += [f"meanwhile it stood still: {stillness(facts, pause)}" for pause in stood[:1]]
        waits = [each.headers["retry-after"] for each in refusals if "retry-after" in each.headers]
        evidence += [f"it asks to wait {seconds} s (retry-after)" for seconds in waits[:1]]
        where = first.headers.get("location", "(no Location)")
        yield told, cause, evidence, {"status": first.status, "where": where}


def _credentials(ended: Connection | None) -> dict[str, Any]:
    return {name: getattr(ended and ended.options, name, None) for name in ("auth_token", "params", "headers")}


def _gone(_: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    by_cause: dict[Cause, list[Outage]] = {}
    for each in rest:
        if each.attempts:
            cause = GONE if each.ended is not None else UNREACHABLE
            for known, pattern in UNREACHED:
                reached = each.ended is not None or each.back is not None or known is TLS_FAILED
                if reached and all(pattern.search(attempt.message) for attempt in each.attempts):
                    cause = known
            by_cause.setdefault(cause, []).append(each)
    for cause, told in by_cause.items():
        yield told, cause, (), {}


def _own_limit(_: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    told = [each for each in rest if each.code == 1009 and any(map(_by_client, _ends([each])))]
    ends = _ends(told)
    if ends:
        asked = Counter((ask.topic, ask.event, brief(ask.payload)) for end in ends for ask in end.lost)
        evidence = [end.message for end in ends if end.message][:1]
        evidence.append(f"the largest that passed had {max(end.largest for end in ends):,} bytes")
        for what, count in asked.most_common(1):
            evidence.append(f"in flight at {count} of {many(len(ends), 'end')}: {' '.join(what)}")
        yield told, OWN_LIMIT, evidence, {"limit": getattr(ends[0].options, "max_message_size", 0)}


def _by_client(end: Connection) -> bool:
    """Tell whether it was this client's limit; in an old recording, if nothing was sent that the server may refuse."""
    older = end.ended_by is None and end.largest_sent < SMALL
    return older or end.ended_by == "client" or "maximum message size" in end.message


def _is_broken(outage: Outage) -> bool:
    """Tell whether this client ended it; in an old recording, if it is not the server's close of an idle connection."""
    end = outage.ended
    if end is None or outage.code is None:
        return False
    older = end.ended_by is None and end.code in (1002, 1007) and end.last - end.spoke < 10 * SECOND
    return older or end.reason == "protocol_error"


def _poisoned(facts: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    """Find ends right after pushes of an event that is hardly ever answered."""
    by_event: dict[str, list[Outage]] = {}
    beside: set[str] = set()  # those with which others were under way
    for each in rest:
        events = {ask.event for end in _ends([each]) for ask in end.lost if _is_recent(end, ask)}
        beside |= events if len(events) > 1 else set()
        for event in events:
            by_event.setdefault(event, []).append(each)
    for event, told in by_event.items():
        its = facts.events.get(event, Events())
        # Two may be chance, where it has ever been answered, or where it may have been another.
        least = 3 if its.answered or event in beside else 2
        if len(told) >= least and len(told) > its.answered + len(its.timeouts):
            yield told, POISON, (), {"event": event}


def _is_recent(end: Connection, ask: Ask) -> bool:
    """Tell whether a push may have led to an end: not long after it, and not before what it leads to can come back."""
    ago = end.last - (ask.sent or 0)
    return ago < RECENT and (end.quickest - ago < SECOND // 10 or not end.heeded)


def _alike(told: Sequence[Outage], length: Callable[[Connection], int]) -> list[Outage]:
    """Return the ends of about one length, if they are two and all of their sockets', or three and most of them."""
    # Of connections without options the beginning is not known.
    pairs = [(length(each.ended), each) for each in told if each.ended is not None and each.ended.options is not None]
    pairs.sort(key=lambda pair: pair[0])
    best: list[Outage] = []
    for number, (least, _) in enumerate(pairs):
        close = max(SECOND // 2, least // 40)
        loose = max(close, min(least // 6, 9 * SECOND // 4))
        for most in (close, loose):
            group = [each for each_length, each in pairs[number:] if each_length - least <= most]
            enough = len(group) >= (3 if most > close else 1) and least >= 3 * SECOND
            best = group if enough and len(group) > len(best) else best
    sockets = {each.socket for each in best}
    count = sum(each.socket in sockets for _, each in pairs)
    best.sort(key=lambda each: each.began)
    return best if len(best) == count or (len(best) > 2 and 3 * len(best) >= 2 * count) else []


def _idle(facts: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    told = [each for each in rest if each.code in (1000, 1001, 1002, 1006) and not each.attempts]
    told = _alike(told, lambda end: end.last - end.spoke)
    ends = _ends(told)
    idle = sorted(end.last - end.spoke for end in ends)
    if len(idle) == 1:
        known = any(abs(idle[0] - seconds * SECOND) <= max(SECOND, idle[0] // 50) for seconds in KNOWN)
        told = told if known or ends[0].code == 1002 else []
    # A longer pause that did no harm acquits it; where there is but one, as long a pause does.
    more = max(SECOND, idle[-1] // 20) if len(idle) > 1 else 0
    if told and not any(each.paused > idle[-1] + more for each in facts.connections.values()):
        beats = getattr(ends[0].options, "heartbeat_interval", None)
        said = "no heartbeats were sent" if beats is None else f"heartbeat_interval is {beats:g} s"
        text = f"{many(len(ends), 'end')}, {between(idle)} after the last frame sent; {said}"
        yield told, IDLE, [f"{text}; code {ends[0].code}"], {"idle": long(idle[0])}


def _age(facts: Facts, rest: Sequence[Outage]) -> Iterator[Told]:
    codes = (1000, 1001, 1006, 1008)
    told = [each for each in rest if not each.attempts and (each.code in codes or (each.code or 0) >= 3000)]
    told = _alike(told, lambda end: end.life)
    lives = [end.life for end in _ends(told)]
    if told and batches((each.began for each in told), 2 * SECOND) >= 2:
        others = [each.life for each in facts.beside(_ends(told))]
        if max(others) <= max(lives) + 9 * SECOND // 4:  # else an older one came to no harm
            # Those that were open as the recording began are not known to be older.
            sockets = {each.socket for each in told}
            ends = [each for each in rest if each.ended is not None and each.ended.options is None]
            told += [each for each in ends if each.socket in sockets and each.code in codes]
            yield told, AGE, [f"{len(lives)} connections lived {between(lives)}"], {"age": long(max(lives))}


_RULES: Final[Sequence[Rule]] = (
    *(_option, _refused, _all(None, lambda each: each.ended is not None and each.ended.explained), _own_limit),
    *(_all(THEIR_LIMIT, lambda each: each.code == 1009), _all(BROKEN, _is_broken), evictions, by_clock, restarted),
    *(_poisoned, _all(SESSION_GONE, lambda each: each.code == 3410), _idle, _age, all_restarted),
    *(_all(DISCONNECTED, lambda each: each.code in (1000, 1001)), _gone, _all(CUT, lambda each: each.code == 1006)),
    _all(CLOSED, lambda _: True),
)
"""The surest first: each takes what it explains."""
