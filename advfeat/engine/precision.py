"""Which dtype networks run fastest in on a device: on a CPU with bfloat16 units that is measured, once a process."""

from __future__ import annotations

import copy
import functools
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from advfeat.engine.compiled_layers import put_in
from advfeat.engine.convolution_code import engine_name

MARGIN = 1.15
"""How many times as fast as float32 bfloat16 must be to be chosen. A trial is good to a few hundredths: two runs on one
machine could choose differently only where the two are just this far apart."""
_SHAPES = ((64, 32), (128, 16), (256, 8))  # channels and side of the layers that are timed: those of a residual network
_IMAGES, _ROUNDS = 8, 5


class Choice(NamedTuple):
    """A dtype, and why it was chosen."""

    dtype: torch.dtype
    why: str


def fastest_dtype(device_type: str) -> Choice:
    """The dtype in which networks run fastest on a device type, and the reason.

    On a GPU it is bfloat16. On a CPU it is float32, unless there are bfloat16 units (AVX-512-BF16 or AMX, and
    ``ONEDNN_MAX_CPU_ISA`` does not keep oneDNN from them) and convolutions in bfloat16 are at least ``MARGIN`` times as
    fast as in float32 by the code that frozen networks use. Without such units bfloat16 would be emulated, and a trial
    of it would take long to say what is known. The trial takes a tenth of a second, once a process.
    """
    if device_type == "cuda":
        return Choice(torch.bfloat16, "a GPU")
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return Choice(torch.float32, "not known to gain from bfloat16")
    has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if not has_units or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return Choice(torch.float32, "no bfloat16 units")
    return chosen(gain())


def chosen(ratio: float) -> Choice:
    """What follows from a CPU on which bfloat16 is ``ratio`` times as fast as float32."""
    dtype = torch.bfloat16 if ratio >= MARGIN else torch.float32
    return Choice(
        dtype, f"bfloat16 measured at {ratio:.2f} times the speed of float32 ({engine_name()}), {MARGIN} needed"
    )


@functools.cache
def gain() -> float:
    """How many times as fast as in float32 convolutions and their gradients are in bfloat16.

    It is measured on one thread, by the processor's time for that thread, so neither other work on the machine nor the
    number of threads changes the choice. Both sides take turns, and the fastest of a few rounds counts.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured()
    finally:
        torch.set_num_threads(threads)


def _measured() -> float:
    with torch.random.fork_rng(devices=()), torch.inference_mode(False):
        more: dict[str, Any] = {"padding": 1, "dtype": torch.float32, "device": "cpu"}
        layers = [nn.Conv2d(channels, channels, 3, **more) for channels, _ in _SHAPES]
    sides = []
    for dtype in (torch.float32, torch.bfloat16):
        network = [_frozen(layer, dtype) for layer in layers]
        images = [torch.ones((_IMAGES, channels, side, side), dtype=dtype, device="cpu") for channels, side in _SHAPES]
        sides.append((network, [one.contiguous(memory_format=torch.channels_last) for one in images]))
    best = [float("inf")] * 2
    for _ in range(1 + _ROUNDS):  # the first one prepares weights
        for i, (network, images) in enumerate(sides):
            start = time.thread_time()
            _step(network, images)
            best[i] = min(best[i], time.thread_time() - start)
    return best[0] / best[1]


def _frozen(layer: nn.Conv2d, dtype: torch.dtype) -> nn.Module:
    holder = nn.Sequential(copy.deepcopy(layer)).to(dtype).requires_grad_(False).to(memory_format=torch.channels_last)
    if dtype == torch.float32:
        put_in(holder)
    return holder


def _step(network: list[nn.Module], images: list[Tensor]) -> None:
    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        for layer, values in zip(network, images, strict=True):
            leaf = values.detach().requires_grad_()
            # Of a number: with a gradient handed in, PyTorch imports sympy, which takes longer than the trial.
            torch.autograd.grad(layer(leaf).sum(), leaf)
