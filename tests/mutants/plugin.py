"""A plugin of pytest that tests the tests: it makes each mistake of `mistakes`, and tells of those that no test finds.

`nox -s client_mutation` runs it.

All tests are collected once. A first process for each core runs them, to see which lines each comes past. Then each
mistake is made in a process of its own, forked from here, in which the code of the living function is replaced. The
tests that come past its line are run until one fails: those that found other mistakes in this function first, then
those that have most words in common with it, for `SECONDS_AT_FIRST`. A mistake that is left is looked up among those
that were argued to change nothing, in `EQUIVALENT_MUTANTS.md`; for another one all tests are run.

What runs while a module is imported, such as a decorator, is out of its reach.
"""

import gc
import math
import os
import pickle
import random
import re
import resource
import signal
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial
from inspect import getsource, unwrap
from pathlib import Path
from types import CodeType, FunctionType
from typing import Final

import coverage
import pytest
import trio
from attrs import define, field
from tests.mutants.mistakes import CLIENT, Mistake, argued, find

WORKERS: Final = 2
SECONDS_AT_FIRST: Final = 7.0
FINDERS: Final = 12
"""The number of tests that found other mistakes of the function, and are run first."""

MEMORY: Final = 6 * 2**30
"""Bytes that a process with a mistake may take."""

NOT_MADE: Final = 3
"""The exit status of a process that could not make its mistake, as that would change the function's free variables."""

Item = pytest.Item


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "functions of the client, such as 'join.*', or one mistake, as it is printed"
    parser.addoption("--mutants", action="append", metavar="WHICH", help=told)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    wanted = session.config.option.mutants
    if not wanted:
        return None
    found = [each for path in sorted(CLIENT.rglob("*.py")) for each in find(path) if _is_wanted(each, wanted)]
    random.Random(0).shuffle(found)  # so that the speed is the same all the time
    tests = Tests(session)
    survivors = Mutants(tests, found, argued()).run()
    for mistake in sorted(survivors, key=lambda mistake: (mistake.path, mistake.line)):
        tests.tell(f"- {mistake}")
    session.testsfailed = len(survivors)
    return True


def _is_wanted(mistake: Mistake, wanted: Sequence[str]) -> bool:
    return any(str(mistake) == each or fnmatch(mistake.place, each) for each in wanted)


class Failures:
    """Sees whether a test has failed."""

    def __init__(self) -> None:
        self.any = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.any = self.any or report.failed


class Tests:
    """The tests that were collected, what each takes, and the lines that it comes past."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._failures = Failures()
        session.config.pluginmanager.register(self._failures)
        self.seconds: dict[Item, float] = {}
        self._passing: dict[tuple[str, int], list[Item]] = defaultdict(list)
        self._words = {item: _words(item.nodeid, item.nodeid, _source(item)) for item in session.items}
        number = Counter(word for words in self._words.values() for word in words)
        self._rarity = {word: math.log(len(self._words) / count) ** 2 for word, count in number.items()}
        self._measure()

    def tell(self, line: str) -> None:
        """Print a line."""
        writer = self._session.config.get_terminal_writer()
        writer.line(line)
        writer.flush()

    def fails(self, item: Item) -> bool:
        """Run a test, and tell whether it fails."""
        self._failures.any = False
        self._session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return self._failures.any

    def passing(self, mistake: Mistake) -> list[Item]:
        """Return the tests that come past a mistake, those first that have most rare words in common with it."""
        wanted = _words(mistake.function, mistake.function, mistake.text, mistake.text, mistake.near)

        def likeness(item: Item) -> float:
            words = self._words[item]
            shared = sum(min(wanted[word], words[word], 4) * self._rarity[word] for word in wanted if word in words)
            return shared / math.sqrt(20 + words.total())

        # A line in the middle of a statement may not count as one that is run.
        lines = ((str(mistake.path), line) for line in range(mistake.line, mistake.first, -1))
        return sorted(next(filter(None, map(self._passing.get, lines)), ()), key=likeness, reverse=True)

    def _measure(self) -> None:
        """Run all tests, in several processes, to see what they come past; those that fail are left out."""
        items = self._session.items
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, str(number)) for number in range(WORKERS)]
            pids = [
                _fork(partial(self._measure_some, items[number::WORKERS], file)) for number, file in enumerate(files)
            ]
            for pid in pids:
                os.waitpid(pid, 0)
            by_id = {item.nodeid: item for item in items}
            for file in files:
                seconds, lines = pickle.loads(file.read_bytes())
                self.seconds |= {by_id[each]: taken for each, taken in seconds.items()}
                for line, ids in lines.items():
                    self._passing[line] += [by_id[each] for each in ids if each in seconds]

    def _measure_some(self, items: Sequence[Item], file: Path) -> int:
        measured = coverage.Coverage(data_file=None, include=[f"{CLIENT}/*"], config_file=False)
        seconds = {}
        measured.start()
        for item in items:
            measured.switch_context(item.nodeid)
            began = time.perf_counter()
            if not self.fails(item):
                seconds[item.nodeid] = time.perf_counter() - began
        measured.stop()
        data = measured.get_data()
        by_line = {path: data.contexts_by_lineno(path) for path in data.measured_files()}
        lines = {(path, line): ids for path, contexts in by_line.items() for line, ids in contexts.items()}
        file.write_bytes(pickle.dumps((seconds, lines)))
        return 0


@define(eq=False)
class Attempt:
    """A mistake that is made, and the tests that are run with it."""

    mistake: Mistake
    tests: list[Item] = field(factory=list)
    run_before: frozenset[Item] = frozenset()


class Mutants:
    """The mistakes that are to be made, and what has come of the others."""

    def __init__(self, tests: Tests, mistakes: Sequence[Mistake], argued: Container[str]) -> None:
        self._tests = tests
        self._argued = argued
        self._todo = deque(Attempt(mistake) for mistake in mistakes)
        self._running: dict[int, tuple[Attempt, int]] = {}  # by process, with the pipe that counts the tests begun
        self._found_by: dict[tuple[Path, str], dict[Item, None]] = defaultdict(dict)  # by function; the latest is last
        self._counts = Counter[str]()
        self._survivors: list[Mistake] = []
        self._tell = tests.tell

    def run(self) -> list[Mistake]:
        """Make all mistakes; return those that no test finds and nobody has argued, or that cannot be made."""
        living = _living_functions()
        gc.freeze()  # what is here is not looked at in each process, and so not copied
        while self._todo or self._running:
            while self._todo and len(self._running) < WORKERS:
                self._start(self._todo.popleft(), living)
            pid, status = os.wait()
            attempt, begun = self._running.pop(pid)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # what its tests have left
            with os.fdopen(begun, "rb") as pipe:
                self._ended(attempt, os.waitstatus_to_exitcode(status), len(pipe.read()))
        self._tell(", ".join(f"{number} {result}" for result, number in self._counts.items()))
        return self._survivors

    def _start(self, attempt: Attempt, living: "Living") -> None:
        attempt.tests = self._choose(attempt)
        begun, begins = os.pipe()
        pid = _fork(partial(self._try, attempt, living, begins))
        os.close(begins)
        self._running[pid] = attempt, begun

    def _choose(self, attempt: Attempt) -> list[Item]:
        """Return the tests to run: at first for some seconds, then all that are left."""
        mistake, seconds = attempt.mistake, self._tests.seconds
        tests = self._tests.passing(mistake)
        if attempt.run_before:
            return [test for test in tests if test not in attempt.run_before]
        finders = [test for test in reversed(self._found_by[mistake.path, mistake.function]) if test in tests]
        left, chosen = SECONDS_AT_FIRST, []
        for test in dict.fromkeys([*finders[:FINDERS], *tests]):
            if seconds[test] <= left:
                left -= seconds[test]
                chosen.append(test)
        return chosen

    def _ended(self, attempt: Attempt, status: int, begun: int) -> None:
        mistake = attempt.mistake
        if str(mistake) in self._argued and status in (0, NOT_MADE):
            result = "argued"
        elif status == NOT_MADE:
            result = "not made"
            self._survivors.append(mistake)
        elif status:
            result = "found" if status > 0 else "found, as a test took too long"
            finders = self._found_by[mistake.path, mistake.function]
            finder = attempt.tests[begun - 1]
            finders.pop(finder, None)
            finders[finder] = None
        elif not attempt.run_before and len(attempt.tests) < len(self._tests.passing(mistake)):
            attempt.run_before = frozenset(attempt.tests)
            self._todo.append(attempt)
            return
        else:
            result = "not found"
            self._survivors.append(mistake)
        self._counts[result] += 1
        if not self._counts.total() % 100:
            self._tell(f"{self._counts.total()} made, {len(self._todo)} left")

    def _try(self, attempt: Attempt, living: "Living", begins: int) -> int:
        """Make a mistake, and run tests until one fails; returns the exit status."""
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if not _make(attempt.mistake, living):
            return NOT_MADE
        for test in attempt.tests:
            os.write(begins, b".")
            signal.setitimer(signal.ITIMER_REAL, 4 + 5 * self._tests.seconds[test])
            failed = self._tests.fails(test)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if failed:
                return 1
        return 0


Living = dict[tuple[str, str, int], list[FunctionType]]
"""Functions by path, qualified name and first line; several if one is defined anew for each call."""


def _living_functions() -> Living:
    living: Living = defaultdict(list)
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename.startswith(f"{CLIENT}/"):
            code = each.__code__
            living[code.co_filename, code.co_qualname, code.co_firstlineno].append(each)
    return living


def _make(mistake: Mistake, living: Living) -> bool:
    """Make a mistake in a living function; tells whether that is possible."""
    code = _code_in(mistake.made(), mistake)
    functions = living[str(mistake.path), mistake.function, mistake.first]
    for function in functions:
        if code is None or code.co_freevars != function.__code__.co_freevars:
            return False
        function.__code__ = code
        if mistake.protected:
            trio.lowlevel.enable_ki_protection(function)  # Trio knows it by its code
    return bool(functions)


def _code_in(code: CodeType, mistake: Mistake) -> CodeType | None:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if (each.co_qualname, each.co_firstlineno) == (mistake.function, mistake.first):
                return each
            if (inner := _code_in(each, mistake)) is not None:
                return inner
    return None


def _fork(work: Callable[[], int]) -> int:
    """Do some work, which returns an exit status, in a process of its own, which is silent; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    status = NOT_MADE
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        status = work()
    finally:
        os._exit(status)


def _source(item: Item) -> str:
    function = unwrap(getattr(item, "function", _source))
    return getsource(function)


def _words(*texts: str) -> Counter[str]:
    return Counter(word for text in texts for word in re.findall("[a-z]{3,}", text.lower()))
