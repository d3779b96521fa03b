"""The shape of `client/`: its files, the largest classes, helpers used once, and the way of operations through it.

    python benchmarks/shape.py

A way is the functions of this library that an operation enters, each once, counted in memory with nothing attached: of
a push up to the transport, of its reply and of a message from the transport to the task that waits, of a rejoin from
the crash of a channel until it is joined again.
"""

import ast
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import trio
from in_process import Memory
from trio.testing import wait_all_tasks_blocked

import slipstream_trio
from slipstream_trio import Backoff, connect
from slipstream_trio.protocol import Frame

PACKAGE = Path(slipstream_trio.__file__).parent


class Ways(Memory):
    """A server in memory; prints the ways to and from it."""

    def __init__(self) -> None:
        super().__init__()
        self._entered: dict[CodeType, None] = {}
        self.ends_push = False

    def begin(self) -> None:
        """Follow what runs from now on."""
        self._entered.clear()
        sys.setprofile(self._profile)

    def end(self, name: str) -> None:
        """Follow no more, and print the way."""
        sys.setprofile(None)
        files = {code.co_filename for code in self._entered}
        names = ", ".join(code.co_qualname for code in self._entered)
        print(f"{name}: {len(self._entered)} functions in {len(files)} files: {names}")  # noqa: T201

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        # Of the instruction RESUME, 0 is the start of a function; a coroutine that goes on is no step of the way.
        if event == "call" and code.co_filename.startswith(str(PACKAGE)) and not code.co_code[frame.f_lasti + 1]:
            self._entered[code] = None

    async def send(self, frames: Sequence[Frame]) -> None:
        """End the way of a push, and begin that of its reply."""
        if self.ends_push:
            self.end("a push")
            self.begin()
        await super().send(frames)

    def give(self, frame: Frame) -> None:
        """Have a frame of the server ready."""
        self._answers.append(frame)
        self._waiting.set()


async def ways() -> None:
    """Print the ways of operations, when whatever the first ones need is there."""
    memory = Ways()
    rejoin = Backoff((0.01,), jitter=0)
    async with connect("ws://memory/", transport=memory, rejoin=rejoin) as socket, socket.join("room") as channel:
        await channel.push("echo", {})
        memory.ends_push = True
        memory.begin()
        await channel.push("echo", {})
        memory.ends_push = False
        memory.end("a reply")

        tick, crash = (f'["{channel.join_ref}",{ref},"room",' for ref in ("null", f'"{channel.join_ref}"'))

        async def read() -> None:
            await channel.receive()
            await channel.receive()
            memory.end("a message")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            memory.give(f'{tick}"tick",{{}}]')
            await wait_all_tasks_blocked()
            memory.begin()
            memory.give(f'{tick}"tick",{{}}]')
        memory.begin()
        memory.give(f'{crash}"phx_error",{{}}]')
        with trio.move_on_after(0.1):
            await trio.sleep_forever()
        memory.end("a rejoin")


def static() -> list[str]:
    """Return what the source says, in lines."""
    texts = {path: path.read_text() for path in sorted((PACKAGE / "client").rglob("*.py"))}
    classes: dict[str, int] = {}
    helpers: set[str] = set()
    used = Counter[str]()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                used[node.attr] += 1
            elif isinstance(node, ast.Name):
                used[node.id] += 1
            elif isinstance(node, ast.ClassDef) and path in texts:
                classes[node.name] = len(attributes(node))
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and path in texts:
                helpers |= {node.name} if node.name.startswith("_") and not node.name.endswith("__") else set()
    once = sum(used[name] == 1 for name in helpers)
    largest = sorted(classes, key=lambda name: -classes[name])[:5]
    inits = sum(path.name == "__init__.py" for path in texts)
    lines = sum(len(text.splitlines()) for text in texts.values())
    return [
        f"client/: {len(texts)} files ({inits} of them __init__), {lines} lines",
        f"private helpers: {len(helpers)}, {once} of them ({once / len(helpers):.0%}) used once",
        f"attributes of the largest classes: {', '.join(f'{name} {classes[name]}' for name in largest)}",
    ]


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the attributes of a class's instances: those that it declares, and those that its methods set."""
    targets = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
    targets += [each for each in ast.walk(node) if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)]
    names = {ast.unparse(each).removeprefix("self.") for each in targets}
    return {name for name in names if "." not in name}  # others are an attribute's own


if __name__ == "__main__":
    print(*static(), sep="\n")  # noqa: T201
    trio.run(ways)
