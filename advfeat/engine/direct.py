"""Convolutions of any kernel, linear maps and GELU, whose bits do not depend on the batch: float32, on a CPU.

PyTorch's take their sums in an order that depends on the number of images and threads. Here each output is one sum over
taps and channels in their order. It is as fast as a direct convolution can be, so it serves where ``winograd`` does
not: at strides, for 1×1 kernels, for the smallest images and for the head of a network.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from advfeat.engine.convolution_code import Kept, applies, compiled_code, place, team
from advfeat.engine.winograd import differentiable_gradients

MAX_TAPS = 300
"""Height times width of a kernel, at most."""


class _Part(NamedTuple):
    """Outputs at (row + i apart, column + j apart); they meet the inputs at (i stride, j stride) + each of ``taps``."""

    weights: Tensor
    row: int
    column: int
    apart: int
    stride: int
    taps: tuple[Any, Any]  # arrays of rows and columns


class DirectKernel:
    """The weights of a convolution in the order in which the C code reads them, kept until they change.

    Args:
        weight: (outputs, inputs, height, width), or (outputs, inputs) for a linear map; float32.
        stride: in both directions.
        padding: of zeros, on all sides.
    """

    def __init__(self, weight: Tensor, stride: int, padding: int) -> None:
        self.weight, self.stride, self.padding = weight, stride, padding
        self._kept = Kept(weight)

    def forward(self) -> list[_Part]:
        """All outputs at once."""

        def make(weight: Tensor, _: object) -> list[_Part]:
            weight = _as_kernel(weight)
            height, width = weight.shape[2:]
            taps = [(r, s) for r in range(height) for s in range(width)]
            at = [(r - self.padding, s - self.padding) for r, s in taps]
            return [_Part(_panels(_at(weight, taps)), 0, 0, 1, self.stride, _arrays(at))]

        parts: list[_Part] = self._kept.get("forward", make)
        return parts

    def backward(self) -> list[_Part]:
        """The gradient with respect to the images: a residue modulo the stride meets only the taps that lead to it."""

        def make(weight: Tensor, _: object) -> list[_Part]:
            return [self._residue(_as_kernel(weight), a, b) for a in range(self.stride) for b in range(self.stride)]

        parts: list[_Part] = self._kept.get("backward", make)
        return parts

    def _residue(self, weight: Tensor, row: int, column: int) -> _Part:
        height, width = weight.shape[2:]
        rows, columns = row + self.padding, column + self.padding
        taps = [(r, s) for r in range(height) for s in range(width)
                if (rows - r) % self.stride == 0 and (columns - s) % self.stride == 0]  # fmt: skip
        at = [((rows - r) // self.stride, (columns - s) // self.stride) for r, s in taps]
        return _Part(_panels(_at(weight.transpose(0, 1), taps)), row, column, self.stride, 1, _arrays(at))


def direct(images: Tensor, kernel: DirectKernel, bias: Tensor | None) -> Tensor:
    """``images`` convolved with a kernel, + ``bias``, where ``convolution_code.applies``; nothing is checked."""
    outputs: Tensor = _Direct.apply(images, _as_kernel(kernel.weight), bias, kernel)
    return outputs


class _Direct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, kernel: DirectKernel) -> Tensor:
        ctx.kernel, ctx.size = kernel, images.shape
        ctx.save_for_backward(weight, images if ctx.needs_input_grad[1] else None)
        sides = zip(images.shape[2:], weight.shape[2:], strict=True)
        size = [(side + 2 * kernel.padding - window) // kernel.stride + 1 for side, window in sides]
        return _convolve(images, kernel.forward(), bias, len(weight), size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, images = ctx.saved_tensors
        kernel, needed = ctx.kernel, list(ctx.needs_input_grad)
        of_images = None
        if needed[0] and not torch.is_grad_enabled() and applies(gradient):
            needed[0] = False
            of_images = _convolve(gradient, kernel.backward(), None, ctx.size[1], ctx.size[2:])
        others = differentiable_gradients(gradient, images, weight, ctx.size, kernel.stride, kernel.padding, needed)
        return of_images if others[0] is None else others[0], *others[1:], None


def gelu(values: Tensor) -> Tensor:
    """x (1 + erf(x / √2)) / 2 of each value, where ``convolution_code.applies``.

    PyTorch computes the last values of a thread's share in another way than the others.
    """
    outputs: Tensor = _Gelu.apply(values)
    return outputs


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return _each_gelu(values, None)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        if torch.is_grad_enabled() or not applies(gradient):
            inner: Tensor = torch.ops.aten.gelu_backward(gradient, values)
            return inner
        return _each_gelu(values, gradient)


def _each_gelu(values: Tensor, gradient: Tensor | None) -> Tensor:
    last = values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    values = values.contiguous(memory_format=layout)
    gradient = gradient if gradient is None else gradient.contiguous(memory_format=layout)
    made = torch.empty_like(values)
    compiled_code().winograd_gelu(
        values.data_ptr(), place(gradient), made.data_ptr(), values.numel(), torch.get_num_threads(), team()
    )
    return made


def _convolve(images: Tensor, parts: list[_Part], bias: Tensor | None, outputs: int, size: Any) -> Tensor:
    library, threads = compiled_code(), torch.get_num_threads()
    images = images.contiguous(memory_format=torch.channels_last)
    count, channels, height, width = images.shape
    bias = bias if bias is None else bias.contiguous()
    made = torch.empty(
        (count, outputs, *size), dtype=torch.float32, device="cpu", memory_format=torch.channels_last
    )  # fmt: skip
    for part in parts:
        down, across = (
            -(-(side - first) // part.apart) for side, first in zip(size, (part.row, part.column), strict=True)
        )
        if down > 0 and across > 0:
            library.winograd_direct(
                images.data_ptr(), _zeros(channels).data_ptr(), part.weights.data_ptr(), place(bias), made.data_ptr(),
                count, height, width, channels, outputs, *size, part.row, part.column, down, across, part.apart,
                part.stride, len(part.taps[0]), *part.taps, threads, team(),
            )  # fmt: skip
    return made


@functools.cache
def _zeros(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.float32, device="cpu")


def _as_kernel(weight: Tensor) -> Tensor:
    return weight if weight.ndim == 4 else weight[:, :, None, None]


def _at(weight: Tensor, taps: list[tuple[int, int]]) -> Tensor:
    """(outputs, taps × inputs)."""
    return (
        torch.stack([weight[:, :, r, s] for r, s in taps], 1).flatten(1) if taps else weight.new_empty(len(weight), 0)
    )


def _arrays(at: list[tuple[int, int]]) -> tuple[Any, Any]:
    kind = ctypes.c_int * len(at)
    return kind(*(row for row, _ in at)), kind(*(column for _, column in at))


def _panels(matrix: Tensor) -> Tensor:
    """Rows of a matrix in panels as wide as a register block, the rest in panels as wide as a register."""
    library = compiled_code()
    lanes, depth = library.winograd_width(), matrix.shape[1]
    wide = lanes * library.winograd_panel()
    padded = matrix.new_zeros(-(-len(matrix) // lanes) * lanes, depth)
    padded[: len(matrix)] = matrix
    whole = len(padded) // wide * wide
    parts = [padded[:whole].reshape(-1, wide, depth), padded[whole:].reshape(-1, lanes, depth)] if depth else [padded]
    return torch.cat([part.transpose(-2, -1).reshape(-1) for part in parts])
