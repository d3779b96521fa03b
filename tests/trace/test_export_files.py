"""Files that are made out of recordings: whole or not at all, and never in the place of something else."""

import gzip
import os
import stat
import threading
from pathlib import Path

import pytest

from slipstream_trio.trace.files import written


def test_a_file_has_its_name_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    with written(path) as file:
        file.write("new")
        assert not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(ZeroDivisionError), written(path) as file:
        file.write("half")
        raise ZeroDivisionError
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["out.json"]


def test_a_compressed_file_is_the_same_each_time(tmp_path: Path) -> None:
    files = [tmp_path / "one.gz", tmp_path / "two.gz"]
    for path in files:
        with written(path) as file:
            file.write("hello\n")
    first, second = (path.read_bytes() for path in files)
    assert gzip.decompress(first) == b"hello\n"
    assert first == second


@pytest.mark.skipif(os.name == "nt", reason="the modes of files are those of POSIX")
def test_who_may_read_it_is_said(tmp_path: Path) -> None:
    with written(tmp_path / "page.html", mode=0o600) as file:
        file.write("secret")
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with written(pipe) as file:
        file.write("hello")
    reader.join()
    assert read == ["hello"]
    assert pipe.is_fifo()


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with written(link) as file:
        file.write("hello")
    assert link.is_symlink()
    assert target.read_text() == "hello"
