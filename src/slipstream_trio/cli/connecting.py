"""Commands that connect: their options, their secrets, their run under Trio, and their words for what failed."""

import json
import logging
import math
import os
import re
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, Final, TextIO, TypeVar
from urllib.parse import parse_qsl, urlsplit

import trio

from .. import ConfigurationError, SlipstreamError, Socket, connect, errors
from ..protocol import RESERVED_EVENTS
from ..telemetry import Telemetry
from ..telemetry.secrecy import is_secret
from ..trace import record
from ..trace.text import Secrets, hidden, named_secrets_in, printable
from .feed import Printer
from .status import TERMINATED, TIMEOUT, UNREACHABLE, CommandFailed, UsageError, pair

T = TypeVar("T")

TOKEN: Final = "SLIPSTREAM_AUTH_TOKEN"  # noqa: S105 - the name of a variable
GRACE: Final = 0.5  # seconds for what is not written yet, where an interrupt ends the run: its reader may never read
_SILENT: Final = logging.NullHandler()

OPTIONS: Final = {"url": "the URL", "params": "--param", "headers": "--header", "auth_token": "--auth-token"}
"""The options of `connect` as they are called here."""

CALLS: Final = re.compile(r"; use send\(\) .*|; see \w+_timeout| \(socket\.\w+\(\) .*?\)")
"""What timeouts tell programs: functions and options of theirs."""


def add_connecting(parser: ArgumentParser, *, recorded: bool = True) -> None:
    """Declare the options of a connection, which may be recorded."""
    group = parser.add_argument_group("connecting")
    for name, text in (("--param", "a connect parameter; repeatable"), ("--header", "a header; repeatable")):
        group.add_argument(name, action="append", default=[], type=pair, metavar="NAME=VALUE", help=text)
    text = f"a token, sent as a subprotocol; better in {TOKEN}. It is never shown"
    group.add_argument("--auth-token", metavar="TOKEN", help=text)
    if recorded:
        group.add_argument("--record", metavar="PATH", help="record everything, for `slipstream trace`; gzip if .gz")


class Run:
    """A run of a command under Trio: SIGTERM ends it, and an output that is gone; it is recorded if that is asked for.

    With `every` all values that the options have are masked, not those alone whose names are those of secrets.
    """

    def __init__(self, options: Namespace, *, every: bool = False) -> None:
        self.telemetry: Telemetry = Telemetry()
        self.url: str | None = options.url  # None where the command has its own server
        self._options = options
        self._token: str | None = options.auth_token or os.environ.get(TOKEN) or None
        pairs = (*options.param, *options.header, *parse_qsl(urlsplit(options.url or "").query))
        secret = [value for name, value in pairs if every or is_secret(name)]
        secret += named_secrets_in(getattr(options, "join_payload", None), secret=every)
        self.secrets: Secrets = Secrets.of(secret if self._token is None else [*secret, self._token])
        self._scope = trio.CancelScope()
        self._printers: list[Printer] = []
        self.failure: OSError | None = None  # of an output that is gone

    @property
    def asked(self) -> dict[str, Any]:
        """The options of `connect` that were given."""
        params, headers = dict(self._options.param), self._options.header
        return {"url": self.url or "", "params": params, "headers": headers, "auth_token": self._token}

    def connect(self, **more: Any) -> AbstractAsyncContextManager[Socket]:
        """Connect as the options say; raises `ConfigurationError`."""
        return connect(**self.asked, telemetry=self.telemetry, **more)

    def guarded(self, show: Callable[[T], object]) -> Callable[[T], None]:
        """Return a function that shows something, and ends the run when the output is gone."""

        def guarded(shown: T) -> None:
            if self.failure is None:
                try:
                    show(shown)
                except OSError as error:
                    self.failure = error
                    self._scope.cancel()

        return guarded

    def printer(self, file: TextIO, **options: Any) -> Printer:
        """Return a printer of the run: at its end, all is written before it is over."""
        printer = Printer(file, self.secrets, **options)
        self._printers.append(printer)
        trio.lowlevel.spawn_system_task(self._print, printer)
        return printer

    async def _print(self, printer: Printer) -> None:
        try:
            await printer.write()
        except OSError as error:
            self.failure = error
            self._printers.clear()
            self._scope.cancel()

    def start(self, main: Callable[[], Awaitable[T]]) -> T:
        """Run; returns what `main` does, or raises what the command line is told: `UsageError`, `CommandFailed`."""
        logging.getLogger("slipstream_trio").addHandler(_SILENT)  # the command shows what that would warn of
        path, masked = getattr(self._options, "record", None), partial(hidden, secrets=self.secrets)
        try:
            with nullcontext() if path is None else record(path, telemetry=self.telemetry, payloads=masked):
                return trio.run(self._supervised, main)
        except ConfigurationError as error:
            raise UsageError(f"{OPTIONS.get(error.option, error.option)}: {error.problem}") from error
        except BrokenPipeError:
            raise  # the output was closed, not the connection
        except (SlipstreamError, OSError) as error:
            unreachable = isinstance(error, errors.ConnectError | errors.ConnectionLost)
            late = isinstance(error, errors.JoinTimeout | errors.PushTimeout)
            raise CommandFailed(self.explain(error), UNREACHABLE if unreachable else TIMEOUT if late else 1) from error
        except BaseExceptionGroup as group:
            if group.split(KeyboardInterrupt)[0] is None:
                raise
            raise KeyboardInterrupt from group

    async def _supervised(self, main: Callable[[], Awaitable[T]]) -> T:
        trio.lowlevel.spawn_system_task(at_signal, signal.SIGTERM, self._scope.cancel)
        with self._scope:
            try:
                return await main()
            finally:
                hurried = not isinstance(sys.exception(), Exception | None)
                with trio.move_on_after(GRACE if hurried else math.inf, shield=hurried):
                    for printer in self._printers:
                        await printer.written()
        raise self.failure or CommandFailed("terminated", TERMINATED)

    def explain(self, error: Exception) -> str:
        """Return an error's text, in one line and without secrets."""
        if isinstance(error, errors.ConnectionRejected):
            # Its text has the start of the body only, so secrets are masked before that is cut off.
            return printable(str(errors.ConnectionRejected(error.status, error.headers, self.secrets.hide(error.body))))
        if isinstance(error, errors.ConnectTimeout | errors.JoinTimeout | errors.PushTimeout):
            return printable(self.secrets.hide(CALLS.sub("", str(error))))
        return printable(self.secrets.hide(str(error)))


async def at_signal(number: int, do: Callable[[], object]) -> None:
    with trio.open_signal_receiver(number) as signals:
        async for _ in signals:
            do()


# Types of options: their errors do not repeat the typed text, as it may be a secret.


class InvalidJSON(ValueError, ArgumentTypeError):
    """A text is not JSON."""


def parse_json(text: str | bytes) -> Any:
    """Read JSON, as Phoenix does; raises `InvalidJSON`, for argparse and others."""
    try:
        return json.loads(text, parse_constant=int)  # which takes neither NaN nor the infinities
    except RecursionError:
        raise InvalidJSON("JSON that is nested too deeply") from None
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidJSON(f"invalid JSON{where}") from None


def event(text: str) -> str:
    if text in RESERVED_EVENTS:
        raise ArgumentTypeError(f"{text!r} is an event of the protocol, which cannot be pushed")
    return text


def seconds(text: str, *, above: bool = False) -> float:
    """Read a number of seconds; one that becomes an option of `connect` has to be above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf or (above and not number):
        raise ArgumentTypeError(f"a number of seconds{' above 0' if above else ', 0 or more'}")
    return number
