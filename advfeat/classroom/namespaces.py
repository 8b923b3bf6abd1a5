"""Isolate a process by namespaces: it sees no other processes, no network, and only the files it is given (Linux).

There are three steps, each in a process of its own: ``leave`` the namespaces of the system, ``settle`` in the first
process of the new namespaces, and ``surrender`` every privilege before the code of a submission runs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# From linux/sched.h, sys/mount.h, linux/mount.h, linux/prctl.h and linux/capability.h.
_USER, _PROCESSES, _MOUNTS, _NETWORK, _MESSAGES = 0x10000000, 0x20000000, 0x00020000, 0x40000000, 0x08000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _RECURSIVE, _PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
_DETACH = 2
_MOUNT_SETATTR = 442  # the same number on every processor
_AT_FDCWD, _AT_RECURSIVE, _ATTR_RDONLY, _ATTR_NOSUID = -100, 0x8000, 1, 2
_DROP_FROM_BOUNDING_SET, _NO_NEW_PRIVILEGES = 24, 38
_CAPABILITIES = 0x20080522
_OVERRIDES = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
_MOST_LINKS = 40


def leave() -> None:
    """Put future children of this process into new namespaces, under the same user.

    The process must have one thread only.

    Raises:
        OSError: the system does not allow it; many containers do not.
    """
    if sys.platform != "linux":
        raise OSError("namespaces are a part of Linux")
    user, group = os.geteuid(), os.getegid()
    try:
        _checked(_libc().unshare(_USER | _PROCESSES | _MOUNTS | _NETWORK | _MESSAGES), "leave its namespaces")
    except OSError as error:
        if error.errno == errno.ENOSPC:  # "no space left on device", says the system
            raise OSError("no more namespaces are allowed here; see /proc/sys/user/max_user_namespaces") from error
        raise
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(text)


def settle(root: Path, *, read: Iterable[Path], write: Path, devices: Iterable[Path], names: Iterable[str]) -> None:
    """Replace the system's files by a tree that holds only ``read``, ``write`` and ``devices``, at their old paths.

    Everything but ``write`` is read-only, whatever the modes of the files, and the tree holds no sockets of other
    users. Call this function in the first process after ``leave``.

    Args:
        root: an empty folder to build the tree in.
        read: folders, with symbolic links resolved.
        write: the folder that may be written.
        devices: files of ``/dev``.
        names: paths as programs spell them; symbolic links along these paths are recreated.

    Raises:
        OSError: the system does not allow a step.
    """
    _mount("none", Path("/"), flags=_RECURSIVE | _PRIVATE)
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    proc = Path("/proc")
    bound: list[Path] = []
    for folder in sorted(read):
        if folder != proc and not any(folder.is_relative_to(other) for other in bound):
            _bind(folder, _place(root, folder), recursive=True)
            bound.append(folder)
    _bind(write, _place(root, write), writable=True)
    for device in devices:
        if device.exists():
            path = root / device.relative_to("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            _bind(device, path, writable=True)
    for link, target in _links(names):
        path = root / link.relative_to("/")
        if not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
    try:
        _mount("proc", _place(root, proc), "proc", _RDONLY | _NOSUID | _NODEV | _NOEXEC)
    except PermissionError:  # a container may hide parts of /proc; then the names of other processes can be read
        _bind(proc, _place(root, proc), recursive=True)
    _protect(root, below=False)
    os.chdir(root)
    _checked(_libc().pivot_root(b".", b"."), "change its root")
    _checked(_libc().umount2(b".", _DETACH), "let go of the system's files")
    os.chdir("/")


def surrender(*, keep_overrides: bool = False) -> None:
    """Give up every capability for good, also for programs that are started from here.

    Args:
        keep_overrides: keep the capabilities by which a superuser reads and writes all files; without namespaces it may
            need them to read Python.

    Raises:
        OSError: the system refused.
    """
    if sys.platform != "linux":
        return
    libc = _libc()
    _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "give up new privileges")
    kept = _OVERRIDES if keep_overrides and os.geteuid() == 0 else 0
    for capability in range(64):
        # The call fails for a process without capabilities, which has nothing to drop, and for unknown numbers.
        if not kept >> capability & 1 and libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0) < 0:
            break
    header = struct.pack("=Ii", _CAPABILITIES, 0)
    _checked(libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)), "give up its capabilities")


def _links(names: Iterable[str]) -> Iterator[tuple[Path, Path]]:
    """Symbolic links along the paths ``names``, each with its target; their own paths have no links before the end."""
    for name in names:
        here, ahead, met = Path("/"), list(Path(name).parts), 0
        while ahead and met < _MOST_LINKS:
            part = ahead.pop(0)
            here = Path("/") if part == "/" else here.parent if part == ".." else here / part
            if here.is_symlink():
                target = here.readlink()
                yield here, target
                here, ahead, met = here.parent, [*target.parts, *ahead], met + 1


def _place(root: Path, folder: Path) -> Path:
    path = root / folder.relative_to("/")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _bind(source: Path, path: Path, *, recursive: bool = False, writable: bool = False) -> None:
    _mount(str(source), path, flags=_BIND | (_RECURSIVE if recursive else 0))
    if not writable:
        _protect(path, below=True)


def _protect(path: Path, *, below: bool) -> None:
    """Make the mount at ``path`` read-only; with ``below`` also all mounts below it."""
    wanted = struct.pack("=4Q", _ATTR_RDONLY | _ATTR_NOSUID, 0, 0, 0)
    flags = _AT_RECURSIVE if below else 0
    arguments = (os.fsencode(path), flags, wanted, ctypes.c_size_t(len(wanted)))
    done = _libc().syscall(_MOUNT_SETATTR, _AT_FDCWD, *arguments)
    _checked(done, f"make {path} read-only")


def _mount(source: str, path: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    arguments = [os.fsencode(text) if text else None for text in (source, str(path), kind)]
    done = _libc().mount(*arguments, ctypes.c_ulong(flags), os.fsencode(options) if options else None)
    _checked(done, f"mount {source} at {path}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, step: str) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"it could not {step}: {os.strerror(error)}")
