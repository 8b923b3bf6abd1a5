"""The resources that the Triton kernels need on a GPU, from code that is compiled without one.

Triton compiles for a target by its name and brings the compilers of both makers. So registers, spilled registers, the
width of every load and store, and the bytes that an image costs are known before a kernel has run once; its time is
not. The launches are those of ``triton_steps``, with tensors that have a shape and no memory.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from advfeat.engine.kernel_code import Accesses, blocks_of, fewest, of_amd, of_nvidia

if TYPE_CHECKING:
    from advfeat.engine.triton_steps import Launch
else:
    Launch = Any  # the tests look annotations up, also where there is no Triton


@dataclass(frozen=True)
class CompileTarget:
    """A kind of GPU.

    Attributes:
        backend: of Triton, ``cuda`` or ``hip``.
        arch: its compute capability, or its name.
        warp: threads of a warp.
        device: a device of that kind.
        rate: bytes a second between the chip and its memory, from the data sheet of ``device``.
    """

    backend: str
    arch: int | str
    warp: int
    device: str
    rate: float


TARGETS = {
    "sm_80": CompileTarget("cuda", 80, 32, "A100 80GB SXM", 2.039e12),
    "sm_90": CompileTarget("cuda", 90, 32, "H100 SXM", 3.35e12),
    "sm_100": CompileTarget("cuda", 100, 32, "B200", 8.0e12),
    "gfx942": CompileTarget("hip", "gfx942", 64, "MI300X", 5.3e12),
}


@dataclass(frozen=True)
class Resources:
    """One kernel in one configuration on one target. Of one thread unless it says otherwise.

    Attributes:
        kernel: its name.
        configuration: the images and the network that it is launched for.
        target: a name in ``TARGETS``.
        refusal: why it was not compiled; then nothing else is known. Empty if it was.
        registers: in 32 bits; on AMD those of vectors.
        spilled: bytes of registers kept in memory.
        loads: its loads, by width.
        stores: its stores, by width.
        widest_loads: the loads of values of images, were each as wide as possible.
        widest_stores: the same for stores.
        single_loads: loads of one value for the whole program, as a channel's mean.
        shared: bytes of shared memory of a program.
        flushes: whether an instruction replaces tiny numbers by zero.
        image_bytes: bytes between the program and memory for an image, reads and writes, repeated reads counted each
            time. A cache may hold some of it.
    """

    kernel: str
    configuration: str
    target: str
    refusal: str = ""
    registers: int = 0
    spilled: int = 0
    loads: Accesses = ()
    stores: Accesses = ()
    widest_loads: Accesses = ()
    widest_stores: Accesses = ()
    single_loads: int = 0
    shared: int = 0
    flushes: bool = False
    image_bytes: int = 0

    def narrow(self) -> str:
        """The accesses that could be wider, in words; empty if there are none."""
        faults = []
        for name, found, widest, single in (
            ("loads", self.loads, self.widest_loads, self.single_loads),
            ("stores", self.stores, self.widest_stores, 0),
        ):
            least, most = sum(dict(widest).values()), sum(dict(found).values())
            if most > least + single or any(dict(found).get(bits, 0) < number for bits, number in widest if bits > 32):
                faults.append(f"{name} {dict(found)}, could be {dict(widest)} and {single} single ones")
        return "; ".join(faults)

    def seconds(self, images: int = 1) -> float:
        """The least time of a step on ``images``, if all that it moves comes from memory and goes there."""
        return images * self.image_bytes / TARGETS[self.target].rate


def unavailable() -> str:
    """Why no kernel can be compiled in this process; empty if they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    import triton

    if triton.knobs.runtime.interpret:
        return "Triton is told to interpret its kernels (TRITON_INTERPRET)"
    return ""


def launches(*, usual: bool = False) -> dict[tuple[str, str], Launch]:
    """Kernel and configuration in words → launch, for every launch configuration that attacks and training use.

    The ``usual`` ones are one of each kernel: inside a ball, on a network frozen in bfloat16. A program holds an image
    of side 32 in registers, fills them with one of side 48, and reads one of side 224 in passes. Images whose number of
    values is no multiple of 16 are left out: Triton then promises the compiler no alignment, and each value is loaded
    by itself.
    """
    from advfeat.engine import triton_steps  # late: not every platform has Triton

    found = {}
    for dtype in (torch.bfloat16,) if usual else (torch.bfloat16, torch.float32, None):
        reader = f"{str(dtype).removeprefix('torch.')} network" if dtype else "pixels"
        for side in (32, 224) if usual else (32, 48, 224):
            adv, gradient, network = _tensors(side, dtype)
            for eps, limit in ((0.5, "ball"),) if usual else ((0.5, "ball"), (math.inf, "no ball")):
                launch = triton_steps.l2_launch(adv, adv, gradient, adv, eps, 0.1, network)
                found[_name(launch), f"3×{side}×{side}, {reader}, {limit}"] = launch
        adv, gradient, network = _tensors(32, dtype)  # this kernel takes blocks of values, the same for all sizes
        launch = triton_steps.linf_launch(adv, adv, gradient, adv, 0.5, 0.1, network)
        found[_name(launch), f"3×32×32, {reader}"] = launch
    images = _tensors(32, None)[0]
    offsets = torch.empty(2, len(images), dtype=torch.int64, device="meta")
    mirrored = torch.empty(len(images), dtype=torch.bool, device="meta")
    orders = {"channels last": images} if usual else {"channels last": images, "contiguous": images.contiguous()}
    for order, source in orders.items():
        launch = triton_steps.augment_launch(source, offsets, mirrored, images, 4)
        found[_name(launch), f"3×32×32, {order}"] = launch
    return found


def compiled(chosen: Mapping[tuple[str, str], Launch], targets: Sequence[str] = tuple(TARGETS)) -> list[Resources]:
    """Compile each launch for each target; nothing is left on disk. A second for six of them on one core.

    Raises:
        RuntimeError: ``unavailable`` says why.
    """
    if why := unavailable():
        raise RuntimeError(f"no kernel can be compiled: {why}")
    rows = []
    with _no_cache():
        for (kernel, configuration), launch in chosen.items():
            for target in targets:
                try:
                    found = _resources(launch, TARGETS[target])
                except Exception as error:  # noqa: BLE001 - a compiler ends in many ways, and the row says how
                    found = {"refusal": f"not compiled: {next(iter(str(error).splitlines()), type(error).__name__)}"}
                rows.append(Resources(kernel, configuration, target, **found))
    return rows


def table(rows: Sequence[Resources], *, images: int, share: float) -> pd.DataFrame:
    """One line per kernel and target: resources, bytes, and microseconds for ``images`` images.

    The ``bound`` is the time in which the target's memory moves the bytes at the rate of its data sheet; the last
    column is the time at the ``share`` of that rate.
    """
    lines = {}
    for row in rows:
        bound = 1e6 * row.seconds(images)
        line: dict[str, object] = {
            "registers": row.registers,
            "spilled": row.spilled,
            "loads": _words(row.loads),
            "stores": _words(row.stores),
            "bytes an image": f"{row.image_bytes:,}",
            "bound": f"{bound:.2f} µs",
            f"at {share:.0%}": f"{bound / share:.2f} µs",
        }
        if row.refusal:
            line = {**dict.fromkeys(line, "–"), "loads": row.refusal}
        lines[row.kernel, row.configuration, f"{row.target} ({TARGETS[row.target].device})"] = line
    return pd.DataFrame(lines).T.rename_axis(["kernel", "launched for", "target"])


def _tensors(side: int, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, Any]:
    """Images and a gradient without memory, channels last, and the parts of a network's input in ``dtype``."""
    adv = torch.empty(128, 3, side, side, device="meta").contiguous(memory_format=torch.channels_last)
    if dtype is None:
        return adv, adv, (None, None, None)
    values = torch.empty_like(adv, dtype=dtype)
    mean = torch.empty(1, 3, 1, 1, device="meta")
    return adv, values, (values, mean, mean)


def _name(launch: Launch) -> str:
    name: str = launch.kernel.__name__
    return name


@contextmanager
def _no_cache() -> Iterator[None]:
    """Triton keeps compiled kernels in a folder that ends with the block."""
    import triton

    with tempfile.TemporaryDirectory(prefix="advfeat-triton-") as folder, triton.knobs.cache.scope():
        triton.knobs.cache.dir = folder
        yield


def _resources(launch: Launch, target: CompileTarget) -> dict[str, Any]:
    """The attributes of ``Resources`` that compiling tells."""
    code = _compile(launch, target)
    intermediate = code.asm["ttir"]
    threads = launch.warps * target.warp
    loads, single = blocks_of(intermediate, "load")
    stores, _ = blocks_of(intermediate, "store")
    moved = sum(bits // 8 for _, bits, _ in loads + stores)
    read = of_nvidia if target.backend == "cuda" else of_amd
    return read(code) | {
        "widest_loads": fewest(loads, threads, launch.scattered),
        "widest_stores": fewest(stores, threads, launch.scattered),
        "single_loads": single,
        "shared": code.metadata.shared,
        "image_bytes": moved * launch.arguments[0][0].numel(),
    }


def _compile(launch: Launch, target: CompileTarget) -> Any:
    """The launch as Triton compiles it on that target, with the same promises of alignment."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import create_function_from_signature

    gpu = GPUTarget(target.backend, target.arch, target.warp)
    backend, kernel, options = make_backend(gpu), launch.kernel, launch.options(target.backend)
    # As a launch does before it starts the kernel: the types of the arguments, and which are multiples of 16.
    bound, specialization, rest = create_function_from_signature(kernel.signature, kernel.params, backend)(
        *launch.arguments, **options
    )
    parsed, signature, constants, promises = kernel._pack_args(backend, options, bound, specialization, rest)
    return triton.compile(ASTSource(kernel, signature, constants, promises), target=gpu, options=parsed.__dict__)


def _words(accesses: Accesses) -> str:
    return ", ".join(f"{number} × {bits}" for bits, number in accesses)
