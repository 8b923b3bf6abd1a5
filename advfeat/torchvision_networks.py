"""torchvision's architectures, made for 32×32 images, at a width, a depth and with a stem of choice.

============== ================================================================== ====================
name           what it is                                                         10⁶ multiply-adds
============== ================================================================== ====================
resnet18       torchvision's, 3×3 stem                                            555
resnet50       torchvision's, 3×3 stem                                            1,298
inception_v3   torchvision's, stem of stride 1, no auxiliary head, no dropout     3,631
densenet       torchvision's DenseNet-121, 3×3 stem                               888
vgg16          the convolutions of torchvision's VGG-16 with BatchNorm            313
============== ================================================================== ====================

The multiply-adds are counted as in ``networks``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from advfeat import inputs
from advfeat.networks import WHITENED, block_cosines
from advfeat.onednn import is_narrow_strided, with_strides_apart

# torchvision's networks begin with so many channels; a width of 64 leaves them as they are.
FULL_WIDTH = 64


@dataclass(frozen=True)
class ArchitectureScale:
    """The part of torchvision's networks that is kept.

    Attributes:
        width: channels of the first stage. Every channel count is multiplied by width / 64.
        depth: at most so many blocks in each stage (convolutions in VGG-16, layers in DenseNet); None keeps all.
        patch: side of the square of pixels that the first layer sees as one point.
        boost: how many times as large the highest frequencies inside a patch are made, see ``block_cosines``. 1 leaves
            the patches as they are.
        whitened: whether a 2×2 layer comes first that ``whitening.whiten`` sets from data, as in ``resnet9``: at every
            pixel, or with ``patch=2`` once a patch. Fine detail, faint in natural images, is then as loud as the rest.

    Raises:
        ValueError: ``width`` is not a positive multiple of 4, ``depth`` or ``boost`` not positive, ``patch`` not 1, 2
            or 4, a ``boost`` without patches, or ``whitened`` with a boost or patches of 4.
    """

    width: int = FULL_WIDTH
    depth: int | None = None
    patch: int = 1
    boost: float = 1.0
    whitened: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "depth", "patch"):
            if name != "depth" or self.depth is not None:
                inputs.whole(name, getattr(self, name))
        inputs.number("boost", self.boost)
        inputs.flag("whitened", self.whitened)
        # Every channel count is a multiple of 16, so these widths scale all of them exactly, and concatenated branches
        # still fit together.
        if self.width < 4 or self.width % 4:
            raise ValueError(f"width must be a positive multiple of 4, got {self.width}")
        if self.depth is not None and self.depth < 1:
            raise ValueError(f"depth must be 1 or more, got {self.depth}")
        if self.patch not in (1, 2, 4):
            raise ValueError(f"patch must be 1, 2 or 4, got {self.patch}")
        if not (self.boost > 0 and (self.boost == 1 or self.patch > 1)):
            raise ValueError(f"boost must be positive, and 1 where patch is 1, got {self.boost}")
        if self.whitened and (self.patch > 2 or self.boost != 1):
            raise ValueError(
                f"whitened takes a patch of 1 or 2 and no boost, got patch={self.patch}, boost={self.boost}"
            )

    def blocks(self, count: int) -> int:
        """How many of ``count`` blocks of a stage are kept."""
        return count if self.depth is None else min(count, self.depth)


def resnet18(scale: ArchitectureScale) -> tuple[nn.Module, int]:
    """torchvision's ResNet-18; the stem is a 3×3 convolution of stride 1 without pooling.

    Source: He et al. 2016.
    """
    from torchvision.models.resnet import BasicBlock  # late, here and below: torchvision takes a second to import

    return _resnet(BasicBlock, (2, 2, 2, 2), scale)


def resnet50(scale: ArchitectureScale) -> tuple[nn.Module, int]:
    """torchvision's ResNet-50; the stem is a 3×3 convolution of stride 1 without pooling.

    Source: He et al. 2016.
    """
    from torchvision.models.resnet import Bottleneck

    return _resnet(Bottleneck, (3, 4, 6, 3), scale)


def densenet(scale: ArchitectureScale) -> tuple[nn.Module, int]:
    """torchvision's DenseNet-121; the stem is a 3×3 convolution of stride 1 without pooling.

    Source: Huang et al. 2017.
    """
    from torchvision.models.densenet import DenseNet

    with torch.device("meta"):
        network = DenseNet(block_config=tuple(scale.blocks(n) for n in (6, 12, 24, 16)))
        network.features.conv0 = nn.Conv2d(3, FULL_WIDTH, 3, padding=1, bias=False)
    size = network.classifier.in_features
    network.classifier = nn.Identity()
    network.features.pool0 = nn.Identity()
    return _rebuilt(network, size, scale)


def inception_v3(scale: ArchitectureScale) -> tuple[nn.Module, int]:
    """torchvision's Inception-v3, without auxiliary head, dropout and input transform.

    The five convolutions of the stem keep the resolution: stride 1, padding, no pooling between them.

    Source: Szegedy et al. 2016.
    """
    from torchvision.models.inception import Inception3, InceptionA

    with torch.device("meta"):
        # Dropout would draw from the global generator, and a run that was stopped would not go on as it began.
        network = Inception3(aux_logits=False, transform_input=False, init_weights=False, dropout=0.0)
        if scale.blocks(3) == 1:
            network.Mixed_5b = InceptionA(192, pool_features=64)  # as many channels as the last of its stage has
    size = network.fc.in_features if scale.blocks(3) > 1 else 1280  # channels of 7b, or of 7a
    network.fc = network.maxpool1 = network.maxpool2 = nn.Identity()
    for block in (network.Conv2d_1a_3x3, network.Conv2d_2a_3x3, network.Conv2d_4a_3x3):
        block.conv.stride, block.conv.padding = (1, 1), (1, 1)
    # The reductions 6a and 7a are the first blocks of their stages.
    for stage in (("5b", "5c", "5d"), ("6a", "6b", "6c", "6d", "6e"), ("7a", "7b", "7c")):
        for name in stage[scale.blocks(len(stage)) :]:
            setattr(network, f"Mixed_{name}", nn.Identity())
    return _rebuilt(network, size, scale)


def vgg16(scale: ArchitectureScale) -> tuple[nn.Module, int]:
    """The convolutions of torchvision's VGG-16 with BatchNorm, averaged: its hidden layers are made for 224×224.

    Patches replace poolings from the front: after patches of 4×4 the first two are left out.

    Source: Simonyan and Zisserman 2015.
    """
    from torchvision.models.vgg import make_layers

    plan: list[str | int] = []
    for stage, (channels, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        plan += [channels] * scale.blocks(count)
        if 2**stage >= scale.patch:
            plan.append("M")
    with torch.device("meta"):
        network = nn.Sequential(make_layers(plan, batch_norm=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return _rebuilt(network, 512, scale)


TORCHVISION: dict[str, Callable[[ArchitectureScale], tuple[nn.Module, int]]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "inception_v3": inception_v3,
    "densenet": densenet,
    "vgg16": vgg16,
}


def _resnet(block: type, counts: tuple[int, ...], scale: ArchitectureScale) -> tuple[nn.Module, int]:
    from torchvision.models.resnet import ResNet

    with torch.device("meta"):
        network = ResNet(block, [scale.blocks(count) for count in counts])
        network.conv1 = nn.Conv2d(3, FULL_WIDTH, 3, padding=1, bias=False)
    size = network.fc.in_features
    network.fc = network.maxpool = nn.Identity()
    return _rebuilt(network, size, scale)


def _rebuilt(plan: nn.Module, size: int, scale: ArchitectureScale) -> tuple[nn.Module, int]:
    """The network that ``plan``, which holds no memory, describes at full width, at the width and stem of ``scale``.

    Filters are drawn from He's normal distribution, as torchvision does for three of the four families.
    """

    def scaled(channels: int) -> int:
        seen = WHITENED if scale.whitened else 3 * scale.patch**2
        return seen if channels == 3 else channels * scale.width // FULL_WIDTH

    for parent in list(plan.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d):
                inputs, outputs = scaled(layer.in_channels), scaled(layer.out_channels)
                # Without a bias, also where torchvision has one: a BatchNorm follows and subtracts it again.
                window: Any = {key: getattr(layer, key) for key in ("kernel_size", "stride", "padding")}
                fresh = nn.Conv2d(inputs, outputs, **window, bias=False)
                nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
                setattr(parent, name, fresh)
            elif isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, nn.BatchNorm2d(scaled(layer.num_features), eps=layer.eps))
    for parent in list(plan.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Sequential) and any(map(is_narrow_strided, layer.children())):
                setattr(parent, name, with_strides_apart(layer))
    if scale.whitened:
        # At every pixel it is padded, so that the five poolings of VGG-16 still fit.
        stem = nn.Conv2d(3, WHITENED, 2, stride=scale.patch, padding=scale.patch % 2)
        return nn.Sequential(stem, nn.GELU(), plan), scaled(size)
    if scale.patch == 1:
        return plan, scaled(size)
    transform = [] if scale.boost == 1 else [block_cosines(scale.patch, scale.boost)]
    return nn.Sequential(nn.PixelUnshuffle(scale.patch), *transform, plan), scaled(size)
