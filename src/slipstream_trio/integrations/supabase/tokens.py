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
from typing import Final, final

import trio

from ...client.handshake import OrCallable, ask
from ...errors import ConfigurationError
from ...protocol import Backoff

__all__ = ["Tokens"]

LEEWAY: Final = 60.0  # before its expiry a token is replaced, or at half of its time where that is less
SHORTEST: Final = 10.0  # between two renewals, whatever the tokens say
TIMEOUT: Final = 10.0  # for the user's function
LOOK: Final = 30.0  # at the wall clock: while a computer sleeps, Trio's clock stands still
RETRY: Final = Backoff((1, 2, 5, 10, 30))

logger: Final = logging.getLogger("slipstream_trio.integrations.supabase")


@final
class Tokens:
    """The access token that channels are joined with: `value`, None while there is none.

    Parameters:
        given: the token, None for none, or a function that returns one.
        now: the wall clock, in seconds since 1970.
    """

    def __init__(self, given: OrCallable[str | None], now: Callable[[], float]) -> None:
        self.value: str | None = None if callable(given) else given
        self._function = given if callable(given) else None
        self._now = now
        self._expires = self._renew_at = math.inf
        self._failures = 0
        self._lock = trio.Lock()
        self._changed = trio.Event()

    async def get(self, *, anew: bool = False) -> str | None:
        """Return the token; what the user's function raises is raised where there is none that has not expired.

        Parameters:
            anew: whether to ask for another one in any case, and raise in any case.
        """
        async with self._lock:
            if self._function is not None and (anew or self.value is None or self._now() >= self._renew_at):
                try:
                    await self._ask()
                except Exception as error:
                    if anew or self.value is None or self._now() >= self._expires:
                        raise
                    self._failed(error)
        return self.value

    def doubt(self, token: str | None) -> None:
        """Ask for another token at the next need: the server may not like this one, whatever its expiry says."""
        if token == self.value:
            self._expires = self._renew_at = 0.0

    async def keep_fresh(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Renew the token in time, and `tell` of each new one, until cancelled."""
        told = None
        while self._function is not None:
            if self.value != told:
                told = self.value
                await tell()
            with trio.move_on_after(min(max(0.0, self._renew_at - self._now()), LOOK)):
                await self._changed.wait()
            if self.value is not None and self._now() >= self._renew_at:
                try:
                    await self.get()
                except Exception as error:  # noqa: BLE001 - the user's function
                    self._failed(error)

    async def _ask(self) -> None:
        with trio.fail_after(TIMEOUT):
            value = await ask(self._function)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError("access_token", f"a string or None, not {type(value).__name__}")
        now, self._failures = self._now(), 0
        self.value, self._expires = value, _expiry(value or "")
        left = self._expires - now
        self._renew_at = now + max(left - LEEWAY, left / 2, SHORTEST)
        if left <= 0:
            logger.warning("the access token has expired %.0f s ago: is the clock of this machine right?", -left)
        self._changed.set()
        self._changed = trio.Event()

    def _failed(self, error: Exception) -> None:
        logger.warning("no new access token, as its function failed; it is asked again", exc_info=error)
        self._renew_at = self._now() + RETRY.delay(self._failures, random.random())  # noqa: S311 - for jitter
        self._failures += 1


def _expiry(token: str) -> float:
    """Return the `exp` claim of a JWT, whose signature is the server's business; infinity if there is none."""
    try:
        claims = token.split(".")[1]
        value = json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
        return float(value) if type(value) in (int, float) and value >= 0 else math.inf
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return math.inf
