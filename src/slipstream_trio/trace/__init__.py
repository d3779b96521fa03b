"""Traces: the records of connections put together; recorded, read, verified."""

from ..telemetry.secrecy import SECRETS
from .check import Checker, Flaw, check
from .diagnosis import Finding, diagnose
from .flight import FlightRecorder, ended_badly, flight_recorder
from .read import Progress, RecordingWarning, files_of, follow, read, read_entries, read_header
from .recorder import Recording, record
from .redact import Redacted
from .replay import Absent, Difference, Divergence, Replayer, ReplayStep, differences, replay
from .schema import Damage, End, Entry, Header, Missing, Recorded
from .values import Unencodable
from .verify import MEANINGS, Verifier, Violation, verify

__all__ = [
    "MEANINGS", "SECRETS", "Absent", "Checker", "Damage", "Difference", "Divergence", "End", "Entry", "Finding",
    "Flaw", "FlightRecorder", "Header", "Missing", "Progress", "Recorded", "Recording", "RecordingWarning",
    "Redacted", "ReplayStep", "Replayer", "Unencodable", "Verifier", "Violation", "check", "diagnose", "differences",
    "ended_badly", "files_of", "flight_recorder", "follow", "read", "read_entries", "read_header", "record", "replay",
    "verify",
]  # fmt: skip
