"""The steps of ``kernels`` in Triton, each one trip through memory; the PyTorch twins there specify them.

One program handles one image (ℓ2) or one block of values (ℓ∞, augmentation), without atomics: every run gives the same
bits, and so does an image alone or in any batch. A NaN stays a NaN: Triton's maximum and minimum drop a NaN, so every
limit here is a comparison, which a NaN fails.
"""

from __future__ import annotations

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

# Values, mean and standard deviation of ``fused_steps.NetworkInput``, or three times None.
Network = tuple[Tensor, Tensor, Tensor] | tuple[None, None, None]

# Every operation is rounded on its own, as in the twins (enable_fp_fusion=False). This costs no time, because memory is
# the bottleneck, not arithmetic.

# The most values of an image that one program holds in registers, as three arrays. A larger image is read several
# times, in blocks of BLOCK_VALUES.
REGISTER_VALUES = 8192
BLOCK_VALUES = 4096


def l2_step(
    adv: Tensor,
    origin: Tensor,
    gradient: Tensor,
    eps: float,
    step_size: float,
    out: Tensor | None,
    network: Network,
) -> Tensor:
    """``fused_steps.l2_step`` of float32 images."""
    (adv, origin, gradient), result = _alike(adv, origin, gradient, out=out, values=network[0])
    count, size = len(adv), adv[:1].numel()
    if count and size:
        block = min(triton.next_power_of_2(size), REGISTER_VALUES)
        kernel = _l2_whole
        if size > block:
            kernel, block = _l2_passes, BLOCK_VALUES
        kernel[(count,)](
            adv, origin, gradient, result, *network, size, eps, step_size, block=block,
            channels=adv.shape[1], network=network[0] is not None, ball=eps != math.inf,
            num_warps=min(max(block // 512, 1), 16), enable_fp_fusion=False,
        )  # fmt: skip
    return _given_back(result, out)


def linf_step(
    adv: Tensor,
    origin: Tensor,
    gradient: Tensor,
    eps: float,
    step_size: float,
    out: Tensor | None,
    network: Network,
) -> Tensor:
    """``fused_steps.linf_step`` of float32 images."""
    (adv, origin, gradient), result = _alike(adv, origin, gradient, out=out, values=network[0])
    if adv.numel():
        block = 1024
        _linf[(triton.cdiv(adv.numel(), block),)](
            adv, origin, gradient, result, *network, adv.numel(), eps, step_size, block=block,
            channels=adv.shape[1], network=network[0] is not None, enable_fp_fusion=False,
        )  # fmt: skip
    return _given_back(result, out)


def augment_step(images: Tensor, offsets: Tensor, mirrored: Tensor, shift: int) -> Tensor:
    """``fused_steps.augment_step`` of float32 images in any layout."""
    count, channels, height, width = images.shape
    result = torch.empty_like(images, memory_format=torch.channels_last)
    size = channels * height * width
    if count and size:
        block = 1024
        _augment[(count, triton.cdiv(size, block))](
            images, offsets.contiguous(), mirrored.contiguous(), result, count, channels, height, width, shift,
            *images.stride(), block=block,
        )  # fmt: skip
    return result


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


# The tests check every annotation of the package; ``no_type_check`` exempts those that are meant for Triton.
@triton.jit
@no_type_check
def _read(adv, origin, gradient, std, at, within, row, channels: tl.constexpr, network: tl.constexpr):
    """Iterate, centre and pixel gradient of an image at the offsets ``within`` the image; zeros beyond its end."""
    x = tl.load(adv + row + within, mask=at, other=0.0)
    c = tl.load(origin + row + within, mask=at, other=0.0)
    g = tl.load(gradient + row + within, mask=at, other=0.0).to(tl.float32)
    if network:
        g = g / tl.load(std + within % channels)
    return x, c, g


@triton.jit
@no_type_check
def _write(value, out, values, mean, std, at, within, row, channels: tl.constexpr, network: tl.constexpr):
    """Store the result, and the normalised result as the input of the network."""
    tl.store(out + row + within, value, mask=at)
    if network:
        channel = within % channels
        read = (value - tl.load(mean + channel)) / tl.load(std + channel)
        tl.store(values + row + within, read.to(values.dtype.element_ty), mask=at)


@triton.jit
@no_type_check
def _valid(value):
    """Clamped to [0, 1]; a NaN fails both comparisons."""
    return tl.where(value < 0.0, 0.0, tl.where(value > 1.0, 1.0, value))


@triton.jit
@no_type_check
def _faulty(g):
    return ((g != g) | (tl.abs(g) == float("inf"))).to(tl.int32)


@triton.jit
@no_type_check
def _shrink(distance, eps):
    # The comparison comes first: 0 / 0 would spoil an image that has not moved, and a NaN distance must stay NaN.
    return tl.where(distance <= eps, 1.0, eps / distance)


@triton.jit
@no_type_check
def _range(largest):
    """Two factors that scale the largest entry to 1: a power of two, which is exact, keeps the other factor finite."""
    near = tl.where(largest < 2.0**-100, 2.0**100, tl.where(largest > 2.0**100, 2.0**-100, 1.0))
    return near, 1.0 / tl.where(largest == 0.0, 1.0, largest * near)


@triton.jit
@no_type_check
def _step_of(step_size, squares):
    length = tl.sqrt_rn(squares)
    return step_size / tl.where(length == 0.0, 1.0, length)


@triton.jit
@no_type_check
def _l2_whole(
    adv, origin, gradient, out, values, mean, std, size, eps, step_size,
    block: tl.constexpr, channels: tl.constexpr, network: tl.constexpr, ball: tl.constexpr,
):  # fmt: skip
    """One image that fits into registers: read once, written once."""
    row = tl.program_id(0).to(tl.int64) * size
    within = tl.arange(0, block)
    at = within < size
    x, c, g = _read(adv, origin, gradient, std, at, within, row, channels, network)
    largest = tl.max(tl.abs(g), 0)
    fault = tl.max(_faulty(g), 0)
    near, rest = _range(largest)
    unit = g * near * rest
    step = unit * _step_of(step_size, tl.sum(unit * unit, 0))
    if ball:
        moved = x - c + step
        value = c + moved * _shrink(tl.sqrt_rn(tl.sum(moved * moved, 0)), eps)
    else:
        value = x + step
    value = tl.where(fault > 0, float("nan"), _valid(value))
    _write(value, out, values, mean, std, at, within, row, channels, network)


@triton.jit
@no_type_check
def _l2_passes(
    adv, origin, gradient, out, values, mean, std, size, eps, step_size,
    block: tl.constexpr, channels: tl.constexpr, network: tl.constexpr, ball: tl.constexpr,
):  # fmt: skip
    """One image of any size, block by block: the largest entry, the gradient's length, the distance, the result."""
    row = tl.program_id(0).to(tl.int64) * size
    lane = tl.arange(0, block)
    tops = tl.zeros((block,), tl.float32)
    faults = tl.zeros((block,), tl.int32)
    for start in range(0, size, block):
        within = start + lane
        _, _, g = _read(adv, origin, gradient, std, within < size, within, row, channels, network)
        tops = tl.maximum(tops, tl.abs(g))
        faults = tl.maximum(faults, _faulty(g))
    near, rest = _range(tl.max(tops, 0))
    fault = tl.max(faults, 0)
    # Every lane has its own sum over the blocks, so no lane adds more than size / block terms in a row.
    squares = tl.zeros((block,), tl.float32)
    for start in range(0, size, block):
        within = start + lane
        _, _, g = _read(adv, origin, gradient, std, within < size, within, row, channels, network)
        unit = g * near * rest
        squares += unit * unit
    scale = _step_of(step_size, tl.sum(squares, 0))
    shrink = 1.0
    if ball:
        squares = tl.zeros((block,), tl.float32)
        for start in range(0, size, block):
            within = start + lane
            x, c, g = _read(adv, origin, gradient, std, within < size, within, row, channels, network)
            moved = x - c + g * near * rest * scale
            squares += moved * moved
        shrink = _shrink(tl.sqrt_rn(tl.sum(squares, 0)), eps)
    for start in range(0, size, block):
        within = start + lane
        at = within < size
        x, c, g = _read(adv, origin, gradient, std, at, within, row, channels, network)
        step = g * near * rest * scale
        value = c + (x - c + step) * shrink if ball else x + step
        value = tl.where(fault > 0, float("nan"), _valid(value))
        _write(value, out, values, mean, std, at, within, row, channels, network)


@triton.jit
@no_type_check
def _linf(
    adv, origin, gradient, out, values, mean, std, size, eps, step_size,
    block: tl.constexpr, channels: tl.constexpr, network: tl.constexpr,
):  # fmt: skip
    """A block of values of all images, laid end to end."""
    within = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    at = within < size
    x, c, g = _read(adv, origin, gradient, std, at, within, 0, channels, network)
    direction = tl.where(g > 0.0, 1.0, tl.where(g < 0.0, -1.0, 0.0))
    value = x + step_size * tl.where(_faulty(g) > 0, float("nan"), direction)
    value = tl.where(value < c - eps, c - eps, value)
    value = tl.where(value > c + eps, c + eps, value)
    _write(_valid(value), out, values, mean, std, at, within, 0, channels, network)


@triton.jit
@no_type_check
def _augment(
    images, offsets, mirrored, out, count, channels, height, width, shift,
    stride_n, stride_c, stride_h, stride_w, block: tl.constexpr,
):  # fmt: skip
    """A block of values of one image, written in channels-last order."""
    n = tl.program_id(0).to(tl.int64)
    within = tl.program_id(1) * block + tl.arange(0, block)
    size = channels * height * width
    at = within < size
    channel = within % channels
    x = within // channels % width
    y = within // (channels * width)
    x = tl.where(tl.load(mirrored + n), width - 1 - x, x)
    y = tl.abs(y + tl.load(offsets + n).to(tl.int32) - shift)
    x = tl.abs(x + tl.load(offsets + count + n).to(tl.int32) - shift)
    y = height - 1 - tl.abs(height - 1 - y)
    x = width - 1 - tl.abs(width - 1 - x)
    value = tl.load(images + n * stride_n + channel * stride_c + y * stride_h + x * stride_w, mask=at)
    tl.store(out + n * size + within, value, mask=at)
