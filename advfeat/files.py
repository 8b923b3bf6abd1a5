"""Files that are either whole or absent: written under a temporary name, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import io
import os
import platform
import re
import stat
import struct
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

# .name.process@machine.part; earlier versions wrote .name.process.part and .name.part
_PARTIAL = re.compile(r"\..+?(?:\.(?P<process>\d+)(?:@(?P<machine>.*))?)?\.part")
_ABANDONED = 24 * 3600  # seconds without a change after which a partial file is taken for abandoned
_CURES = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there and start again, nothing half-written is left"
    ),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "let that folder be written, or name another one"),
}


# Errors that PyTorch raises for a damaged file: those that were seen, and related ones.
_UNREADABLE = (
    AssertionError, AttributeError, EOFError, LookupError, OSError, OverflowError, RuntimeError, TypeError, ValueError,
    struct.error, zipfile.BadZipFile,
)  # fmt: skip


def write_whole(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Replace a file by ``content``: text (as UTF-8), bytes, or a function that writes the file whose path it gets.

    Whatever happens, even a power failure, ``path`` is either unchanged or whole. The mode of the file follows the
    umask. Several processes may write one path at the same time, but several threads of one process must not.

    Raises:
        OSError: the file cannot be written; the message gives the reason, the file and the cure.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}@{platform.node()}.part")
    try:
        with partial.open("wb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            if not callable(content):
                stream.write(content.encode() if isinstance(content, str) else content)
        if callable(content):
            content(partial)
        _flush(partial)
        if callable(content):
            partial.chmod(mode)  # safetensors leaves a file that only its owner may read
        partial.replace(path)
        _flush(path.parent)
    except Exception as error:
        code = _code(error)
        if code is None:
            raise
        raise refusal(code, path, _CURES.get(code, "the file was not written")) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def refusal(code: int, path: Path, cure: str) -> OSError:
    """The exception for a system error: the system's message, the cure and the path."""
    return OSError(code, f"{os.strerror(code)}; {cure}", str(path))


def sweep(folder: Path) -> None:
    """Delete the partial files in ``folder`` of killed processes that were writing with ``write_whole``.

    Whether a process of another machine is alive is unknown; its files are deleted if they have not changed for a day.
    """
    for partial in folder.glob(".*.part"):
        found = _PARTIAL.fullmatch(partial.name)
        with suppress(OSError):  # another process has swept it, or nothing can be deleted here
            old = time.time() - partial.stat().st_mtime > _ABANDONED
            process, machine = found.groups() if found is not None else (None, None)
            here = machine in (None, platform.node())
            if old or (process is not None and here and not _alive(int(process))):
                partial.unlink()


def load_tensors(stream: io.BytesIO | io.BufferedReader, path: Path) -> Any:
    """Load a file of ``torch.save`` on the CPU: tensors and plain values only; no code in the file is executed.

    The checksums in the file are checked here, because ``torch.load`` ignores them.

    Args:
        stream: the content, seekable.
        path: the file named in messages.

    Raises:
        ValueError: the file is damaged or incomplete.
        UnpicklingError: the file holds more than tensors and plain values.
    """
    try:
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as archive:
                wrong = archive.testzip()
            if wrong:
                raise ValueError(f"the checksum of {wrong} in it is wrong")
        stream.seek(0)
        return torch.load(stream, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL (\S*)", str(error))
        if named is None:
            raise ValueError(f"{path} is damaged or incomplete: it is no pickle of tensors") from error
        if _ends_with(stream, named[1]):
            raise ValueError(f"{path} is damaged or incomplete: it ends in the middle of {named[1]!r}") from error
        raise UnpicklingError(f"{path} holds more than tensors and is not read: it asks for {named[1]}") from error
    except _UNREADABLE as error:
        raise ValueError(f"{path} is damaged or incomplete: {str(error) or 'it is empty'}") from error


def _ends_with(stream: io.BytesIO | io.BufferedReader, name: str) -> bool:
    """Whether a file ends in a name, with or without one more byte: unpickling takes a cut name for a whole one."""
    stream.seek(0, os.SEEK_END)
    stream.seek(max(0, stream.tell() - 200))
    end = stream.read().replace(b"\n", b".")
    return any(part.rstrip(b".").endswith(name.rstrip(".").encode()) for part in (end, end[:-1]))


def _code(error: Exception) -> int | None:
    """The error number of the system; errors of Rust libraries have it in their message."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _flush(path: Path) -> None:
    """Wait until a file, or the list of a folder, is on the disk, if the system can tell."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder, or cannot flush at all.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def _alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere the question itself would end the process
        return True
    try:
        os.kill(process, 0)
    except (OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
