"""The steps of ``fused_steps`` in Triton, each one trip through memory; the PyTorch twins there specify them.

One program handles one image (ℓ2) or one block of values (ℓ∞, augmentation), without atomics: every run gives the same
bits, and so does an image alone or in any batch. A NaN stays a NaN: Triton's maximum and minimum drop a NaN, so every
limit here is a comparison, which a NaN fails. In ℓ2 a NaN or an infinity in the gradient makes the sum of squares a
NaN, and with it every pixel: an infinite entry is scaled by zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from advfeat.engine.triton_kernels import augment, l2_passes, l2_whole, linf

# Values, mean and standard deviation of ``fused_steps.NetworkInput``, or three times None.
NetworkBuffers = tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]

# Every operation is rounded on its own, as in the twins (enable_fp_fusion=False). This costs no time, because memory is
# the bottleneck, not arithmetic.

# The most values of an image that one program holds in registers, as three arrays. A larger image is read several
# times, in blocks of BLOCK_VALUES.
REGISTER_VALUES = 8192
BLOCK_VALUES = 4096
# Of a thread on an NVIDIA GPU: 512 threads share the 65,536 of a multiprocessor. Given no limit, ptxas aims at more
# threads and spills a few values to memory for that.
MAX_REGISTERS = 128


@dataclass(frozen=True)
class Launch:
    """A kernel with all that it is started with, so that it can be run, or only compiled.

    Attributes:
        kernel: the kernel.
        grid: how many programs, in each dimension.
        arguments: the positional ones, in the kernel's order.
        constants: the arguments that are compiled in, by name.
        warps: of a program.
        scattered: arguments whose neighbouring values are not read together, so that loads of them cannot be wide.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: Mapping[str, Any]
    warps: int
    scattered: tuple[str, ...] = ()

    def options(self, backend: str) -> dict[str, Any]:
        """The arguments by name, and the options of the compiler, for a ``backend``, ``cuda`` or ``hip``."""
        limits = {"maxnreg": MAX_REGISTERS} if backend == "cuda" else {}
        return {**self.constants, "num_warps": self.warps, "enable_fp_fusion": False, **limits}

    def run(self) -> None:
        """Start the kernel on the current device."""
        self.kernel[self.grid](*self.arguments, **self.options("hip" if torch.version.hip else "cuda"))


def l2_step(
    adv: Tensor,
    origin: Tensor,
    gradient: Tensor,
    eps: float,
    step_size: float,
    out: Tensor | None,
    network: NetworkBuffers,
) -> Tensor:
    """``fused_steps.l2_step`` of float32 images."""
    (adv, origin, gradient), result = _alike(adv, origin, gradient, out=out, values=network[0])
    if adv.numel():
        l2_launch(adv, origin, gradient, result, eps, step_size, network).run()
    return _given_back(result, out)


def l2_launch(
    adv: Tensor, origin: Tensor, gradient: Tensor, result: Tensor, eps: float, step_size: float, network: NetworkBuffers
) -> Launch:
    """The launch of an ℓ2 step of at least one image; all tensors lie alike in memory."""
    size = adv[:1].numel()
    block = min(triton.next_power_of_2(size), REGISTER_VALUES)
    kernel = l2_whole
    if size > block:
        kernel, block = l2_passes, BLOCK_VALUES
    constants = {
        "block": block, "channels": adv.shape[1], "network": network[0] is not None, "ball": eps != math.inf,
    }  # fmt: skip
    arguments = (adv, origin, gradient, result, *network, size, eps, step_size)
    return Launch(kernel, (len(adv),), arguments, constants, warps=min(max(block // 512, 1), 16))


def linf_step(
    adv: Tensor,
    origin: Tensor,
    gradient: Tensor,
    eps: float,
    step_size: float,
    out: Tensor | None,
    network: NetworkBuffers,
) -> Tensor:
    """``fused_steps.linf_step`` of float32 images."""
    (adv, origin, gradient), result = _alike(adv, origin, gradient, out=out, values=network[0])
    if adv.numel():
        linf_launch(adv, origin, gradient, result, eps, step_size, network).run()
    return _given_back(result, out)


def linf_launch(
    adv: Tensor, origin: Tensor, gradient: Tensor, result: Tensor, eps: float, step_size: float, network: NetworkBuffers
) -> Launch:
    """The launch of an ℓ∞ step of at least one image; all tensors lie alike in memory."""
    block = 1024
    constants = {"block": block, "channels": adv.shape[1], "network": network[0] is not None}
    arguments = (adv, origin, gradient, result, *network, adv.numel(), eps, step_size)
    return Launch(linf, (triton.cdiv(adv.numel(), block),), arguments, constants, warps=4)


def augment_step(images: Tensor, offsets: Tensor, mirrored: Tensor, shift: int) -> Tensor:
    """``fused_steps.augment_step`` of float32 images in any layout."""
    result = torch.empty_like(images, memory_format=torch.channels_last)
    if images.numel():
        augment_launch(images, offsets.contiguous(), mirrored.contiguous(), result, shift).run()
    return result


def augment_launch(images: Tensor, offsets: Tensor, mirrored: Tensor, result: Tensor, shift: int) -> Launch:
    """The launch of crop-and-flip of at least one image; ``result`` is channels last."""
    block = 1024
    count, channels, height, width = images.shape
    grid = (count, triton.cdiv(channels * height * width, block))
    arguments = (
        images, offsets, mirrored, result, count, channels, height, width, shift, *images.stride(),
    )  # fmt: skip
    # A pixel's channels lie together, its neighbour may be the one to the right or to the left.
    return Launch(augment, grid, arguments, {"block": block}, warps=4, scattered=("images",))


def _alike(
    adv: Tensor, origin: Tensor, gradient: Tensor, *, out: Tensor | None, values: Tensor | None
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """The three tensors in one memory layout, and a result tensor in the same layout.

    Nothing is copied if all are channels last, or all contiguous. The input of a network is channels last, so if there
    is one, everything is channels last.
    """
    channels_last = adv.ndim == 4 and (values is not None or not adv.is_contiguous())
    order = torch.channels_last if channels_last else torch.contiguous_format
    if values is not None and not values.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(f"the network's input must be channels last, got strides {values.stride()}")
    a, o, g = (tensor.contiguous(memory_format=order) for tensor in (adv, origin, gradient))
    result = out if out is not None and out.is_contiguous(memory_format=order) else torch.empty_like(a)
    return (a, o, g), result


def _given_back(result: Tensor, out: Tensor | None) -> Tensor:
    return result if out is None or out is result else out.copy_(result)
