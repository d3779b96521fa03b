"""Traces: what the records of connections say when they are put together; recorded, read, verified."""

from .check import MEANINGS, Checker, Finding, check
from .read import Progress, RecordingWarning, files_of, read, read_entries, read_header
from .record import Recording, record
from .redact import SECRETS, Redacted
from .schema import Damage, End, Entry, Header, Missing, Recorded
from .values import Unencodable
from .verify import Verifier, Violation, verify

__all__ = [
    "MEANINGS",
    "SECRETS",
    "Checker",
    "Damage",
    "End",
    "Entry",
    "Finding",
    "Header",
    "Missing",
    "Progress",
    "Recorded",
    "Recording",
    "RecordingWarning",
    "Redacted",
    "Unencodable",
    "Verifier",
    "Violation",
    "check",
    "files_of",
    "read",
    "read_entries",
    "read_header",
    "record",
    "verify",
]
