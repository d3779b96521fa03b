"""The prompt of `slipstream connect`: prompt_toolkit in a thread, which cancellation ends; it needs the extra `cli`."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
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
    with patch_stdout(raw=True):  # what is printed appears above the prompt
        line_of = Lines(sys.stdout, run.secrets)

        def draw(item: Item) -> None:
            print(line_of(item), flush=True)

        show = run.guarded(draw)
        async with opened(run, run.connect(buffer=1), show) as console, trio.open_nursery() as answers:
            prompt = Prompt(console)
            while (text := await prompt.ask()) is not None and (first := text.partition(" ")[0]) not in QUIT:
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


class Prompt:
    """Asks for lines; its thread has a loop of prompt_toolkit's own, and signals are left to Trio."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._cancelled = False
        keys = KeyBindings()
        keys.add("c-c")(_interrupt)
        self._session: PromptSession[str] = PromptSession(
            "> ",
            completer=Completions(console),
            complete_while_typing=False,
            history=_history(),
            bottom_toolbar=self._status,
            key_bindings=keys,
            refresh_interval=0.5,
        )

    async def ask(self) -> str | None:
        """Return the next line; None at the end."""
        self._cancelled = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_when_cancelled)
            text = await trio.to_thread.run_sync(self._ask)
            nursery.cancel_scope.cancel()
        return text

    def _ask(self) -> str | None:
        try:
            return self._session.prompt(pre_run=self._end_if_cancelled).strip()
        except EOFError:
            return None

    async def _end_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._cancelled = True
            if (loop := self._session.app.loop) is not None:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(self._end_if_cancelled)

    def _end_if_cancelled(self) -> None:
        app = self._session.app
        if self._cancelled and app.is_running and not app.is_done:
            app.exit(exception=EOFError)

    def _status(self) -> str:
        console = self._console
        ping = "" if console.ping is None else f"ping {duration(console.ping * 1e9)}"
        waiting = f"{console.pending} waiting" if console.pending else ""
        joined = f"{len(console.channels)} joined" if console.channels else "join TOPIC, or help"
        words = (console.socket.status, console.current or "", joined, waiting, ping)
        return f" {'  '.join(printable(word) for word in words if word)}"


def _interrupt(event: KeyPressEvent) -> None:
    """Clear the line; where it is empty, end."""
    if event.current_buffer.text:
        event.current_buffer.reset()
    else:
        event.app.exit(result=INTERRUPT)


class Completions(Completer):
    """Completes commands, topics and events that were seen."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002
        """Give what the word at the cursor may become."""
        console, (*before, word) = self._console, document.text_before_cursor.lstrip().split(" ")
        for known in sorted(_candidates(console, before)):
            if known.startswith(word):
                yield Completion(known, start_position=-len(word))


def _candidates(console: Console, before: list[str]) -> Iterable[str]:
    if not before:
        return (*COMMANDS, *ALONE)
    form, topics = COMMANDS.get(before[0], ("", ""))[0], {*console.channels, *console.seen}
    if len(before) == 1 and "TOPIC" in form:
        return topics | (console.seen.get(console.current or "", set()) if "EVENT" in form else set())
    return console.seen.get(before[1], ()) if len(before) == 2 and "EVENT" in form else ()


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
        """Keep a line."""
        _, brace, rest = string.partition("{")
        with suppress(ValueError):
            if any(named_secrets_in(parse_json(brace + rest))):
                return
        super().store_string(string)
