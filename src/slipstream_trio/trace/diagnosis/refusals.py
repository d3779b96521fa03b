"""Upgrades that were refused: redirects, credentials, rate limits, and others by their status."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from ..text import brief
from .facts import Facts
from .finding import Cause, at, long
from .outages import Outage

__all__ = ["REFUSALS"]

# fmt: off
REDIRECT: Final = Cause("redirect", "grave", "configuration",
    "the server redirects the upgrade with {status} to {where}, and a WebSocket does not follow",
    "connect to {where} (with ws or wss in place of http or https)")
STALE: Final = Cause("stale_token", "grave", "application",
    "a reconnect was refused with {status}, though the same credentials had been accepted before: they have expired",
    "give auth_token (params, headers) as a function that returns a fresh token: it is asked at every attempt")
UNAUTHORIZED: Final = Cause("unauthorized", "grave", "configuration",
    "the server refused the credentials with {status} from the beginning",
    "check the token, the params and the headers, and what connect/3 asks for")
RATE: Final = Cause("rate_limit", "serious", "application",
    "too many connections are opened: the server refuses them with {status}",
    "look for a loop that opens socket after socket in place of one that lives on, and spread what starts at once")
OPTION: Final = Cause("option_failed", "grave", "application",
    "a function among the options (url, params, headers, auth_token) raised, so no attempt could be made",
    "see what it raised in reconnect_scheduled, or in Disconnect.error, and let it try again by itself")
OTHER: Final = Cause("refused_{status}", "serious", "server",
    "the upgrade was refused with {status}", "{hint}")
# fmt: on

Chosen = tuple[Sequence[Outage], Cause | None, dict[str, Any], list[str]]


def _option(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told = [each for each in rest if any(attempt.reason == "option_failed" for attempt in each.attempts)]
    raised = [f"{kind}: {reason}" for what, kind, reason in facts.raised if what == "client connect"]
    evidence = [f"first at {at(facts, told[0].began)}", *raised[:2]] if told else []
    return told, OPTION, {}, evidence


def _redirected(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told, words, evidence = _of(facts, rest, 301, 302, 303, 307, 308)
    refusal = told[0].refusal if told else None
    where = "" if refusal is None else refusal.headers.get("location", "(no Location)")
    return told, REDIRECT, {**words, "where": where}, evidence


def _stale(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told, words, evidence = _of(facts, [each for each in rest if each.ended is not None], 401, 403)
    for each in told[:1]:
        if each.ended is not None:
            given = {name: getattr(each.ended.options, name, None) for name in ("auth_token", "params", "headers")}
            values = [f"{name} was given as a value" for name, how in given.items() if how == "value"]
            evidence.append(", ".join([f"accepted before, for {long(each.ended.life)}", *values]))
    return told, STALE, words, evidence


def _unauthorized(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told, words, evidence = _of(facts, rest, 401, 403)
    return told, UNAUTHORIZED, words, evidence


def _limited(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    told, words, evidence = _of(facts, rest, 429)
    asked = [
        each.headers["retry-after"] for outage in told for each in outage.attempts if "retry-after" in each.headers
    ]
    return told, RATE, words, [*evidence, *(f"it asks to wait {seconds} s (retry-after)" for seconds in asked[:1])]


def _other(facts: Facts, rest: Sequence[Outage]) -> Chosen:
    status = next((each.status for each in rest if each.status is not None), None)
    told, words, evidence = _of(facts, rest, status)
    wrong_path = "the path is wrong: Phoenix's ends in /websocket"
    hint = wrong_path if status == 404 else "see the log of the server, or of the proxy before it"
    return told, OTHER, {**words, "hint": hint}, evidence


def _of(facts: Facts, rest: Sequence[Outage], *statuses: int | None) -> tuple[list[Outage], dict[str, Any], list[str]]:
    """Return the outages in which an attempt was refused with one of these, with the words that tell it."""
    told = [each for each in rest if each.status is not None and each.status in statuses]
    refusals = [each for outage in told for each in outage.attempts if each.status is not None]
    if not refusals:
        return [], {}, []
    first = refusals[0]
    text = f"refused {len(refusals)} times, first at {at(facts, first.last)}: {brief(first.message, limit=100)}"
    return told, {"status": first.status}, [text]


REFUSALS: Final[Sequence[Callable[[Facts, Sequence[Outage]], Chosen]]] = (
    *(_option, _redirected, _stale, _unauthorized, _limited),
    *(_other, _other, _other),
)
"""Each takes what it explains; the last take one status each."""
