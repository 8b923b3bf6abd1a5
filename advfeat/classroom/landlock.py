"""Restrict the files and the network of this process and its children, for good (Linux Landlock)."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

# Numbers of system calls and flags from linux/landlock.h and linux/prctl.h; the calls have the same number everywhere.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_NO_NEW_PRIVILEGES = 38
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_DEVICE = _READ_FILE | _WRITE_FILE | _IOCTL
# Edition of the interface → number of file rights that it knows, in bits from the lowest.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}

SIGNALS = 6
"""First edition that can refuse signals to processes outside."""


def edition() -> int:
    """Edition of Landlock on this system; 0 if there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, _call(_CREATE, None, 0, _VERSION_FLAG))


def fence(*, read: Iterable[Path], write: Iterable[Path], devices: Iterable[Path] = ()) -> bool:
    """Restrict this process to reading (and executing) below ``read``, all access below ``write``, and ``devices``.

    If the system can, it also refuses TCP connections and signals to processes outside. Paths that do not exist are
    skipped. The restriction cannot be undone.

    Returns:
        Whether the process is restricted: False on systems without Landlock.

    Raises:
        OSError: the system has Landlock, but refused.
    """
    available = edition()
    if not available:
        return False
    everything = (1 << _RIGHTS[min(available, 5)]) - 1
    network = 0b11 if available >= 4 else 0  # bind and connect
    scopes = 0b11 if available >= SIGNALS else 0  # abstract sockets and signals
    attributes = struct.pack("QQQ", everything, network, scopes)[: 8 if available < 4 else 16 if available < 6 else 24]
    ruleset = _checked(_call(_CREATE, attributes, len(attributes), 0), "create a ruleset")
    try:
        for paths, rights in ((read, _READ), (write, everything), (devices, _DEVICE)):
            for path in paths:
                if path.exists():
                    _allow(ruleset, path, rights & everything)
        libc = ctypes.CDLL(None, use_errno=True)
        _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "give up new privileges")
        _checked(_call(_RESTRICT, ruleset, 0), "restrict itself")
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path, rights: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        attributes = struct.pack("=Qi", rights if path.is_dir() else rights & _OF_A_FILE, beneath)
        _checked(_call(_ADD, ruleset, _PATH_BENEATH, attributes, 0), f"allow {path}")
    finally:
        os.close(beneath)


def _call(number: int, *arguments: int | bytes | None) -> int:
    code: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    return code


def _checked(result: int, step: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock could not {step}: {os.strerror(error)}")
    return result
