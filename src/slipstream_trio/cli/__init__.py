"""The command `slipstream`; it needs the extra `cli`."""

from .main import main

__all__ = ["main"]
