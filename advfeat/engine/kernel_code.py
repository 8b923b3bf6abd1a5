"""Reads compiled kernels: the blocks that they load and store, the widths, the registers."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDEST_ACCESS = 128
"""Bits of the widest load or store of a thread on all targets."""

Accesses = tuple[tuple[int, int], ...]
"""Pairs of bits and number, the widest first."""


def blocks_of(code: str, kind: str) -> tuple[list[tuple[str, int, int]], int]:
    """Argument, bits of a value and values of each block that is loaded or stored, and how many single values are.

    ``code`` is Triton's first intermediate language, without the operations whose result nobody reads.
    """
    origins = dict(re.findall(r"(%\w+) = tt\.(?:addptr|splat|bitcast|broadcast) (%\w+)", code))
    access = rf"tt\.{kind} (%\w+).*: (?:tensor<(\d+)x)?!tt\.ptr<[a-z]+(\d+)>"
    blocks, single = [], 0
    for pointer, values, bits in re.findall(access, code):
        if not values:
            single += 1
            continue
        while pointer in origins:
            pointer = origins[pointer]
        blocks.append((pointer[1:], int(bits), int(values)))
    return blocks, single


def fewest(blocks: Sequence[tuple[str, int, int]], threads: int, scattered: Sequence[str]) -> Accesses:
    """The fewest accesses of a thread for these blocks; each value of a ``scattered`` argument is one of its own."""
    found: Counter[int] = Counter()
    for name, bits, values in blocks:
        own = bits * values // threads
        width = bits if name in scattered else min(WIDEST_ACCESS, own)
        found[width] += own // width
    return _ordered(found)


def of_nvidia(code: Any) -> dict[str, Any]:
    """Widths from PTX; registers and the stack, on which only spilled registers lie, from the machine code."""
    import triton

    ptx = code.asm["ptx"]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(code.asm["cubin"])
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin)]
        used = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    number = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", used)}
    accesses = re.compile(r"\b(ld|st)\.global[\w:.]*?(?:\.v(\d))?\.[a-z](\d+)\b")
    found: dict[str, Counter[int]] = {"ld": Counter(), "st": Counter()}
    for kind, values, bits in accesses.findall(ptx):
        found[kind][int(values or 1) * int(bits)] += 1
    return {
        "registers": number["REG"],
        "spilled": number["STACK"] + number["LOCAL"],
        "loads": _ordered(found["ld"]),
        "stores": _ordered(found["st"]),
        "flushes": ".ftz" in ptx,
    }


AMD_BITS = {
    "byte": 8, "ubyte": 8, "sbyte": 8, "short": 16, "ushort": 16, "sshort": 16, "dword": 32, "dwordx2": 64,
    "dwordx3": 96, "dwordx4": 128,
}  # fmt: skip


def of_amd(code: Any) -> dict[str, Any]:
    """All from the assembly text."""
    assembly = code.asm["amdgcn"]

    def number(name: str) -> int:
        (value,) = set(re.findall(rf"\.{name}:?\s+(\d+)", assembly))
        return int(value)

    found: dict[str, Counter[int]] = {"load": Counter(), "store": Counter()}
    for kind, width in re.findall(r"\b(?:global|buffer|flat)_(load|store)_(\w+)", assembly):
        found[kind][AMD_BITS[width.removesuffix("_d16_hi").removesuffix("_d16")]] += 1
    # 3 keeps tiny numbers on the way in and on the way out; a kernel can set another mode on its way.
    keeps = number("amdhsa_float_denorm_mode_32") == 3
    return {
        "registers": number("vgpr_count"),
        "spilled": number("private_segment_fixed_size"),
        "loads": _ordered(found["load"]),
        "stores": _ordered(found["store"]),
        "flushes": not keeps or "s_denorm_mode" in assembly or "HW_REG_MODE" in assembly,
    }


def _ordered(found: Counter[int]) -> Accesses:
    return tuple(sorted(found.items(), reverse=True))
