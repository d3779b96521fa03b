"""The prompt of `slipstream connect`: prompt_toolkit in a thread, which cancellation ends; it needs the extra `cli`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout

from ..trace.text import duration, named_secrets_in, printable
from .connecting import Run, parse_json
from .console import ALONE, COMMANDS, HELP, Console, RequestError, from_words, opened
from .feed import Item, Lines
from .status import OK

QUIT: Final = ("quit", "exit")
INTERRUPT: Final = "\x03"  # the line of a Ctrl-C, where nothing is typed


async def converse(run: Run) -> int:
    """Carry out what is typed, until Ctrl-D."""
    # What is printed appears above the prompt. One loop for all of it: what is printed while one ends would be lost.
    async with _asyncio() as loop:
        with patch_stdout(raw=True):
            line_of = Lines(sys.stdout, run.secrets)
            show: Callable[[Item], None] = run.guarded(lambda item: print(line_of(item), flush=True))
            async with opened(run, show, buffer=1) as console, trio.open_nursery() as answers:
                session = _session(console)
                while (text := await _ask(session, loop)) is not None and (first := text.partition(" ")[0]) not in QUIT:
                    if text == INTERRUPT:
                        raise KeyboardInterrupt
                    if first == "help":
                        print(HELP)
                    elif text:
                        try:
                            request = from_words(text, console.channels, console.current)
                        except RequestError as error:
                            console.misread(error)
                        else:
                            await answers.start(console.do, request)
                answers.cancel_scope.cancel()
    return OK


@asynccontextmanager
async def _asyncio() -> AsyncIterator[asyncio.AbstractEventLoop]:
    """Run a loop of asyncio in a thread, where signals are left to Trio; at the end it does what it has begun."""
    runner, over = asyncio.Runner(loop_factory=asyncio.new_event_loop), asyncio.Event()
    loop = runner.get_loop()

    async def until_over() -> None:
        await over.wait()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=1)

    def run() -> None:
        with runner:
            runner.run(until_over())

    async def run_until_stopped() -> None:
        with trio.CancelScope(shield=True):  # who is cancelled waits for what it has begun in the loop
            await trio.to_thread.run_sync(run)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_until_stopped)
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(over.set)


async def _ask(session: PromptSession[str], loop: asyncio.AbstractEventLoop) -> str | None:
    """Return the next line, which is asked for in a loop of another thread; None at the end."""
    asking = asyncio.run_coroutine_threadsafe(session.prompt_async(), loop)
    try:
        return (await trio.to_thread.run_sync(asking.result, abandon_on_cancel=True)).strip()
    except EOFError:
        return None
    finally:
        asking.cancel()


def _session(console: Console) -> PromptSession[str]:
    keys = KeyBindings()

    @keys.add("c-c")
    def interrupt(event: KeyPressEvent) -> None:
        """Clear the line; where it is empty, end."""
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(result=INTERRUPT)

    def status() -> str:
        ping = "" if console.ping is None else f"ping {duration(console.ping * 1e9)}"
        waiting = f"{console.pending} waiting" if console.pending else ""
        channels = [*console.channels.values()]  # taken at once, as this is another thread
        joined = sum(channel.status == "joined" for channel in channels)
        topics = f"{joined} joined" if channels else "join TOPIC, or help"
        words = (console.socket.status, console.current or "", topics, waiting, ping)
        return f" {'  '.join(printable(word) for word in words if word)}"

    return PromptSession(
        "> ",
        completer=WordCompleter(partial(_words, console), WORD=True),
        complete_while_typing=False,
        history=_history(),
        bottom_toolbar=status,
        key_bindings=keys,
        refresh_interval=0.5,
    )


def _words(console: Console) -> list[str]:
    """Return what the word at the cursor may become: commands, topics and events that were seen."""
    before = get_app().current_buffer.document.text_before_cursor.lstrip().split(" ")[:-1]
    if not before:
        return sorted((*COMMANDS, *ALONE))
    form, seen = COMMANDS.get(before[0], ("", ""))[0], console.seen
    if len(before) == 1 and "TOPIC" in form:
        events = seen.get(console.current or "", ()) if "EVENT" in form else ()
        return sorted({*console.channels, *seen, *events})
    return sorted(seen.get(before[1], ())) if len(before) == 2 and "EVENT" in form else []


def _history() -> History:
    """Return the history, in a file of the user's that nobody else reads, if there can be one."""
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME")
    path = Path(base or Path.home() / ".local" / "state") / "slipstream" / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return Discreet(str(path))


class Discreet(FileHistory):
    """A history without the lines whose payloads have secrets."""

    def store_string(self, string: str) -> None:
        _, brace, rest = string.partition("{")
        with suppress(ValueError):
            if any(named_secrets_in(parse_json(brace + rest))):
                return
        super().store_string(string)
