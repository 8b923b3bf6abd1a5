"""Files are whole or absent after a full disk, a kill and a parallel process, and other users may read them."""

from __future__ import annotations

import errno
import io
import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import advfeat
from advfeat import files
from advfeat.files import load_tensors, sweep, write_whole

CONTENTS = {
    "text": "naïve\n",
    "bytes": b"\x00\xff",
    "function": lambda path: path.write_bytes(b"written"),
    "safetensors": lambda path: save_file({"a": torch.arange(3)}, path),
}


def child(code: str, *arguments: object, **options: object) -> subprocess.Popen:
    """A Python process that runs ``code`` with this library."""
    environment = os.environ | {"PYTHONPATH": str(Path(advfeat.__file__).parent.parent)}
    words = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(words, env=environment, text=True, **options)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path, content):
    path = tmp_path / "file"
    path.write_text("before")
    write_whole(path, content)
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    expected = {"naïve\n": "naïve\n".encode(), b"\x00\xff": b"\x00\xff"}
    assert path.read_bytes() == expected[content] if not callable(content) else path.read_bytes() != b"before"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no umask")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077], ids=oct)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_files_have_the_mode_that_the_umask_asks_for(tmp_path, content, umask):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", content)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_whole(tmp_path / "file", "text")
    assert done == (["file", "rename", "folder"] if os.name == "posix" else ["file", "rename"])


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO], ids=["cannot", "broken"])
def test_a_drive_that_cannot_flush_is_no_error_and_one_that_fails_is(tmp_path, monkeypatch, code):
    def fsync(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    if code == errno.EINVAL:
        write_whole(tmp_path / "file", "text")
        assert (tmp_path / "file").read_text() == "text"
    else:
        with pytest.raises(OSError, match=r"the file was not written.*file"):
            write_whole(tmp_path / "file", "text")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize(
    ("code", "cure"), [(errno.ENOSPC, "make room there"), (errno.EROFS, "name another one")], ids=["full", "read-only"]
)
def test_a_write_that_fails_names_the_file_and_the_cure(tmp_path, monkeypatch, content, code, cure):
    path = tmp_path / "file"
    path.write_text("before")

    def fsync(descriptor: int) -> None:  # the last point at which a system says so
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=cure) as caught:
        write_whole(path, content)
    assert caught.value.errno == code
    assert os.strerror(code) in str(caught.value)
    assert caught.value.filename == str(path)
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


LIMITED = """
    import resource, signal, sys
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from advfeat.files import write_whole

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    tensors = {"a": torch.zeros(5000)}
    content = b"0" * 5000 if sys.argv[2] == "bytes" else lambda path: save_file(tensors, path)
    try:
        write_whole(Path(sys.argv[1]), content)
    except OSError as error:
        print(error.errno, error)
    """


@pytest.mark.skipif(os.name != "posix", reason="other systems have no limit on the size of a file")
@pytest.mark.parametrize("content", ["bytes", "safetensors"])
def test_a_real_limit_is_reported_as_the_system_reports_it(tmp_path, content):
    """The library that writes tensors has an error of its own, with the system's number in its text."""
    out, _ = child(LIMITED, tmp_path / "file", content, stdout=subprocess.PIPE).communicate(timeout=300)
    assert out.startswith(f"{errno.EFBIG} ")
    assert str(tmp_path / "file") in out
    assert "nothing half-written is left" in out
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_writer_itself_stays_as_it_is(tmp_path):
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write_whole(tmp_path / "file", write)
    assert list(tmp_path.iterdir()) == []


KILLED = """
    import sys, time
    from pathlib import Path
    from advfeat.files import write_whole

    def write(path):
        path.write_bytes(b"half of it")
        print("half", flush=True)
        time.sleep(600)

    write_whole(Path(sys.argv[1]), write)
    """


@pytest.mark.skipif(os.name != "posix", reason="other systems are not asked whether a process lives")
def test_partial_files_of_killed_processes_are_swept_and_those_of_living_ones_are_not(tmp_path):
    with child(KILLED, tmp_path / "file", stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "half\n"
        (partial,) = tmp_path.iterdir()
        sweep(tmp_path)
        assert partial.exists()
        process.send_signal(signal.SIGKILL)
    assert partial.exists()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_files_whose_writer_cannot_be_asked_only_old_ones_are_swept(tmp_path):
    names = [f".file.{os.getpid()}@another-machine.part", ".file.part", f".file.{os.getpid()}.part"]
    others = ["file", "file.part", ".file.1.partial", ".hidden"]
    for name in (*names, *others):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*names, *others}
    yesterday = time.time() - 25 * 3600
    for name in (*names, *others):
        os.utime(tmp_path / name, (yesterday, yesterday))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_a_folder_in_which_nothing_can_be_deleted_is_swept_without_an_error(tmp_path, monkeypatch):
    (tmp_path / ".file.part").touch()
    os.utime(tmp_path / ".file.part", (0, 0))

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refuse)
    sweep(tmp_path)


def test_on_other_systems_no_process_is_asked(monkeypatch):
    """There the question itself would end the process."""
    monkeypatch.setattr(files.os, "name", "nt")
    monkeypatch.setattr(files.os, "kill", lambda *_: pytest.fail("asked"))
    assert files._alive(os.getpid())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_file_of_tensors_that_was_cut_off_anywhere_is_damaged(legacy):
    stream = io.BytesIO()
    torch.save([torch.arange(6.0), torch.ones(2)], stream, _use_new_zipfile_serialization=not legacy)
    whole = stream.getvalue()
    assert torch.equal(load_tensors(io.BytesIO(whole), Path("whole"))[0], torch.arange(6.0))
    for kept in range(0, len(whole), 3):
        with pytest.raises(ValueError, match=r"^cut is damaged or incomplete: ."):
            load_tensors(io.BytesIO(whole[:kept]), Path("cut"))


def test_a_flipped_bit_in_a_file_of_tensors_is_found():
    values = torch.arange(600.0)
    stream = io.BytesIO()
    torch.save([values], stream)
    content = bytearray(stream.getvalue())
    content[bytes(content).index(values.numpy().tobytes()) + 1001] ^= 4
    assert not torch.equal(torch.load(io.BytesIO(content), weights_only=True)[0], values)  # PyTorch itself says nothing
    with pytest.raises(ValueError, match=r"^here is damaged or incomplete: the checksum of .*data/0 in it is wrong"):
        load_tensors(io.BytesIO(content), Path("here"))


def test_what_would_be_executed_is_named_and_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    stream = io.BytesIO()
    torch.save([Trap()], stream)
    with pytest.raises(pickle.UnpicklingError, match=r"^here holds more than tensors and is not read: it asks for "):
        load_tensors(stream, Path("here"))
    assert not (tmp_path / "sprung").exists()
