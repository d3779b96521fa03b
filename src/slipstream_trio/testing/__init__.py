"""Tools for tests of a client: servers, replays, strategies, machines, deterministic ids. The extra `testing`."""

from .deterministic import SequentialIds, SteppingClock, deterministic_telemetry
from .replayed import ReplayDifference, Replayed, replayed

__all__ = [
    "ReplayDifference", "Replayed", "SequentialIds", "SteppingClock", "deterministic_telemetry", "replayed",
]  # fmt: skip
