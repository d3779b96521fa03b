"""The command `slipstream`; its prompt and `bench` need the extra `cli`."""

from .main import main

__all__ = ["main"]
