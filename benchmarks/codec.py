"""What the codecs add to the decoders beneath them: run `python benchmarks/codec.py`. Needs the extra `fast`.

For each kind of text: the time of the bare decoder, which checks nothing; that of the codec, and how much more it is;
and that of the check of depth alone, which msgspec's codec makes of deep texts only. Medians of CPU time; the decoders
take turns. Compare ratios, not figures: machines are shared and noisy.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec

from slipstream_trio.protocol import Message, MsgspecCodec, StdlibCodec
from slipstream_trio.protocol.codec import check_depth

ROW = {"id": 123, "name": "Ada Lovelace", "tags": ["a", "b"], "at": 17.5, "ok": True}
RING = [[12.34567 + number / 1000, 51.234 + number] for number in range(30)]
FEATURE = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [RING]}, "properties": {"n": 1}}
EMPTY: list[Any] = []


def texts() -> dict[str, str]:
    """Return messages by what their payloads are."""
    payloads: dict[str, Any] = {
        "rows, 1 KiB": [ROW] * 12,
        "rows, 64 KiB": [ROW] * 800,
        "GeoJSON, 1 MiB": {"type": "FeatureCollection", "features": [FEATURE] * 1100},
        "brackets in strings": ['[{]}" [[[ ' * 20] * 300,
        "escapes in strings": ['"\\\n' * 1000] * 100,
        "[],[],…, 1 MiB": [EMPTY] * 350_000,
    }
    found = {kind: message_text(json.dumps(payload, separators=(",", ":"))) for kind, payload in payloads.items()}
    branch = '{"a":[1,"[",' * 20 + "0" + "]}" * 20
    return {**found, "40 levels, 64 KiB": message_text(f"[{','.join([branch] * 220)}]")}


def message_text(payload: str) -> str:
    """Return a broadcast as it is on the wire."""
    return f'[null,null,"room:lobby","tick",{payload}]'


def measure(functions: list[Callable[[str], object]], text: str, runs: int) -> list[float]:
    """Return the median of each function's time in microseconds; they take turns, so that a busy moment hits all."""
    calls = max(1, 200_000 // len(text))
    took: list[list[float]] = [[] for _ in functions]
    for _ in range(runs):
        for function, times in zip(functions, took, strict=True):
            start = time.process_time()
            for _ in range(calls):
                function(text)
            times.append((time.process_time() - start) / calls * 1e6)
    return [statistics.median(times) for times in took]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=21, help="runs of each (default 21)")
    arguments = parser.parse_args()
    gc.disable()  # when it runs is chance, and what it costs is as much as the rest
    bare: list[Any] = [msgspec.json.Decoder(Message).decode, json.JSONDecoder().decode]
    functions = [
        bare[0],
        MsgspecCodec().decode_message,
        bare[1],
        StdlibCodec().decode_message,
        check_depth,
    ]
    print(f"{'µs a message':22}{'msgspec':>10}{'codec':>10}{'':8}{'json':>10}{'codec':>10}{'':8}{'check':>10}")  # noqa: T201
    for kind, text in texts().items():
        msgspec_, fast, json_, slow, check = measure(functions, text, arguments.runs)
        more = (f"{codec / decoder - 1:+8.1%}" for codec, decoder in ((fast, msgspec_), (slow, json_)))
        print(  # noqa: T201
            f"{kind:22}{msgspec_:10.1f}{fast:10.1f}{next(more)}{json_:10.1f}{slow:10.1f}{next(more)}{check:10.1f}"
        )


if __name__ == "__main__":
    main()
