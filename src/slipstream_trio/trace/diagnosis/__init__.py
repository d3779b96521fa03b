"""Diagnosis: from the records of connections to the causes of what went wrong on them."""

from .finding import Blame, Finding, Gravity
from .table import CHECKED, Diagnosis, diagnose

__all__ = ["CHECKED", "Blame", "Diagnosis", "Finding", "Gravity", "diagnose"]
