"""Layers of a frozen network that the compiled convolutions compute: the same weights, the same answers to rounding.

An image gets the same bits alone, in any batch and with any number of threads, since nothing here depends on the size
of a batch: which code computes a layer follows from its weights and the size of its images alone. Where the compiled
code does not apply (see ``convolution_code.applies``), PyTorch computes the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from advfeat.engine.convolution_code import applies
from advfeat.engine.direct import MAX_TAPS, DirectKernel, direct, gelu
from advfeat.engine.winograd import Kernel, convolution, pays, tiles


class _Compiled(nn.Module):
    """The base of both kinds of layers: weights in the order of the compiled code, which copies and files leave out."""

    weight: Tensor

    def _kernel(self, kind: type[Any], *more: int) -> Any:
        kept: Any = self.__dict__.get("_kept")
        if type(kept) is not kind or kept.weight is not self.weight:
            kept = self.__dict__["_kept"] = kind(self.weight, *more)
        return kept

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_kept"}


class CompiledConv2d(_Compiled, nn.Conv2d):
    """A convolution with a square kernel, one stride and one padding, in one group."""

    def forward(self, images: Tensor) -> Tensor:
        """By minimal filtering where that saves multiplications, otherwise directly."""
        if not applies(images, self.weight, self.bias) or images.ndim != 4 or images.shape[1] != self.in_channels:
            return super().forward(images)
        padding, stride = int(self.padding[0]), self.stride[0]
        sides = [side + 2 * padding - window for side, window in zip(images.shape[2:], self.kernel_size, strict=True)]
        if min(sides) < 0:
            return super().forward(images)
        if _is_filtered(self) and _filtering_saves(sides[0] + 1, sides[1] + 1):
            return convolution(images, self._kernel(Kernel), self.bias, padding=padding)
        return direct(images, self._kernel(DirectKernel, stride, padding), self.bias)


class TrainedConv2d(_Compiled, nn.Conv2d):
    """A 3×3 convolution of stride 1 whose weights are being trained, and so are transformed anew at every step."""

    def forward(self, images: Tensor) -> Tensor:
        """By minimal filtering where that pays for the number and size of the images, otherwise by PyTorch."""
        padding = int(self.padding[0])
        applicable = applies(images, self.weight, self.bias) and images.ndim == 4
        if applicable and images.shape[1] == self.in_channels and min(images.shape[2:]) + 2 * padding > 2:
            sizes = self.in_channels, self.out_channels, *images.shape[2:]
            if pays(*sizes, gradient="weight", batch=len(images), padding=padding):
                return convolution(images, self._kernel(Kernel), self.bias, padding=padding)
        return super().forward(images)


class CompiledLinear(_Compiled, nn.Linear):
    """A linear map: a convolution of images with one pixel."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Directly."""
        if not applies(inputs, self.weight, self.bias) or inputs.ndim != 2 or inputs.shape[1] != self.in_features:
            return super().forward(inputs)
        return direct(inputs[:, :, None, None], self._kernel(DirectKernel, 1, 0), self.bias)[:, :, 0, 0]


class CompiledGELU(nn.GELU):
    """The error function's GELU, not the one with tanh."""

    def forward(self, values: Tensor) -> Tensor:
        """Each value alike, wherever it lies."""
        return gelu(values) if applies(values) else super().forward(values)


COMPILED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: CompiledConv2d, nn.Linear: CompiledLinear, nn.GELU: CompiledGELU,
}  # fmt: skip
_PLAIN: dict[type[nn.Module], type[nn.Module]] = {compiled: plain for plain, compiled in COMPILED.items()}
_PLAIN[TrainedConv2d] = nn.Conv2d


def put_in(network: nn.Module) -> None:
    """Let the compiled code compute all layers of a network that it can; they stay the same objects."""
    for layer in network.modules():
        if type(layer) in COMPILED and _can_compute(layer):
            layer.__class__ = COMPILED[type(layer)]


def take_out(network: nn.Module) -> None:
    """Undo ``put_in``."""
    for layer in network.modules():
        if type(layer) in _PLAIN:
            layer.__dict__.pop("_kept", None)
            layer.__class__ = _PLAIN[type(layer)]


@contextmanager
def training(network: nn.Module) -> Iterator[None]:
    """Let the compiled code compute those convolutions of a network whose training gains from it, inside the block."""
    gaining = [layer for layer in network.modules() if type(layer) is nn.Conv2d and _can_compute(layer)]
    gaining = [layer for layer in gaining if _is_filtered(layer)]
    for layer in gaining:
        layer.__class__ = TrainedConv2d
    try:
        yield
    finally:
        for layer in gaining:  # and no others: a frozen part keeps its own
            take_out(layer)


def _can_compute(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.Conv2d):
        return not isinstance(layer, nn.GELU) or layer.approximate == "none"
    return (
        layer.groups == 1 and layer.padding_mode == "zeros" and set(layer.dilation) == {1}
        and not isinstance(layer.padding, str) and len(set(layer.padding)) == len(set(layer.stride)) == 1
        and layer.kernel_size[0] * layer.kernel_size[1] <= MAX_TAPS
    )  # fmt: skip


def _is_filtered(layer: nn.Conv2d) -> bool:
    return (layer.kernel_size, layer.stride) == ((3, 3), (1, 1)) and layer.padding in ((0, 0), (1, 1))


def _filtering_saves(height: int, width: int) -> bool:
    """36 multiplications a tile instead of 9 an output, if the tiles are not mostly empty; transforms cost, too."""
    return height * width >= 6 * tiles(height, width)
