"""Refuse system calls by which a process affects others or uses the network (Linux seccomp).

This is a second barrier beside the namespaces; on a system without namespaces it is the only protection of other
processes. It needs no privilege, but sees numbers only: neither paths nor owners.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence

# From linux/prctl.h, linux/seccomp.h, linux/bpf_common.h, linux/audit.h.
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_X32 = 0x40000000  # a second set of numbers on x86-64

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Numbers of system calls, from the kernel's asm/unistd.h: x86-64, and arm64.
_ALWAYS = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),  # makes other system calls past this filter
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
}
_OF_ONE_PROCESS = {
    # The first argument is the process, and 0 is the caller.
    "prlimit64": (302, 261),
    "sched_setparam": (142, 118),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
}
_OF_SEVERAL = {
    # The first argument is the kind of the second; this value means a process.
    "setpriority": (141, 140, 0),
    "ioprio_set": (251, 30, 1),
}
# sched_setscheduler, whose second argument is the policy. Libraries call it for threads, whose numbers are not known
# beforehand; the ordinary policy, SCHED_OTHER, is harmless.
_SET_POLICY, _ORDINARY = (144, 119), 0
_SOCKET = (41, 198)
_LOCAL, _LIST_OF_INTERFACES = 1, 16  # AF_UNIX, AF_NETLINK; libzmq ends the process if it may not see the list


def known() -> bool:
    """Whether this system has such filters, and this module has the numbers for its processor."""
    return sys.platform == "linux" and platform.machine() in _ARCHITECTURES and sys.maxsize > 2**32


def refuse() -> bool:
    """Refuse this process and its children all system calls that affect other processes or the network.

    They cannot set limits, priority or processors of other processes, trace them, read or write their memory, use the
    keys of their user, or open any but local sockets. Each such call fails with ``PermissionError``. The filter cannot
    be removed.

    Returns:
        Whether the calls are refused: False where the filter is not ``known``.

    Raises:
        OSError: the system has filters, but refused.
    """
    if not known():
        return False
    code = b"".join(_program(list(_ARCHITECTURES).index(platform.machine()), os.getpid()))
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVILEGES, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, program, 0, 0)):
        if libc.prctl(*arguments) < 0:
            error = ctypes.get_errno()
            raise OSError(error, f"it could not filter its system calls: {os.strerror(error)}")
    return True


def _program(machine: int, self: int) -> list[bytes]:
    """The instructions of the filter: ``machine`` is an index into ``_ARCHITECTURES``, ``self`` is the process."""
    architecture = list(_ARCHITECTURES.values())[machine]
    program = [_step(_LOAD, _ARCHITECTURE), _step(_IF_EQUAL, architecture, 1, 0), _step(_RETURN, _REFUSE)]
    program += [_step(_LOAD, _NUMBER), _step(_IF_AT_LEAST, _X32, 0, 1), _step(_RETURN, _REFUSE)]
    for numbers in _ALWAYS.values():
        program += _rule(numbers[machine], [])
    for numbers in _OF_ONE_PROCESS.values():
        program += _rule(numbers[machine], [(0, (0, self))])
    for *of_machine, processes in _OF_SEVERAL.values():
        program += _rule(of_machine[machine], [(0, (processes,)), (1, (0, self))])
    program += _rule(_SET_POLICY[machine], [(1, (_ORDINARY,))])
    program += _rule(_SOCKET[machine], [(0, (_LOCAL, _LIST_OF_INTERFACES))])
    return [*program, _step(_RETURN, _ALLOW)]


def _rule(number: int, wanted: Sequence[tuple[int, Sequence[int]]]) -> list[bytes]:
    """Refuse the call ``number`` unless each argument named in ``wanted`` has one of its values."""
    checks: list[bytes] = []
    for argument, values in wanted:
        checks.append(_step(_LOAD, _FIRST_ARGUMENT + 8 * argument))  # the lower half: the arguments are 32-bit integers
        for left, value in zip(range(len(values), 0, -1), values, strict=True):
            checks.append(_step(_IF_EQUAL, value, left, 0))  # skips the refusal
        checks.append(_step(_RETURN, _REFUSE))
    end = [_step(_RETURN, _ALLOW)] if wanted else [_step(_RETURN, _REFUSE)]
    return [_step(_IF_EQUAL, number, 0, len(checks) + 1), *checks, *end]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
