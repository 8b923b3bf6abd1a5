"""The convolutions of frozen networks and of training on a CPU, layer by layer against float64, before any timing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat.bench.gate import U, Verdict
from advfeat.engine.compiled_layers import put_in

# Winograd's transforms at the points 0, 1, -1, 2, -2 and infinity: of inputs, of weights, and of products to outputs.
# Then, for the gradient of the weights, of the outputs' gradient, and of products to weights.
INPUTS = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0),
          (0, 4, 0, -5, 0, 1))  # fmt: skip
WEIGHTS = ((1 / 4, 0, 0), *(((-1 / 6, -s / 6, -1 / 6)) for s in (1, -1)), *((1 / 24, s / 12, 1 / 6) for s in (1, -1)),
           (0, 0, 1))  # fmt: skip
OUTPUTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
GRADIENTS = ((1 / 4, 0, 0, 0), *((-1 / 6, -s / 6, -1 / 6, -s / 6) for s in (1, -1)),
             *((1 / 24, s / 12, 1 / 6, s / 3) for s in (1, -1)), (0, 0, 0, 1))  # fmt: skip
TAPS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 1))

LAYERS = {
    "3×3": ((3, 17, 21, 7, 9), 3, 1, 1),
    "3×3, many channels": ((2, 64, 48, 8, 8), 3, 1, 1),
    "3×3 without padding": ((2, 16, 16, 6, 10), 3, 1, 0),
    "3×3 of stride 2": ((2, 16, 24, 9, 8), 3, 2, 1),
    "1×1 of stride 2": ((2, 16, 24, 8, 7), 1, 2, 0),
    "2×2": ((2, 3, 24, 5, 6), 2, 1, 0),
}
"""Layers of the gate: images, inputs, outputs, height and width; then kernel, stride and padding."""


def check_convolutions() -> list[Verdict]:
    """Compare the layers that ``compiled_layers`` puts into frozen networks with float64: outputs and gradients.

    The bound. A number that went through k roundings on its way into a sum is in it with a relative error of at most
    γ_k = k U / (1 − k U) (Higham, *Accuracy and Stability of Numerical Algorithms*, lemma 3.1). So an output is off by
    at most γ_k times the same sum over absolute values. In a direct sum over d products k is d + 1. In a filtering over
    c channels it is c + 17: at most 6 roundings in the transform of the inputs, 2 in that of the weights, 6 in that of
    the outputs, c + 1 in the sum, 2 for a bias; the sum over absolute values goes through the absolute values of the
    transforms. Over t tiles it is t + t/96 + 22 for the weights, since the gradient's transform has 8 roundings.
    ``tests/test_winograd.py`` counts them. Either code may compute a layer, so the larger bound holds.

    A verdict gives the output whose error is the largest share of its bound.
    """
    verdicts: list[Verdict] = []
    for name, ((count, channels, filters, height, width), window, stride, padding) in LAYERS.items():
        draw = torch.Generator().manual_seed(len(verdicts))
        layer = nn.Conv2d(channels, filters, window, stride=stride, padding=padding, bias=False)
        images = torch.randn((count, channels, height, width), generator=draw)
        weight = torch.randn(layer.weight.shape, generator=draw)
        with torch.no_grad():
            layer.weight.copy_(weight)
        put_in(layer)
        outputs = layer(images.requires_grad_())
        gradient = torch.randn(outputs.shape, generator=draw)
        found = [outputs, *torch.autograd.grad(outputs, (images, layer.weight), gradient)]
        exact = _convolution_and_gradients(images, weight, gradient, stride, padding)
        sizes = _convolution_and_gradients(images.abs(), weight.abs(), gradient.abs(), stride, padding)
        bounds = [_gamma(terms + 1) * size for terms, size in zip(
            (weight[0].numel(), weight[:, 0].numel(), gradient[:, 0].numel()), sizes, strict=True)]  # fmt: skip
        if (window, stride) == (3, 1):
            filtering = _filtering_bounds(images.detach(), weight, gradient, padding)
            bounds = [torch.maximum(one, two) for one, two in zip(bounds, filtering, strict=True)]
        for what, one, two, bound in zip(("outputs", "images", "weights"), found, exact, bounds, strict=True):
            off = (one.detach().double() - two).abs()
            worst = torch.where(off == 0, 0, off / bound).nan_to_num(nan=math.inf).argmax()
            verdicts.append(Verdict(f"{name}: {what}", float(off.flatten()[worst]), float(bound.flatten()[worst])))
    return verdicts


def _gamma(roundings: int) -> float:
    return roundings * U / (1 - roundings * U)


def _convolution_and_gradients(
    images: Tensor, weight: Tensor, gradient: Tensor, stride: int, padding: int
) -> list[Tensor]:
    one, two = (values.detach().double().requires_grad_() for values in (images, weight))
    outputs = F.conv2d(one, two, stride=stride, padding=padding)
    return [outputs.detach(), *torch.autograd.grad(outputs, (one, two), gradient.double())]


def _filtering_bounds(images: Tensor, weight: Tensor, gradient: Tensor, padding: int) -> list[Tensor]:
    def outputs(x: Tensor, w: Tensor, size: torch.Size, pad: int) -> Tensor:
        products = torch.einsum("ncdaij,kcij->nkdaij", _through(INPUTS, _tiles(x, pad, 6, size)), _through(WEIGHTS, w))
        y = _through(OUTPUTS, products).permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)
        return _gamma(x.shape[1] + 17) * y[:, :, : size[0], : size[1]]

    v = _through(INPUTS, _tiles(images, padding, 6, gradient.shape[2:]))
    g = _through(GRADIENTS, _tiles(gradient, 0, 4, gradient.shape[2:]))
    tiles = v.shape[0] * v.shape[2] * v.shape[3]
    of_weights = _through(TAPS, torch.einsum("ncdaij,nkdaij->kcij", v, g))
    return [
        outputs(images, weight, gradient.shape[2:], padding),
        outputs(gradient, weight.flip(2, 3).transpose(0, 1), images.shape[2:], 2 - padding),
        _gamma(tiles + tiles // 96 + 22) * of_weights,
    ]


def _tiles(images: Tensor, padding: int, side: int, size: torch.Size) -> Tensor:
    """Windows, four apart, that lead to outputs of this size: (n, c, down, across, side, side)."""
    ends = [
        4 * (-(-length // 4) - 1) + side - have - padding for length, have in zip(size, images.shape[2:], strict=True)
    ]
    return F.pad(images, (padding, ends[1], padding, ends[0])).unfold(2, side, 4).unfold(3, side, 4)


def _through(matrix: Sequence[Sequence[float]], values: Tensor) -> Tensor:
    """|matrix| |values| |matrix|ᵀ in the last two dimensions."""
    absolute = torch.tensor(matrix, dtype=torch.float64).abs()
    return absolute @ values.double().abs() @ absolute.T
