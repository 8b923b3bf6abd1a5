"""The Triton kernels of ``triton_steps``: one program for one image (ℓ2), or for one block of values."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

# The most channels whose mean and standard deviation each value selects in registers.
SELECTED_CHANNELS = tl.constexpr(4)


# The tests check every annotation of the package; ``no_type_check`` exempts those that are meant for Triton.
@triton.jit
@no_type_check
def _of_channel(table, channel, channels: tl.constexpr):
    """The entry of ``table`` for the ``channel`` of each value.

    The entries of few channels are loaded once a program, and each value selects its own in registers. Loaded value by
    value, they would take more instructions than the images, which arrive four values at a time.
    """
    if channels > SELECTED_CHANNELS:
        return tl.load(table + channel)
    entry = tl.load(table)
    for other in tl.static_range(1, channels):
        entry = tl.where(channel == other, tl.load(table + other), entry)
    return entry


@triton.jit
@no_type_check
def _read(adv, origin, gradient, std, at, within, row, channel, channels: tl.constexpr, network: tl.constexpr):
    """Iterate, centre and pixel gradient of an image at the offsets ``within`` the image; zeros beyond its end."""
    x = tl.load(adv + row + within, mask=at, other=0.0)
    c = tl.load(origin + row + within, mask=at, other=0.0)
    g = tl.load(gradient + row + within, mask=at, other=0.0).to(tl.float32)
    if network:
        g = g / _of_channel(std, channel, channels)
    return x, c, g


@triton.jit
@no_type_check
def _write(value, out, values, mean, std, at, within, row, channel, channels: tl.constexpr, network: tl.constexpr):
    """Store the result, and the normalised result as the input of the network."""
    tl.store(out + row + within, value, mask=at)
    if network:
        read = (value - _of_channel(mean, channel, channels)) / _of_channel(std, channel, channels)
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
def l2_whole(
    adv, origin, gradient, out, values, mean, std, size, eps, step_size,
    block: tl.constexpr, channels: tl.constexpr, network: tl.constexpr, ball: tl.constexpr,
):  # fmt: skip
    """One image that fits into registers: read once, written once."""
    row = tl.program_id(0).to(tl.int64) * size
    within = tl.arange(0, block)
    at = within < size
    channel = within % channels
    x, c, g = _read(adv, origin, gradient, std, at, within, row, channel, channels, network)
    largest = tl.max(tl.abs(g), 0)
    near, rest = _range(largest)
    unit = g * near * rest
    step = unit * _step_of(step_size, tl.sum(unit * unit, 0))
    if ball:
        moved = x - c + step
        value = c + moved * _shrink(tl.sqrt_rn(tl.sum(moved * moved, 0)), eps)
    else:
        value = x + step
    _write(_valid(value), out, values, mean, std, at, within, row, channel, channels, network)


@triton.jit
@no_type_check
def l2_passes(
    adv, origin, gradient, out, values, mean, std, size, eps, step_size,
    block: tl.constexpr, channels: tl.constexpr, network: tl.constexpr, ball: tl.constexpr,
):  # fmt: skip
    """One image of any size, block by block: the largest entry, the gradient's length, the distance, the result."""
    row = tl.program_id(0).to(tl.int64) * size
    lane = tl.arange(0, block)
    tops = tl.zeros((block,), tl.float32)
    for start in range(0, size, block):
        within = start + lane
        channel = within % channels
        _, _, g = _read(adv, origin, gradient, std, within < size, within, row, channel, channels, network)
        tops = tl.maximum(tops, tl.abs(g))
    near, rest = _range(tl.max(tops, 0))
    # Every lane has its own sum over the blocks, so no lane adds more than size / block terms in a row.
    squares = tl.zeros((block,), tl.float32)
    for start in range(0, size, block):
        within = start + lane
        channel = within % channels
        _, _, g = _read(adv, origin, gradient, std, within < size, within, row, channel, channels, network)
        unit = g * near * rest
        squares += unit * unit
    scale = _step_of(step_size, tl.sum(squares, 0))
    shrink = 1.0
    if ball:
        squares = tl.zeros((block,), tl.float32)
        for start in range(0, size, block):
            within = start + lane
            at = within < size
            channel = within % channels
            x, c, g = _read(adv, origin, gradient, std, at, within, row, channel, channels, network)
            moved = x - c + g * near * rest * scale
            squares += moved * moved
        shrink = _shrink(tl.sqrt_rn(tl.sum(squares, 0)), eps)
    for start in range(0, size, block):
        within = start + lane
        at = within < size
        channel = within % channels
        x, c, g = _read(adv, origin, gradient, std, at, within, row, channel, channels, network)
        step = g * near * rest * scale
        value = c + (x - c + step) * shrink if ball else x + step
        _write(_valid(value), out, values, mean, std, at, within, row, channel, channels, network)


@triton.jit
@no_type_check
def linf(
    adv, origin, gradient, out, values, mean, std, size, eps, step_size,
    block: tl.constexpr, channels: tl.constexpr, network: tl.constexpr,
):  # fmt: skip
    """A block of values of all images, laid end to end."""
    row = tl.program_id(0).to(tl.int64) * block
    within = tl.arange(0, block)
    at = within < size - row
    # The remainder of 64 bits once for the block, not for each value.
    channel = ((row % channels).to(tl.int32) + within) % channels
    x, c, g = _read(adv, origin, gradient, std, at, within, row, channel, channels, network)
    direction = tl.where(g > 0.0, 1.0, tl.where(g < 0.0, -1.0, 0.0))
    value = x + step_size * tl.where(_faulty(g) > 0, float("nan"), direction)
    value = tl.where(value < c - eps, c - eps, value)
    value = tl.where(value > c + eps, c + eps, value)
    _write(_valid(value), out, values, mean, std, at, within, row, channel, channels, network)


@triton.jit
@no_type_check
def augment(
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
