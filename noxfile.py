"""The checks of this project. Plain `nox` runs those that every change has to pass, in a few minutes; CI runs more.

The Pythons to test on are those of the classifiers in pyproject.toml. One that is not on this machine is
skipped, in CI too; the Python that runs nox is always among those tested.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
ALL_EXTRAS = ".[{}]".format(",".join(PYPROJECT["project"]["optional-dependencies"]))
WORKERS = "2"
GUESTS = ["tests/browser", "tests/javascript", "tests/proxies"]
"""Tests that need programs which pip does not bring; each has a session."""

RUNTIME = [
    *("tests/callbacks", "tests/client", "tests/examples", "tests/integrations", "tests/properties", "tests/recovery"),
    *("tests/server", "tests/telemetry", "tests/transport", "tests/test_hot_path.py", "tests/test_public_api.py"),
]
"""Tests of what meets the versions of Python and of Trio: they run on the Pythons between oldest and newest too."""

WITHOUT_EXTRAS = ["tests/cli", "tests/protocol/test_codecs.py", "tests/protocol/test_codecs_agree.py"]
"""Tests of what is otherwise where an extra is missing."""


def find_interpreter(version: str) -> str | None:
    """Return an interpreter of that version which really runs.

    A version manager may leave a `python3.12` on the PATH that only says that 3.12 is not selected, so each
    candidate is asked, and pyenv's own directory is searched too.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    directories = [*pyenv.glob(f"{version}.*/bin"), *os.environ.get("PATH", "").split(os.pathsep)]
    for directory in directories:
        candidate = shutil.which(f"python{version}", path=str(directory))
        if candidate and version_of(candidate) == version:
            return candidate
    return None


def version_of(interpreter: str) -> str | None:
    """Return what the interpreter says its version is, or None if it does not run."""
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([interpreter, "-c", question], capture_output=True, check=False, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def index_settings() -> dict[str, str]:
    """Return pip's choice of a package index as uv's, which does not read pip's configuration."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, check=False, text=True
    )
    translated = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
    settings = {}
    for line in listing.stdout.splitlines():
        key, _, value = line.partition("=")
        name = translated.get(key.rpartition(".")[2])
        if name and name not in os.environ:
            settings[name] = value.strip("'\"")
    return settings


RUNNING = "{}.{}".format(*sys.version_info[:2])
PYTHONS = nox.project.python_versions(PYPROJECT)
FOUND = {v: sys.executable if v == RUNNING else find_interpreter(v) for v in PYTHONS}
if RUNNING not in PYTHONS:  # newer than the classifiers: better tested than not
    PYTHONS.append(RUNNING)
    FOUND[RUNNING] = sys.executable
OLDEST = next(version for version in PYTHONS if FOUND[version])
NEWEST = next(version for version in reversed(PYTHONS) if FOUND[version])

# At the end of the PATH, so that nox finds them and nothing else changes.
os.environ["PATH"] = os.pathsep.join(
    [os.environ.get("PATH", ""), *(str(Path(found).parent) for found in FOUND.values() if found)]
)
os.environ["UV_PYTHON_DOWNLOADS"] = "never"
os.environ.update(index_settings())

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # its default is True where CI is set


def group(*names: str) -> tuple[str, ...]:
    """Return the requirements of dependency groups (pip learnt `--group` in 25.1 only)."""
    return nox.project.dependency_groups(PYPROJECT, *names)


def existing(*paths: str) -> list[str]:
    """Return those of the paths that exist."""
    return [path for path in paths if (ROOT / path).exists()]


def run_tests(session: nox.Session, *chosen: str, by: tuple[str, ...] = ("pytest",), which: str = "not once") -> None:
    """Run tests that need nothing but Python, and let Hypothesis draw little (see `tests/drawing.py`).

    Parameters:
        chosen: files and folders; by default all.
        by: what runs them.
        which: those with the mark `once`, or the others.
    """
    guests = [f"--ignore={folder}" for folder in GUESTS]
    session.run(
        *by,
        *("-n", WORKERS, "-m", which),
        *guests,
        *(session.posargs or chosen),
        env={"SLIPSTREAM_EXAMPLES": "1" if which == "once" else "0.1"},
    )


@nox.session(python=RUNNING)
def tests(session: nox.Session) -> None:
    """Run the tests with every extra, on the Python that runs nox."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    run_tests(session)


@nox.session(python=[version for version in PYTHONS if version != RUNNING], default=False)
def tests_versions(session: nox.Session) -> None:
    """Run the tests on the other Pythons: all on the oldest and the newest, `RUNTIME` between them."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    run_tests(session, *(() if session.python in {OLDEST, NEWEST} else RUNTIME))


@nox.session(python=OLDEST, default=False)
def tests_once(session: nox.Session) -> None:
    """Run the tests that take their time and do not depend on Python's version, and let the properties draw more."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    run_tests(session, which="once")
    session.run("pytest", "-n", WORKERS, "tests/properties", "tests/protocol", env={"SLIPSTREAM_EXAMPLES": "1"})


@nox.session(python=OLDEST, default=False)
def tests_minimal(session: nox.Session) -> None:
    """Run the tests from a wheel, without extras, on the oldest Python and runtime dependencies."""
    session.install(".", env={"UV_RESOLUTION": "lowest-direct"})
    session.run("python", "-c", "import slipstream_trio")
    session.install(*group("test"))
    run_tests(session, *RUNTIME, *WITHOUT_EXTRAS)


@nox.session(python=OLDEST, default=False)
def thorough(session: nox.Session) -> None:
    """Let Hypothesis draw a hundred times as much as in `tests`; takes an hour. Arguments choose other tests."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    chosen = session.posargs or ["tests/properties", "tests/protocol", "tests/recovery"]
    session.run(
        *("pytest", "-n", WORKERS, "-o", "faulthandler_timeout=7200", *chosen), env={"SLIPSTREAM_EXAMPLES": "100"}
    )


@nox.session(python=OLDEST, default=False)
def everywhere(session: nox.Session) -> None:
    """Cancel, raise and interrupt at every moment of every program in `tests/everywhere`; takes twenty minutes."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    patience = ("-o", "faulthandler_timeout=1800")
    session.run("pytest", "-s", *patience, "tests/everywhere", env={"SLIPSTREAM_EXAMPLES": "10000"})


@nox.session(python=OLDEST, default=False)
def soak(session: nox.Session) -> None:
    """Let 200 clients live on a bad network, in real time and in virtual; takes 15 minutes. Arguments: see --help."""
    session.install("-e", ALL_EXTRAS)
    both = [["--minutes", "10", "--pace", "2"], ["--days", "2", "--pace", "2400"]]
    for arguments in [session.posargs] if session.posargs else both:
        session.run("python", "benchmarks/soak.py", *arguments)


@nox.session(python=OLDEST, default=False)
def benchmarks(session: nox.Session) -> None:
    """Measure this library beside its peers, in half an hour; needs Linux and Node. Arguments: see --help."""
    session.install("-e", ALL_EXTRAS, *group("benchmarks"))
    session.run("python", "-m", "benchmarks.suite", *session.posargs)


@nox.session(python=OLDEST, default=False)
def fuzz(session: nox.Session) -> None:
    """Fuzz the serializers and the core: `-- 600` for ten minutes each instead of one, `-- 60 core` for one of them."""
    session.install("-e", ALL_EXTRAS, *group("test", "fuzz"))
    seconds = next((argument for argument in session.posargs if argument.isdecimal()), "60")
    targets = [argument for argument in session.posargs if not argument.isdecimal()] or ["serializers", "core"]
    for target in targets:
        found = Path(session.create_tmp()) / target
        found.mkdir(exist_ok=True)
        session.run(
            *("python", "-m", "fuzz.run", target, f"-max_total_time={seconds}", "-max_len=1000", "-timeout=20"),
            *(f"-artifact_prefix=fuzz/found-{target}-", "-print_final_stats=1", str(found), f"fuzz/corpus/{target}"),
        )


@nox.session(python=OLDEST, default=False)
def mutation(session: nox.Session) -> None:
    """Test the tests of the protocol with mutants; takes ten minutes. Arguments choose mutants, by name or pattern."""
    session.install("-e", ALL_EXTRAS, *group("test", "mutation"))
    # What was killed is remembered in mutants/, what survived is tested again.
    session.run("mutmut", "run", *session.posargs, env={"SLIPSTREAM_EXAMPLES": "0.1"})
    session.run("mutmut", "results")


@nox.session(python=OLDEST, default=False)
def javascript(session: nox.Session) -> None:
    """Talk to the server for tests with the official JavaScript client; needs Node and npm, and skips without them."""
    session.install("-e", ".[testing]", *group("test"))
    if shutil.which("npm"):
        npm = ("npm", "install", "--prefix", "tests/javascript", "--no-audit", "--no-fund", "--no-package-lock")
        session.run(*npm, external=True)
    session.run("pytest", "-n", WORKERS, "tests/javascript", *session.posargs)


@nox.session(python=OLDEST, default=False)
def proxies(session: nox.Session) -> None:
    """Connect through real proxies: proxy.py, tinyproxy, microsocks and Dante; those that are missing are skipped."""
    session.install("-e", ".[proxy,testing]", "proxy.py>=2.4", *group("test"))
    session.run("pytest", "tests/proxies", *session.posargs)


@nox.session(python=OLDEST, default=False)
def browser(session: nox.Session) -> None:
    """Open the page of `slipstream trace html` in Chromium; skipped where that, or its chromedriver, is missing."""
    session.install("-e", ".", *group("test", "browser"))
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session(python=OLDEST, default=False)
def autobahn(session: nox.Session) -> None:
    """Let Autobahn's fuzzing server test the WebSocket transports; it needs Python 2.7, and is skipped without it."""
    python = find_interpreter("2.7")
    if python is None:
        session.skip("autobahntestsuite runs on Python 2.7 only, which is missing")
    session.install("-e", ".[fast]", "virtualenv<20.22")  # the last that makes environments of 2.7
    environment = Path(session.create_tmp()).resolve() / "autobahn"
    session.run("virtualenv", "-q", "-p", python, str(environment))
    try:
        session.run(str(environment / "bin" / "pip"), "install", "-q", "autobahntestsuite", external=True)
    except nox.command.CommandFailed:
        session.skip("autobahntestsuite could not be installed: it is old, and needs a compiler")
    session.run("python", "tests/autobahn/run.py", str(environment / "bin" / "wstest"), *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", "--diff", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, and that every public name has one."""
    session.install("-e", ALL_EXTRAS, *group("test", "types", "browser"))
    session.run("mypy", *existing("src", "tests", "examples", "fuzz", "conftest.py"))
    session.run(
        *("pyright", "--verifytypes", "slipstream_trio", "--ignoreexternal"),
        env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )


@nox.session
def imports(session: nox.Session) -> None:
    """Check that imports run downward only."""
    session.install("-e", ".", *group("imports"))
    session.run("lint-imports", "--no-cache")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation and run the Python code blocks in it."""
    session.install("-e", ALL_EXTRAS, *group("test", "docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-E", "docs", "docs/_build")
    session.run("pytest", "docs", "README.md")


@nox.session(python=OLDEST, default=False)
def coverage(session: nox.Session) -> None:
    """Run the tests, measure what they cover, in subprocesses too, and fail under the limit."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    for stale in ROOT.glob(".coverage.*"):
        stale.unlink()
    run_tests(session, by=("coverage", "run", "-m", "pytest"))
    session.run("coverage", "combine")
    session.run("coverage", "report")
