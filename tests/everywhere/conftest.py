"""What every test of programs that are struck needs."""

import logging
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Let SIGINT interrupt, also where the tests run in the background of a shell, which makes it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let nothing be logged: pytest keeps what is, with its tracebacks, and so all that there was in each run."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
