"""Records, reads and exports a connection where the standard library lacks what a platform lacks: see `test_platforms`.

    python tests/without_platform.py windows FOLDER

The work is done once before, whole, so that Trio and the other dependencies are loaded: they have ways of their own to
ask for the platform. Then the names are deleted, this package is forgotten, and the work is done again.
"""

import importlib
import os
import pkgutil
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

LACKS: Final[dict[str, dict[ModuleType, str]]] = {
    "windows": {
        os: """
            O_ACCMODE O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NDELAY O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK
            O_PATH O_SYNC O_TMPFILE WEXITSTATUS WIFEXITED WIFSIGNALED WNOHANG WTERMSIG chown confstr copy_file_range
            environb eventfd fchdir fchmod fchown fdatasync fork forkpty fwalk getegid geteuid getgid getloadavg getpgid
            getpgrp getpriority getrandom getsid getuid getxattr killpg lchown listxattr lockf memfd_create mkfifo
            mknod nice openpty pidfd_open pipe2 posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev
            readv register_at_fork sched_getaffinity sched_yield sendfile setgid setpgid setpriority setsid setuid
            setxattr splice statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname wait wait3 wait4 waitid writev
        """,
        signal: """
            SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPROF SIGPWR SIGQUIT SIGRTMAX SIGRTMIN SIGSTOP
            SIGSYS SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIG_BLOCK
            SIG_SETMASK SIG_UNBLOCK alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending
            sigtimedwait sigwait sigwaitinfo
        """,
        socket: """
            AF_NETLINK AF_PACKET AF_UNIX MSG_CMSG_CLOEXEC MSG_DONTWAIT MSG_EOR MSG_MORE MSG_NOSIGNAL SCM_RIGHTS
            SOCK_CLOEXEC SOCK_NONBLOCK SO_BINDTODEVICE SO_PEERCRED SO_REUSEPORT TCP_CORK TCP_INFO TCP_NOTSENT_LOWAT
            TCP_QUICKACK TCP_USER_TIMEOUT recv_fds send_fds sethostname
        """,
        time: """
            CLOCK_BOOTTIME CLOCK_MONOTONIC CLOCK_MONOTONIC_RAW CLOCK_PROCESS_CPUTIME_ID CLOCK_REALTIME
            CLOCK_THREAD_CPUTIME_ID clock_getres clock_gettime clock_gettime_ns clock_settime tzset
        """,
    },
    "macos": {
        os: """
            O_DIRECT O_NOATIME O_PATH O_RSYNC O_TMPFILE copy_file_range eventfd fdatasync getrandom getxattr listxattr
            memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate removexattr sched_getaffinity sched_setaffinity
            setxattr splice
        """,
        signal: "SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT sigtimedwait sigwaitinfo",
        socket: """
            AF_NETLINK AF_PACKET MSG_CMSG_CLOEXEC MSG_MORE SOCK_CLOEXEC SOCK_NONBLOCK SO_DOMAIN SO_MARK SO_PEERCRED
            SO_PROTOCOL TCP_CORK TCP_DEFER_ACCEPT TCP_INFO TCP_KEEPIDLE TCP_LINGER2 TCP_QUICKACK TCP_USER_TIMEOUT
        """,
        time: "CLOCK_BOOTTIME CLOCK_TAI",
    },
}
"""Names of Linux that are missing, by the stubs of typeshed."""

BLOCKED: Final = {
    "windows": "crypt curses fcntl grp nis ossaudiodev posix pty pwd readline resource spwd syslog termios tty",
    "macos": "ossaudiodev spwd",
}
"""Modules that are missing."""


def import_all() -> None:
    """Import every module of the package, and the plugin."""
    package = importlib.import_module("slipstream_trio")
    for module in pkgutil.walk_packages(package.__path__, "slipstream_trio."):
        importlib.import_module(module.name)
    importlib.import_module("pytest_slipstream")


def work(folder: Path) -> list[str]:
    """Record a connection, read the recording, and export it in every form; returns the names of the files."""
    import_all()
    import trio
    from trio.testing import MockClock

    from slipstream_trio import connect, trace
    from slipstream_trio.cli import main
    from slipstream_trio.telemetry import Telemetry
    from slipstream_trio.testing.kit import FakeServer

    async def live(telemetry: Telemetry) -> None:
        async with FakeServer() as server, trio.open_nursery() as nursery:

            async def serve() -> None:
                connection = await server.accept()
                channel = await (await connection.expect_join("room:1")).reply_ok()
                await (await channel.expect_push("hello")).reply_ok({"line": "feed\n"})

            nursery.start_soon(serve)
            options: Any = {"telemetry": telemetry, "transport": server.connector(), "reconnect": None}
            async with connect(server.url, **options) as socket, socket.join("room:1") as channel:
                await channel.push("hello", {})

    telemetry, recording = Telemetry(), folder / "trace.jsonl"
    with (
        trace.record(recording, telemetry=telemetry),
        trace.record(folder / "rotated.jsonl.gz", telemetry=telemetry, fsync="always", max_size=1000),
        trace.flight_recorder(folder / "flights", telemetry=telemetry, when=lambda _: True),
    ):
        trio.run(live, telemetry, clock=MockClock(autojump_threshold=0))
    assert b"\r" not in recording.read_bytes()
    assert len(list(trace.read(recording))) > 20

    for command in (
        ("verify",),
        ("show",),
        ("stats",),
        ("diagnose",),
        ("replay",),
        ("html", "--output", str(folder / "page.html")),
        ("export", "--to", "perfetto", "--output", str(folder / "perfetto.json.gz")),
        ("export", "--to", "parquet", "--output", str(folder / "lake")),
    ):
        status = main(["trace", *command[:1], str(recording), *command[1:]])
        assert status in (0, 1), (command, status)  # 1: a diagnosis has found the loss of the connection
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def hide(platform: str) -> None:
    """Take from the standard library what the platform lacks, and forget this package."""
    if platform == "windows":  # Trio wakes itself by a pair of sockets, which Windows makes of TCP
        socket.socketpair = partial(socket.socketpair, socket.AF_UNIX)
    for module, names in LACKS[platform].items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in BLOCKED[platform].split():
        sys.modules[name] = None  # type: ignore[assignment]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("slipstream_trio", "pytest_slipstream")]:
        del sys.modules[name]


if __name__ == "__main__":
    before, after = (Path(sys.argv[2], each) for each in ("before", "after"))
    before.mkdir()
    after.mkdir()
    work(before)
    hide(sys.argv[1])
    for name in work(after):
        sys.stderr.write(f"file {name}\n")
