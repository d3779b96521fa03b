"""Tools for tests of a client: servers, strategies, machines, deterministic ids and clock. The extra `testing`."""

from .deterministic import SequentialIds, SteppingClock, deterministic_telemetry

__all__ = ["SequentialIds", "SteppingClock", "deterministic_telemetry"]
