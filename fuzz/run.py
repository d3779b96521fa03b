"""Runs a fuzzer: `python -m fuzz.run serializers -max_total_time=60 fuzz/corpus/serializers`.

The first argument is the target, the others are libFuzzer's: https://llvm.org/docs/LibFuzzer.html#options. New inputs
go into the first folder that is named. It needs atheris.
"""

import sys

import atheris

with atheris.instrument_imports(include=["slipstream_trio.protocol"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until something is found, or the time is over."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"name a target: one of {', '.join(TARGETS)}; not {name!r}")
    # With -merge and -fork, libFuzzer runs itself again, in a shell, by what it takes for its own path.
    itself = f"{sys.executable} -m fuzz.run {name}"
    atheris.Setup([itself, *sys.argv[1:]], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
