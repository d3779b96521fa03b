"""The lines of recordings (see `tests.transcripts`), as frames."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import frozen
from tests.transcripts import TRANSCRIPTS, read_lines

from slipstream_trio.protocol import Frame

PATHS = sorted(TRANSCRIPTS.glob("*/*.jsonl"))
NAMES = [f"{path.parent.name}/{path.stem}" for path in PATHS]

TAILS = ['"}]', '"},"status":"ok"}]']
"""How a text ends whose middle was cut out; it was filled with one character."""


@frozen
class Record:
    """One line of a recording."""

    dir: str
    connection: str
    seconds: float
    data: dict[str, Any]

    @property
    def frame(self) -> Frame:
        """The frame that was sent or received."""
        if "text" in self.data:
            return str(self.data["text"])
        if "b64" in self.data:
            return base64.b64decode(self.data["b64"])
        return self._refilled()

    def _refilled(self) -> Frame:
        """The frame whose middle the recording left out, as its hash proves."""
        length: int = self.data["len"]
        if "text_head" in self.data:
            head: str = self.data["text_head"]
            texts = (head + head[-1] * (length - len(head) - len(tail)) + tail for tail in TAILS)
            return next(text for text in texts if self._is_it(text))
        start: bytes = base64.b64decode(self.data["b64_head"])
        sizes = (length // 4 * 3 - padding for padding in range(3))
        datas = (start + start[-1:] * (size - len(start)) for size in sizes)
        return next(data for data in datas if self._is_it(base64.b64encode(data).decode()))

    def _is_it(self, text: str) -> bool:
        return hashlib.sha256(text.encode()).hexdigest() == str(self.data["sha256"])

    @property
    def vsn(self) -> str:
        """The version of the protocol that the URL asked for; without one, Phoenix takes 1.0.0."""
        (vsn,) = parse_qs(urlsplit(str(self.data["url"])).query).get("vsn", ["1.0.0"])
        return vsn


def read(name: str) -> Iterator[Record]:
    """Yield the lines of a recording."""
    for data in read_lines(TRANSCRIPTS / f"{name}.jsonl"):
        yield Record(data["dir"], data.get("conn", ""), data["t_ms"] / 1000, data)
