"""The checks of this project. Plain `nox` runs those that every change has to pass, in a few minutes; CI runs more.

Sessions run on the Python that runs nox, or on those of `PYTHONS` that are found on the PATH. The others are skipped.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nox


def index_settings() -> dict[str, str]:
    """Return pip's choice of a package index as uv's, which does not read pip's configuration."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, check=False, text=True
    )
    names = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
    lines = [line.partition("=") for line in listing.stdout.splitlines()]
    settings = {names.get(key.rpartition(".")[2], ""): value.strip("'\"") for key, _, value in lines}
    return {name: value for name, value in settings.items() if name and name not in os.environ}


nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # its default is True where CI is set
os.environ.update({"UV_PYTHON_DOWNLOADS": "never", **index_settings()})

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
ALL_EXTRAS = ".[{}]".format(",".join(PYPROJECT["project"]["optional-dependencies"]))
WORKERS = "2"
GUESTS = ["tests/browser", "tests/javascript", "tests/proxies"]
"""Tests that need programs which pip does not bring; each has a session."""

TESTED = nox.project.python_versions(PYPROJECT)
"""The Pythons of the classifiers: those on which the tests passed before a release."""

RUNNING = "{}.{}".format(*sys.version_info[:2])

PYTHONS = [*TESTED, "3.14", "3.15"]
OLDEST, NEWEST = TESTED[0], TESTED[-1]

RUNTIME = [
    *("tests/callbacks", "tests/client", "tests/examples", "tests/integrations", "tests/properties", "tests/recovery"),
    *("tests/server", "tests/telemetry", "tests/transport", "tests/test_hot_path.py", "tests/test_public_api.py"),
]
"""Tests of what meets the versions of Python and of Trio: they run on the Pythons between oldest and newest too."""

CORE = [
    *("tests/protocol/test_core_joins.py", "tests/protocol/test_core_replies.py", "tests/protocol/test_serializers.py"),
    *("tests/client/test_joins.py", "tests/client/test_pushes.py", "tests/client/test_streams.py"),
    *("tests/callbacks/test_calls.py", "tests/recovery/test_reconnect.py", "tests/transport/test_handshakes.py"),
    *("tests/telemetry/test_bus.py", "tests/trace/test_record.py", "tests/trace/test_verify.py"),
    *("tests/testing/test_kit_conversations.py", "tests/test_public_api.py"),
]
"""A few tests of everything."""

WITHOUT_EXTRAS = ["tests/cli", "tests/protocol/test_codecs.py", "tests/protocol/test_codecs_agree.py"]
"""Tests of what is otherwise where an extra is missing."""

ALONE = {
    "fast": ("transport.websockets", ["tests/protocol/test_codecs_agree.py", "tests/transport/test_fast.py"]),
    "proxy": ("transport.proxy", ["tests/transport/test_proxies.py"]),
    "cli": ("cli.demo_command", ["tests/cli/test_demo.py", "tests/cli/test_demo_url.py"]),
    "testing": ("testing.strategies", ["tests/testing/test_kit_joins.py", "tests/testing/test_plugin.py"]),
    "longpoll": (
        "transport.longpoll",
        [
            "tests/transport/test_longpoll.py",
            "tests/transport/test_longpoll_posts.py",
            "tests/client/test_longpoll_fallback.py",
        ],
    ),
    "opentelemetry": (
        "integrations.opentelemetry",
        ["tests/integrations/test_lazy.py", "tests/integrations/test_labels.py"],
    ),
    "otlp": ("trace.export_otlp", ["tests/trace/test_export_otlp.py"]),
    "parquet": ("trace.export_parquet", ["tests/trace/test_export_parquet.py"]),
    "prometheus": ("integrations.prometheus", ["tests/integrations/test_metrics.py"]),
}
"""Of each extra, the module that needs it and the tests that matter."""


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


def build(session: nox.Session, place: Path) -> Path:
    """Build sdist and wheel into `place/dist`; return the wheel, once both have the same and all of `src/`."""
    shutil.rmtree(place, ignore_errors=True)
    session.run("uv", "build", "-q", "--out-dir", str(place / "dist"), external=True)  # the wheel from the sdist
    session.run("uv", "build", "-q", "--wheel", "--out-dir", str(place / "from_tree"), external=True)
    (wheel,) = (place / "dist").glob("*.whl")
    contents = [
        {name: archive.read(name) for name in archive.namelist()}
        for archive in map(zipfile.ZipFile, (wheel, *(place / "from_tree").glob("*.whl")))
    ]
    files = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    missing = {name for name in files if "__pycache__" not in name} - set(contents[0])
    if missing or contents[0] != contents[1]:
        session.error(f"the wheel lacks {sorted(missing)}, or the one made from the sdist differs")
    return wheel


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests with every extra, on the Python that runs nox."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    run_tests(session)


@nox.session(python=[version for version in PYTHONS if version != RUNNING], default=False)
def tests_versions(session: nox.Session) -> None:
    """Run the tests on the other Pythons: `RUNTIME` on those between the oldest and the newest, elsewhere all."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    run_tests(session, *(RUNTIME if session.python in TESTED[1:-1] else ()))


@nox.session(default=False)
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


@nox.session(python=[OLDEST, NEWEST], default=False)
@nox.parametrize("extra", list(PYPROJECT["project"]["optional-dependencies"]))
def tests_extras(session: nox.Session, extra: str) -> None:
    """Install each extra alone, import the module that needs it, and run the tests that matter for it."""
    module, chosen = ALONE[extra]
    session.install(f".[{extra}]")
    session.run("python", "-c", f"import slipstream_trio.{module}")
    session.install(*group("test"))
    run_tests(session, *chosen, which="once or not once")


@nox.session(default=False)
def package(session: nox.Session) -> None:
    """Build sdist and wheel, and test the wheel in a folder that `src/` is out of reach of."""
    place = Path(session.create_tmp()).resolve()
    wheel = build(session, place)
    session.install(f"{wheel}[{ALL_EXTRAS[2:-1]}]", *group("test"))
    shutil.copytree(ROOT / "tests", place / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    session.chdir(place)
    session.env["PYTHONPATH"] = None
    session.run("python", "-c", "import slipstream_trio as s; assert 'site-packages' in s.__file__, s.__file__")
    session.run("slipstream", "--version")
    run_tests(session, *CORE, "tests/test_platforms.py", which="once or not once")


@nox.session(default=False)
def release_check(session: nox.Session) -> None:
    """Build, and check the metadata and that the changelog has the version; see RELEASING.md."""
    place = Path(session.create_tmp()).resolve()
    wheel = build(session, place)
    session.install("twine>=6")
    session.run("twine", "check", "--strict", *map(str, (place / "dist").glob("slipstream*")))
    version = wheel.name.split("-")[1]
    heading = "Unreleased" if "dev" in version else version
    found = re.search(
        rf"^## \[{re.escape(heading)}\](.*)\n(?:(?!## ).*\n)*?- ",
        (ROOT / "CHANGELOG.md").read_text("utf-8"),
        re.MULTILINE,
    )
    if found is None or ("dev" not in version and not re.fullmatch(r" - \d{4}-\d\d-\d\d", found[1])):
        session.error(f"CHANGELOG.md says nothing under [{heading}], or has no date there")


@nox.session(default=False, reuse_venv=True)
def quick(session: nox.Session) -> None:
    """Check style and types, and run a few tests of everything: under a minute, from the second time on."""
    session.install("-e", ALL_EXTRAS, *group("test", "lint", "types"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy", "src")
    run_tests(session, *CORE)


@nox.session(default=False)
def thorough(session: nox.Session) -> None:
    """Let Hypothesis draw a hundred times as much as in `tests`; takes an hour. Arguments choose other tests."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    chosen = session.posargs or ["tests/properties", "tests/protocol", "tests/recovery"]
    session.run(
        *("pytest", "-n", WORKERS, "-o", "faulthandler_timeout=7200", *chosen), env={"SLIPSTREAM_EXAMPLES": "100"}
    )


@nox.session(default=False)
def everywhere(session: nox.Session) -> None:
    """Cancel, raise and interrupt at every moment of every program in `tests/everywhere`; takes twenty minutes."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    patience = ("-o", "faulthandler_timeout=1800")
    session.run("pytest", "-s", *patience, "tests/everywhere", env={"SLIPSTREAM_EXAMPLES": "10000"})


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Let 200 clients live on a bad network, in real time; takes 10 minutes. Arguments: see --help."""
    session.install("-e", ALL_EXTRAS)
    session.run("python", "benchmarks/soak.py", *(session.posargs or ["--minutes", "10", "--pace", "2"]))


@nox.session(default=False)
def simulate(session: nox.Session) -> None:
    """Simulate 10,000 busy days of clients, servers and faults; takes hours. `-- --seeds 100` simulates fewer.

    `-- --everywhere` interrupts short worlds of a few seeds at each of their steps instead; takes half an hour.
    """
    session.install("-e", ALL_EXTRAS, *group("test"))
    command = ("python", "-m", "slipstream_trio.testing.simulation", "tests.simulation.visits:ALL", "--jobs", WORKERS)
    if "--everywhere" in session.posargs:
        for kind in ("interrupt", "terminate", "exit", "quit"):
            short = ("--seeds", "10", "--steps", "4", "--faults", "2", "--interrupt", kind)
            session.run(*command, *short, *session.posargs)
    else:
        day = ("--seconds", "86400", "--steps", "320", "--clients", "4", "--faults", "30")
        session.run(*command, *day, *(session.posargs or ["--seeds", "100000", "--busy-days", "10000"]))


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """Measure this library beside its peers, in half an hour; needs Linux and Node. Arguments: see --help."""
    session.install("-e", ALL_EXTRAS, *group("benchmarks"))
    session.run("python", "-m", "benchmarks.suite", *session.posargs)


@nox.session(default=False)
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


@nox.session(default=False)
def mutation(session: nox.Session) -> None:
    """Test the tests of the protocol with mutants; takes ten minutes. Arguments choose mutants, by name or pattern."""
    session.install("-e", ALL_EXTRAS, *group("test", "mutation"))
    # What was killed is remembered in mutants/, what survived is tested again.
    session.run("mutmut", "run", *session.posargs, env={"SLIPSTREAM_EXAMPLES": "0.1"})
    session.run("mutmut", "results")


@nox.session(default=False)
def client_mutation(session: nox.Session) -> None:
    """Test the tests of the client with mistakes; takes two hours. Arguments choose functions: `-- 'join.Joins.*'`."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    chosen = [word for pattern in session.posargs or ["*"] for word in ("--mutants", pattern)]
    others = [f"tests/{folder}" for folder in ("autobahn", "fuzz", "protocol", "trace")]
    ignored = [f"--ignore={folder}" for folder in (*GUESTS, *others)]
    quick = {"SLIPSTREAM_EXAMPLES": "0.1"}
    session.run(
        "pytest", "-sq", "-p", "no:cacheprovider", "-p", "tests.mutants.plugin", *chosen, "tests", *ignored, env=quick
    )


@nox.session(default=False)
def javascript(session: nox.Session) -> None:
    """Talk to the server for tests with the official JavaScript client; needs Node and npm, and skips without them."""
    session.install("-e", ".[testing]", *group("test"))
    if shutil.which("npm"):
        npm = ("npm", "install", "--prefix", "tests/javascript", "--no-audit", "--no-fund", "--no-package-lock")
        session.run(*npm, external=True)
    session.run("pytest", "-n", WORKERS, "tests/javascript", *session.posargs)


@nox.session(default=False)
def proxies(session: nox.Session) -> None:
    """Connect through real proxies: proxy.py, tinyproxy, microsocks and Dante; those that are missing are skipped."""
    session.install("-e", ".[proxy,testing]", "proxy.py>=2.4", *group("test"))
    session.run("pytest", "tests/proxies", *session.posargs)


@nox.session(default=False)
def browser(session: nox.Session) -> None:
    """Open the page of `slipstream trace html` in Chromium; skipped where that, or its chromedriver, is missing."""
    session.install("-e", ".", *group("test", "browser"))
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session(default=False)
def autobahn(session: nox.Session) -> None:
    """Let Autobahn's fuzzing server test the WebSocket transports; it needs Python 2.7, and is skipped without it."""
    python = shutil.which("python2.7")
    if python is None:
        session.skip("autobahntestsuite runs on Python 2.7 only, which is missing")
    session.install("-e", ".[fast]", "virtualenv<20.22")  # the last that makes environments of 2.7
    environment = Path(session.create_tmp()).resolve() / "autobahn"
    try:
        session.run("virtualenv", "-q", "-p", python, str(environment))
        session.run(str(environment / "bin" / "pip"), "install", "-q", "autobahntestsuite", external=True)
    except nox.command.CommandFailed:
        session.skip("autobahntestsuite could not be installed: it is old, and needs Python 2.7 and a compiler")
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
    for platform in ("win32", "darwin"):
        session.run("mypy", "--platform", platform, "--cache-dir", f"{session.create_tmp()}/{platform}", "src")
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


@nox.session(default=False)
def pictures(session: nox.Session) -> None:
    """Make the README's pictures; needs Linux, Chromium, and Node for the benchmark. Arguments choose some."""
    session.install("-e", ALL_EXTRAS, *group("benchmarks"))
    session.run("python", "docs/pictures.py", *session.posargs)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Run the tests, measure what they cover, in subprocesses too, and fail under the limit."""
    session.install("-e", ALL_EXTRAS, *group("test"))
    for stale in ROOT.glob(".coverage.*"):
        stale.unlink()
    run_tests(session, by=("coverage", "run", "-m", "pytest"))
    session.run("coverage", "combine")
    session.run("coverage", "report")
