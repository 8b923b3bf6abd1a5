"""Files that are whole or not there: written beside their place, brought to the disk, then given their name."""

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
_ABANDONED = 24 * 3600  # seconds without a change, after which nobody is still writing a file
_CURES = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there and start again, nothing half-written is left"
    ),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "let that folder be written, or name another one"),
}


# What reading a damaged file of PyTorch has been seen to raise, and their kin.
_UNREADABLE = (
    AssertionError, AttributeError, EOFError, LookupError, OSError, OverflowError, RuntimeError, TypeError, ValueError,
    struct.error, zipfile.BadZipFile,
)  # fmt: skip


def write_whole(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Replace a file by ``content``: text (as UTF-8), bytes, or a function that writes the file whose path it gets.

    Whatever happens, ``path`` is either as before or whole, after a power failure, too. The file has the mode that the
    umask asks for. One process must not write one path twice at a time; several processes may.

    Raises:
        OSError: it cannot be written; the message says why, names the file and the cure.
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
    """The exception for an error of the system: its words, the cure and the path."""
    return OSError(code, f"{os.strerror(code)}; {cure}", str(path))


def sweep(folder: Path) -> None:
    """Delete what ``write_whole`` left half-written in ``folder`` when its process was killed.

    A process of another machine cannot be asked whether it lives; its files go when they have not changed for a day.
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
    """What ``torch.save`` wrote, on the CPU: tensors and plain values only, and nothing else is executed.

    ``torch.load`` itself takes no notice of the checksums in the file.

    Args:
        stream: the content, which can be sought in.
        path: the file that messages name.

    Raises:
        ValueError: it is damaged or incomplete.
        UnpicklingError: it holds more than tensors and plain values.
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
    """Whether a file ends in a name: unpickling takes it for the whole name, without its last letter at times."""
    stream.seek(0, os.SEEK_END)
    stream.seek(max(0, stream.tell() - 200))
    end = stream.read().replace(b"\n", b".")
    return any(part.rstrip(b".").endswith(name.rstrip(".").encode()) for part in (end, end[:-1]))


def _code(error: Exception) -> int | None:
    """The system's number of an error; libraries in Rust have it in their text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the system can tell."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do it for a folder, or not at all.
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
