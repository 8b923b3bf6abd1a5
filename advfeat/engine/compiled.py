"""A C file made into a library by the system's compiler, once for each processor, kept in the user's cache.

Nothing needs such a library: where none can be made, ``load`` says why, and its caller goes another way.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from advfeat.files import sweep, write_whole

FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fPIC", "-shared", "-pthread", "-w")
"""Flags for every compiler; products and sums are contracted, but nothing else of IEEE arithmetic is given up."""
INSTRUCTIONS = {
    "avx512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"),
    "avx2": ("-mavx2", "-mfma"),
    "neon": (),  # every 64-bit Arm has it
    "plain": (),
}
"""The compiler's flags for each set of instructions."""
ANSWER_SECONDS, COMPILE_SECONDS = 20, 120  # that a compiler may take, to say its version and to compile


class UnavailableError(Exception):
    """No library could be made; the message says why."""


def folder() -> Path:
    """Where libraries are kept: ``ADVFEAT_COMPILED``, otherwise ``advfeat/compiled`` in the user's cache folder."""
    if given := os.environ.get("ADVFEAT_COMPILED"):
        return Path(given).expanduser()
    from platformdirs import user_cache_path  # late: a machine for the GPU checks may lack it

    return user_cache_path("advfeat") / "compiled"


def instructions() -> str:
    """The widest of ``INSTRUCTIONS`` that this processor has.

    PyTorch finds it, so ``ATEN_CPU_CAPABILITY`` narrows it, and so does oneDNN's ``ONEDNN_MAX_CPU_ISA``: who imitates
    another processor imitates it here, too.
    """
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return "neon"
    found = torch.backends.cpu.get_cpu_capability()
    most = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT").upper()
    if machine not in ("x86_64", "amd64") or found not in ("AVX2", "AVX512") or most in ("SSE41", "AVX"):
        return "plain"
    return "avx2" if found == "AVX2" or most.startswith("AVX2") else "avx512"


def compiler() -> list[str]:
    """The command of the system's compiler: ``CC``, otherwise the first of cc, gcc and clang on the path.

    Raises:
        UnavailableError: there is none.
    """
    given = shlex.split(os.environ.get("CC", ""))
    if sys.platform == "win32" and not given:  # a compiler on the path may be for other programs' calls
        raise UnavailableError("no C compiler: on Windows CC must name one")
    for command in [given] if given else [["cc"], ["gcc"], ["clang"]]:
        place = shutil.which(command[0])
        if place is not None:
            return [place, *command[1:]]
    words = f"CC names {given[0]!r}, which cannot be run" if given else "no cc, gcc or clang is on the path"
    raise UnavailableError(f"no C compiler: {words}")


def load(source: Path) -> ctypes.CDLL:
    """The library of a C file, from the cache if it is there and whole, else compiled.

    A name in the cache holds a hash of the compiler, its flags, the source and the processor, and one of the file's own
    content; the library itself answers the first to NAME_key(), where NAME is that of the source. So a file that is
    damaged, or made for something else, is never used. Processes that compile at once write one name or several, each
    whole.

    Raises:
        UnavailableError: there is no compiler, it failed, or the cache cannot be written, or not by this user alone.
    """
    try:
        command, flags, cache = compiler(), [*FLAGS, *INSTRUCTIONS[instructions()]], folder()
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _only_ours(cache):
            raise UnavailableError(f"others can write to {cache}, so no code is taken from it")
        text = source.read_bytes()
        parts = [_version(tuple(command)), command, flags, text.decode(), sys.platform, *_processor()]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
        for kept in sorted(cache.glob(f"{source.stem}-{key}-*.so")):
            library = _opened(kept, source.stem, key) if _only_ours(kept) else None
            if library is not None:
                return library
            with suppress(OSError):
                kept.unlink()
        content = _compiled([*command, *flags, f'-DKEY="{key}"'], text, source.name)
        place = cache / f"{source.stem}-{key}-{_hash(content)}.so"
        sweep(cache)
        write_whole(place, content)
        place.chmod(0o600)
    except (OSError, subprocess.SubprocessError, ValueError, RuntimeError, ImportError) as error:
        raise UnavailableError(f"{source.name} could not be compiled: {error}") from error
    library = _opened(place, source.stem, key)
    if library is None:
        raise UnavailableError(f"{place} was compiled, but cannot be loaded")
    return library


def _compiled(command: list[str], text: bytes, name: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="advfeat-compile-") as made:
        (Path(made) / name).write_bytes(text)
        done = subprocess.run(
            [*command, "-o", "library.so", name, "-lm"],
            cwd=made, capture_output=True, text=True, errors="replace", timeout=COMPILE_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise UnavailableError(f"{command[0]} failed on {name}: {done.stderr.strip()[-500:] or done.returncode}")
        return (Path(made) / "library.so").read_bytes()


def _only_ours(place: Path) -> bool:
    """Whether a file or folder belongs to this user or to root, and nobody else may change it."""
    if not hasattr(os, "getuid"):  # Windows: the user's folders are the user's
        return True
    found = place.stat()
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & 0o022


def _opened(place: Path, stem: str, key: str) -> ctypes.CDLL | None:
    """The library in a file, if the file has the hash in its name and the library has this key."""
    try:
        if _hash(place.read_bytes()) != place.stem.rpartition("-")[2]:
            return None
        library = ctypes.CDLL(str(place))
        answer = getattr(library, f"{stem}_key")
        answer.restype = ctypes.c_char_p
        return library if answer() == key.encode() else None
    except (OSError, AttributeError):
        return None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


@functools.cache
def _version(command: tuple[str, ...]) -> str:
    done = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, errors="replace", timeout=ANSWER_SECONDS, check=False
    )
    return done.stdout + done.stderr


@functools.cache
def _processor() -> tuple[str, ...]:
    """The marks of this processor among others: architecture, model and features, as far as the system names them."""
    known = [platform.machine(), platform.processor()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        names = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        known += sorted({line for line in lines if line.partition(":")[0].strip() in names})
    return tuple(known)
