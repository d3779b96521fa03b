"""Traces: what the records of connections say when they are put together; recorded, read, verified."""

from .read import Progress, RecordingWarning, read, read_entries
from .record import Recording, record
from .schema import Damage, End, Entry, Header, Missing, Recorded
from .values import Unencodable
from .verify import Verifier, Violation, verify

__all__ = [
    "Damage",
    "End",
    "Entry",
    "Header",
    "Missing",
    "Progress",
    "Recorded",
    "Recording",
    "RecordingWarning",
    "Unencodable",
    "Verifier",
    "Violation",
    "read",
    "read_entries",
    "record",
    "verify",
]
