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

    shapes: tuple[Any, ...]
    """Those of weight and bias when the compiled code took the layer over."""

    def kernel(self, kind: type[Any], *more: int) -> Any:
        """The weights as a ``Kernel`` or a ``DirectKernel``, made when they are first asked for."""
        kept: Any = self.__dict__.get("_kept")
        weight = self._parameters["weight"]
        if kept is None or kept[0] is not kind or kept[1] is not weight:
            kept = self.__dict__["_kept"] = kind, weight, kind(weight, *more)
        return kept[2]

    def has_its_shapes(self) -> bool:
        """Whether weight and bias have the shapes that they had; PyTorch answers for others, be it with an error."""
        return self.shapes == _shapes(self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a layer whose settings somebody changes is PyTorch's from then on."""
        if name in _SETTINGS and value != getattr(self, name):
            take_out(self)
            setattr(self, name, value)
        else:
            super().__setattr__(name, value)

    def __prepare_scriptable__(self) -> nn.Module:
        """What ``torch.jit.script`` asks for.

        Raises:
            TypeError: always. TorchScript cannot call the compiled code.
        """
        raise TypeError(
            f"torch.jit.script knows no compiled layers ({type(self).__name__}); script the network before it is "
            "frozen, or use torch.jit.trace"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _KEPT}


_KEPT = ("_kept", "_chain")  # what is made of the weights: see also compiled_chains
_SETTINGS = {"stride", "padding", "dilation", "groups", "padding_mode", "kernel_size", "in_channels", "out_channels",
             "in_features", "out_features", "approximate"}  # fmt: skip


def _shapes(layer: nn.Module) -> tuple[Any, ...]:
    return tuple(None if tensor is None else tensor.shape for tensor in layer._parameters.values())


def _take_over(layer: nn.Module, kind: type[nn.Module]) -> None:
    layer.__dict__["shapes"] = _shapes(layer)
    layer.__class__ = kind


class CompiledConv2d(_Compiled, nn.Conv2d):
    """A convolution with a square kernel, one stride and one padding, in one group."""

    def forward(self, images: Tensor) -> Tensor:
        """By minimal filtering where that saves multiplications, otherwise directly."""
        if not applies(images, self.weight, self.bias) or images.ndim != 4 or images.shape[1] != self.in_channels:
            return super().forward(images)
        if not self.has_its_shapes() or min(self.size(*images.shape[2:])) < 1:
            return super().forward(images)
        padding, stride = int(self.padding[0]), self.stride[0]
        if self.is_filtered_at(*images.shape[2:]):
            return convolution(images, self.kernel(Kernel), self.bias, padding=padding)
        return direct(images, self.kernel(DirectKernel, stride, padding), self.bias)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the outputs for images of this size."""
        padding, stride = int(self.padding[0]), self.stride[0]
        down, across = self.kernel_size
        return (height + 2 * padding - down) // stride + 1, (width + 2 * padding - across) // stride + 1

    def is_filtered_at(self, height: int, width: int) -> bool:
        """Whether it is by minimal filtering for images of this size, in whatever number."""
        return _is_filtered(self) and _filtering_saves(*self.size(height, width))


class TrainedConv2d(_Compiled, nn.Conv2d):
    """A 3×3 convolution of stride 1 whose weights are being trained, and so are transformed anew at every step."""

    def forward(self, images: Tensor) -> Tensor:
        """By minimal filtering where that pays for the number and size of the images, otherwise by PyTorch."""
        applicable = applies(images, self.weight, self.bias) and images.ndim == 4 and self.has_its_shapes()
        if applicable and images.shape[1] == self.in_channels and min(images.shape[2:]) + 2 * int(self.padding[0]) > 2:
            sizes = self.in_channels, self.out_channels, *images.shape[2:]
            padding = int(self.padding[0])
            if pays(*sizes, gradient="weight", batch=len(images), padding=padding):
                return convolution(images, self.kernel(Kernel), self.bias, padding=padding)
        return super().forward(images)


class CompiledLinear(_Compiled, nn.Linear):
    """A linear map: a convolution of images with one pixel."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Directly."""
        if not applies(inputs, self.weight, self.bias) or inputs.ndim != 2 or inputs.shape[1] != self.in_features:
            return super().forward(inputs)
        if not self.has_its_shapes():
            return super().forward(inputs)
        return direct(inputs, self.kernel(DirectKernel, 1, 0), self.bias)


class CompiledGELU(_Compiled, nn.GELU):
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
            _take_over(layer, COMPILED[type(layer)])


def take_out(network: nn.Module) -> None:
    """Undo ``put_in``."""
    for layer in network.modules():
        if type(layer) in _PLAIN:
            for name in (*_KEPT, "shapes"):
                layer.__dict__.pop(name, None)
            layer.__class__ = _PLAIN[type(layer)]


@contextmanager
def training(network: nn.Module) -> Iterator[None]:
    """Let the compiled code compute those convolutions of a network whose training gains from it, inside the block."""
    gaining = [layer for layer in network.modules() if type(layer) is nn.Conv2d and _can_compute(layer)]
    gaining = [layer for layer in gaining if _is_filtered(layer)]
    for layer in gaining:
        _take_over(layer, TrainedConv2d)
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
