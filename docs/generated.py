"""The parts of the docs that come from the code's own tables.

`conf.py` puts them where a page says `<!-- generated: … -->`.

`python docs/generated.py events` prints one of them, and `python docs/generated.py` the names of all.
"""

import inspect
import pkgutil
import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_args
from unittest.mock import MagicMock

import attrs

sys.path.insert(0, str(Path(__file__).parent.parent))

from docs import diagrams

from slipstream_trio.cli.main import _parser
from slipstream_trio.telemetry import records
from slipstream_trio.telemetry.base import End, EndOfConnection

PUBLIC: Final = (
    *("slipstream_trio", "slipstream_trio.telemetry", "slipstream_trio.protocol", "slipstream_trio.trace"),
    *("slipstream_trio.testing", "slipstream_trio.testing.*", "slipstream_trio.integrations.*"),
    *("slipstream_trio.trace.selection", "slipstream_trio.trace.view", "slipstream_trio.trace.stats"),
    *("slipstream_trio.trace.page", "slipstream_trio.trace.diagnosis"),
    *("slipstream_trio.trace.export_perfetto", "slipstream_trio.trace.export_otlp"),
    *("slipstream_trio.trace.export_parquet", "slipstream_trio.ids", "slipstream_trio.transport"),
    *("slipstream_trio.transport.trio_websocket", "slipstream_trio.transport.websockets"),
)
"""The modules that users import; their `__all__` is the interface. `*` stands for all that a package has."""

INNER: Final = {
    *("slipstream_trio.testing.deterministic", "slipstream_trio.testing.recorded", "slipstream_trio.testing.replayed"),
    *("slipstream_trio.integrations.measures",),
}
"""Modules within those packages whose public names their package has, or that are not for users."""


def modules(pattern: str) -> Iterator[ModuleType]:
    """Yield the modules that an entry of `PUBLIC` stands for."""
    if not pattern.endswith(".*"):
        yield import_module(pattern)
        return
    package = import_module(pattern.removesuffix(".*"))
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.name not in INNER:
            yield import_module(found.name)


def public_names() -> list[str]:
    """Return the full name of everything that is public."""
    return [f"{module.__name__}.{name}" for pattern in PUBLIC for module in modules(pattern) for name in module.__all__]


def first_home(name: str) -> str:
    """Return the public name under which a thing is described: a name that is exported twice is described once."""
    thing = named(name)
    if inspect.ismodule(thing):
        return str(thing.__name__)
    homes = (other for other in public_names() if named(other) is thing)
    return next(homes) if describable(thing) else name


def named(name: str) -> Any:
    """Return the thing of a full name."""
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def describable(thing: Any) -> bool:
    """Tell whether a thing has an identity, which strings and type aliases lack."""
    return inspect.isclass(thing) or inspect.isroutine(thing)


# Modules


def public(*patterns: str) -> str:
    """Describe all public names of modules."""
    return "\n\n".join(described(module) for pattern in patterns for module in modules(pattern))


def described(module: ModuleType) -> str:
    """Describe the public names of a module, by autodoc."""
    lines = [f"## {module.__name__}", "", "```{eval-rst}", f".. automodule:: {module.__name__}", ""]
    for name in (f"{module.__name__}.{name}" for name in module.__all__):
        thing, home = named(name), first_home(name)
        if home != name or inspect.ismodule(thing):
            lines += [f"- ``{name.rpartition('.')[2]}``: :py:{role(thing)}:`{home}`", ""]
        elif inspect.isclass(thing):
            lines += [f".. autoclass:: {name}", "   :members:", ""]
        elif inspect.isroutine(thing):
            lines += [f".. autofunction:: {name}", ""]
        else:
            short = name.rpartition(".")[2]
            lines += [
                f".. py:data:: {short}",
                f"   :module: {module.__name__}",
                "",
                *(f"   {line}" for line in told_of(name)),
                "",
            ]
    return "\n".join([*lines, "```"])


def told_of(name: str) -> list[str]:
    """Return the docstring of a constant or a type alias, with its value, from the module that defines it."""
    from sphinx.pycode import ModuleAnalyzer  # which tests do without

    _, _, short = name.rpartition(".")
    thing = named(name)
    homes = [other for key, other in sys.modules.items() if key.startswith("slipstream_trio")]
    for home in homes:
        if vars(home).get(short) is thing:
            found = ModuleAnalyzer.for_module(home.__name__).find_attr_docs().get(("", short))
            if found:
                value = ["", f"``{short_value(thing)}``"] if short_value(thing) not in {"", short} else []
                return [*map(marked, found), *value]
    return [f"``{short_value(thing)}``"]


def short_value(thing: Any) -> str:
    """Return a value of a few words as text, else nothing."""
    text = re.sub(r"\b(?:typing|slipstream_trio)\.(?:\w+\.)*", "", inspect.formatannotation(thing))
    return text if len(text) < 120 and "object at" not in text else ""


def marked(line: str) -> str:
    """Return a line of a docstring with reST's code spans."""
    return re.sub(r"`([^`]+)`", r"``\1``", line)


def role(thing: Any) -> str:
    """Return Sphinx's role for references to a thing."""
    return "mod" if inspect.ismodule(thing) else "class" if inspect.isclass(thing) else "func"


# Telemetry


def sample(kind: type) -> Any:
    """Return a record of a class, of which only the names of its keys are looked at."""
    values: dict[str, Any] = {field.alias: MagicMock() for field in attrs.fields(kind)}
    values |= {name: 0 for name in ("system_time", "monotonic_time") if name in values}
    if "start" in values:
        values["start"] = sample(start_of(kind))
    return kind(**values)


def start_of(kind: type) -> type:
    """Return the class of the start that belongs to the end of a span."""
    [base] = [base for base in kind.__orig_bases__ if getattr(base, "__origin__", None) in (End, EndOfConnection)]  # type: ignore[attr-defined]
    [start] = get_args(base)
    return records.ClientConnectStart if start is records.SpanStart else start


def kinds() -> dict[str, type]:
    """Return the class of each event's records, by the event's name, with one for the callbacks of a client."""
    found: dict[str, type] = {}
    for kind in vars(records).values():
        if inspect.isclass(kind) and attrs.has(kind) and "name" in vars(kind) and kind is not records.SpanException:
            own = vars(kind)["name"]
            name = own if isinstance(own, tuple) else ("slipstream", "client", "<callback>", end_of(kind))
            found[" ".join(name)] = kind
    return found


def end_of(kind: type) -> str:
    """Return the last word of the names of a callback's events."""
    return kind.__name__.removeprefix("ClientCallback").lower()


def own_keys(kind: type) -> list[str]:
    """Return the keys of metadata that are an event's own; a stop has its start's too."""
    return list(sample(kind).details())


def first_sentence(thing: Any) -> str:
    """Return the first sentence of a docstring, on one line."""
    text = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
    return text.replace("|", "\\|")


def events() -> str:
    """Return the table of all events: measurements, metadata, the class of the records."""
    rows = ["| event | when | metadata of its own | record |", "|---|---|---|---|"]
    for name, kind in sorted(kinds().items()):
        keys = ", ".join(f"`{key}`" for key in own_keys(kind))
        rows.append(f"| `{name}` | {first_sentence(kind)} | {keys} | {reference(kind)} |")
    raised = ", ".join(f"`{key}`" for key in meanings(records.SpanException))
    rows.append(f"| `… exception` | Code raised in a span: its end. | {raised} | {reference(records.SpanException)} |")
    return "\n".join(rows)


def reference(kind: type) -> str:
    """Return a link to the description of a class of records."""
    return f"{{py:class}}`~slipstream_trio.telemetry.{kind.__name__}`"


def meanings(kind: type) -> dict[str, str]:
    """Return what a docstring's "Attributes:" say, by name."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


KEYS: Final = {
    "arguments": "the arguments of the callback",
    "attempt": "1 for the first attempt since it last went well",
    "built_events": "the events for the socket, as objects",
    "callback": "the name of the callback",
    "client": "the name of the client's class",
    "code": "the close code; None if the connection never opened",
    "configuration": "the options of `connect`, without secrets",
    "delay": "seconds until the next attempt",
    "direction": "`in` from the server, `out` to it",
    "dropped": "how many messages were dropped",
    "end_state": "the state after the input",
    "event": "the message's event; of `handle`, the built events as plain data; of a failed handler, the event's name",
    "frame": "the first 256 characters or bytes of a malformed frame",
    "handler_id": "the id with which it was attached",
    "message": "of `handle`, the decoded message, or the input; of the connection's end, the close frame's text",
    "outcome": "how the operation ended",
    "params": "the payload",
    "raw_message": "the input: a frame, a command, a tick, the beginning or end of the transport",
    "reason": "why; None where the operation succeeded",
    "ref": "the ref of the message; None if it never got one",
    "response": "the server's answer",
    "response_headers": "the headers of the upgrade's response",
    "return": "of `handle`, the effects (frames to send, a close); of a callback, its result",
    "seconds": "how much too late the timer woke",
    "sent": "whether the push may have reached the server",
    "since": "from when on messages may be missing (UTC)",
    "stacktrace": "the formatted traceback",
    "state": "the connection's state, before the input",
    "status": "of a reply, the reply's status; of an upgrade, the HTTP status",
    "topic": "the topic",
    "until": "until when messages may be missing (UTC)",
    "waited": "the nanoseconds of the duration that had passed when the frame was queued",
}
"""What the keys mean that several events have, or that their class does not tell."""


def keys() -> str:
    """Return the table of all keys of metadata that are an event's own: types, meaning, and which events have them."""
    of: dict[str, list[str]] = {}
    told: dict[str, list[str]] = {}
    types: dict[str, list[str]] = {}
    for name, kind in [*sorted(kinds().items()), ("any exception", records.SpanException)]:
        details = meanings(kind) if kind is records.SpanException else own_keys(kind)
        for key in details:
            of.setdefault(key, []).append(f"`{name.removeprefix('slipstream ')}`")
            told.setdefault(key, []).append(meanings(kind).get(key, ""))
            types.setdefault(key, []).append(type_of(kind, key))
    lines = ["| key | meaning | type | events |", "|---|---|---|---|"]
    for key, events_of_it in sorted(of.items()):
        meaning = KEYS.get(key) or next(filter(None, told[key]), "")
        shown = " or ".join(dict.fromkeys(filter(None, types[key])))
        lines.append(f"| `{key}` | {meaning.rstrip('.')} | {shown} | {', '.join(events_of_it)} |")
    return "\n".join(lines)


def type_of(kind: type, key: str) -> str:
    """Return the annotation of a key as text."""
    annotations = inspect.get_annotations(kind)
    found = annotations.get(key, annotations.get(f"{key}_"))
    text = inspect.formatannotation(found) if found is not None else ""
    text = re.sub(r"\b(?:slipstream_trio|typing|datetime)\.(?:\w+\.)*", "", text).replace("|", "\\|")
    return f"`{text}`" if text else ""


# The command line


def commands() -> str:
    """Describe every command of `slipstream`, with its options, as argparse knows them."""
    return "\n\n".join(described_command(parser) for parser in parsers(_parser(None)))


def parsers(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    """Yield a parser, and those of its commands, in order."""
    yield parser
    for action in parser._actions:  # noqa: SLF001 - argparse gives no other way to them
        if isinstance(action.choices, dict):
            for inner in action.choices.values():
                yield from parsers(inner)


def described_command(parser: ArgumentParser) -> str:
    """Describe a command."""
    parts = [f"## {parser.prog}", (parser.description or "").strip()]
    options = [action for action in parser._actions if action.help != SUPPRESS and action.dest != "help"]  # noqa: SLF001
    if options:
        parts.append("\n".join(["| option | |", "|---|---|", *map(row_of, options)]))
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog}\n```")
    return "\n\n".join(parts)


def row_of(action: Action) -> str:
    """Return the row of an option, or of an argument."""
    value = action.metavar or (action.dest.upper() if action.nargs != 0 and action.option_strings else "")
    if isinstance(action.choices, Sequence | frozenset | set) and not action.metavar:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    names = ", ".join(action.option_strings) or action.dest
    text = f"{names} {value}".strip() if action.option_strings else str(value or names)
    described = (action.help or "").replace("|", "\\|").replace("%(default)s", str(action.default)).replace("%%", "%")
    return f"| `{text}` | {described} |"


PARTS: Final = {
    "public": public,
    "events": events,
    "keys": keys,
    "commands": commands,
    **diagrams.DIAGRAMS,
}

MARK: Final = re.compile(r"^<!-- generated: ([\w-]+)((?: [\w.*]+)*) -->$", re.MULTILINE)


def filled(text: str) -> str:
    """Return the text of a page with its generated parts in it."""
    return MARK.sub(lambda found: PARTS[found[1]](*found[2].split()), text)


if __name__ == "__main__":
    chosen, *arguments = sys.argv[1:] or ["--names"]
    sys.stdout.write(("\n".join(PARTS) if chosen == "--names" else PARTS[chosen](*arguments)) + "\n")
