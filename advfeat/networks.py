"""Small networks: layers from a normalised image to a representation. ``models`` adds the normalisation and the head.

============== ================================================================== ====================
name           what it is                                                         10⁶ multiply-adds
============== ================================================================== ====================
cnn4           four convolutions on patches, for the planted world                1.3
resnet9        small and quick to train, with a whitened stem                     77
============== ================================================================== ====================

The multiply-adds are those of one 32×32 image, as ``models.build_model`` makes the network without further arguments.
The architectures of the paper are in ``torchvision_networks``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

# The filters of ``whitening.whiten``: as many as a 2×2 patch has values, and their negatives.
WHITENED = 24


class Residual(nn.Module):
    """x + block(x)."""

    def __init__(self, *block: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*block)

    def forward(self, inputs: Tensor) -> Tensor:
        """Add the block's output to its input."""
        summed: Tensor = inputs + self.block(inputs)
        return summed


def block_cosines(patch: int, boost: float) -> nn.Conv2d:
    """A fixed layer on unshuffled patches: their cosine transform, high frequencies up to ``boost`` times as large.

    Coefficient (u, v) of the p×p pixels of a channel is multiplied by 1 + (boost − 1) · min(1, (u + v) / (p − 1)). The
    transform is orthonormal, so with ``boost=1`` it would be a mere rotation. Natural training finds faint
    high-frequency features in the end; the boost lets a small network find them within seconds.
    """
    index = torch.arange(float(patch))
    cosines = torch.cos(math.pi * (index + 0.5) * index[:, None] / patch) * math.sqrt(2 / patch)
    cosines[0] /= math.sqrt(2)
    size = patch**2
    basis = torch.einsum("ui,vj->uvij", cosines, cosines).reshape(size, size)
    gain = 1 + (boost - 1) * ((index[:, None] + index) / (patch - 1)).clamp(max=1).reshape(size, 1)
    layer = nn.Conv2d(3 * size, 3 * size, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.kron(torch.eye(3), gain * basis)[:, :, None, None])
    return layer.requires_grad_(False)


def cnn4(width: int) -> tuple[nn.Module, int]:
    """Four convolutions on 4×4 patches: a step costs milliseconds on a CPU. Enough for the planted world only."""

    def block(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    features = nn.Sequential(
        nn.PixelUnshuffle(4),
        block_cosines(4, boost=1.7),
        *block(48, width, 1, 1),
        *block(width, width, 3, 1),
        *block(width, 2 * width, 3, 2),
        *block(2 * width, 2 * width, 3, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return features, 2 * width


def resnet9(width: int) -> tuple[nn.Module, int]:
    """Nine layers: a 2×2 stem that ``whitening.whiten`` sets from data, seven 3×3 convolutions, the head.

    Width 64 makes 77 million multiply-adds at 32×32.
    """
    second, third = 9 * width // 4, 4 * width
    features = nn.Sequential(
        nn.Conv2d(3, WHITENED, 2),
        nn.GELU(),
        *_conv(WHITENED, width, pool=True),
        *_conv(width, second, pool=True),
        Residual(*_conv(second, second), *_conv(second, second)),
        *_conv(second, third, pool=True),
        Residual(*_conv(third, third), *_conv(third, third)),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
    )
    for layer in features.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            # The first filters start as the identity: every layer passes its input on from the first step.
            nn.init.dirac_(layer.weight[: layer.in_channels])
    return features, third


# Name -> (constructor of (features, representation size) from a width, default width, logit scale).
SMALL_NETWORKS: dict[str, tuple[Callable[[int], tuple[nn.Module, int]], int, float]] = {
    "cnn4": (cnn4, 32, 1.0),
    "resnet9": (resnet9, 64, 0.2),
}


def _conv(inputs: int, outputs: int, *, pool: bool = False) -> list[nn.Module]:
    # Pooling before the normalisation makes that layer and the activation four times cheaper.
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(2))
    return [*layers, nn.BatchNorm2d(outputs), nn.GELU()]
