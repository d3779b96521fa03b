"""The access token, asked for anew before it expires.

Sources: supabase/supabase-js, packages/core/realtime-js/src/RealtimeClient.ts; supabase/realtime,
lib/realtime_web/channels/realtime_channel.ex (`confirm_token`: a channel ends when its token expires).
"""

import json
import logging
import math
import random
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from ...client.handshake import OrCallable, ask
from ...errors import ConfigurationError
from ...protocol import Backoff

__all__ = ["Tokens", "logger"]

LEEWAY: Final = 60.0  # before its expiry a token is replaced, or at half of its time where that is less
TIMEOUT: Final = 10.0  # for the user's function
STEP: Final = 10.0  # between looks at the wall clock (Trio's stops while a computer sleeps), the least between renewals
RETRY: Final = Backoff((1, 2, 5, 10, 30))

logger: Final = logging.getLogger("slipstream_trio.integrations.supabase")


class Tokens:
    """The access token that channels are joined with: given as such, or by a function that is asked in time."""

    def __init__(self, given: OrCallable[str | None], time_ns: Callable[[], int]) -> None:
        self.value: str | None = None if callable(given) else given
        self._function = given if callable(given) else None
        self._now: Callable[[], float] = lambda: time_ns() / 1e9
        self._expires = self._renew_at = math.inf
        self._failures = 0
        self._lock = trio.Lock()
        self.tellers: dict[object, Callable[[], Awaitable[None]]] = {}  # of channels: they tell the server

    async def get(self, doubted: str | None = None) -> str | None:
        """Return the token, another one if it is due or `doubted`; raises what the function does if there is none."""
        async with self._lock:
            if self._function is not None and (self.value in (None, doubted) or self._now() >= self._renew_at):
                try:
                    await self._ask(self._function)
                except Exception as error:
                    logger.warning("no new access token, as its function failed", exc_info=error)
                    self._renew_at = self._now() + RETRY.delay(self._failures, random.random())  # noqa: S311 - for jitter
                    self._failures += 1
                    if self.value is None or self._now() >= self._expires:
                        raise
        return self.value

    async def keep_fresh(self) -> None:
        """Renew the token in time, and let channels tell the server of it, until cancelled."""
        while self._function is not None:
            await trio.sleep(min(max(0.0, self._renew_at - self._now()), STEP))
            with suppress(Exception):  # which is logged
                await self.get()
            await self.tell()

    async def tell(self) -> None:
        """Let each channel tell the server of the token."""
        for tell in list(self.tellers.values()):
            await tell()

    async def _ask(self, function: Callable[[], object]) -> None:
        with trio.fail_after(TIMEOUT):
            value = await ask(function)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError("access_token", f"a string or None, not {type(value).__name__}")
        self.value, self._expires, self._failures = value, _expiry(value or ""), 0
        left = self._expires - self._now()
        self._renew_at = self._now() + max(left - LEEWAY, left / 2, STEP)
        if left <= 0:
            logger.warning("the access token has expired %.0f s ago: is the clock of this machine right?", -left)


def _expiry(token: str) -> float:
    """Return the `exp` claim of a JWT, whose signature is the server's business; infinity if there is none."""
    try:
        claims = token.split(".")[1]
        value = json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
        return float(value) if type(value) in (int, float) and value >= 0 else math.inf
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return math.inf
