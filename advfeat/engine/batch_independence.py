"""Whether folded features treat each image of a batch on its own: known of most functions, otherwise tried out."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

# Functions that treat each image on its own, whatever their arguments.
PER_IMAGE: set[Any] = {
    operator.add, operator.iadd, operator.sub, operator.mul, operator.imul, operator.truediv, torch.add, torch.relu,
    torch.sigmoid, torch.tanh, F.relu, F.relu_, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.avg_pool2d,
    F.max_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, "relu", "relu_", "sigmoid", "tanh", "contiguous",
}  # fmt: skip
# Functions that treat each image on its own when they work along the channels or from the channels on.
FROM_CHANNELS_ON: set[Any] = {torch.cat, torch.flatten, "flatten"}
# Sides of the images that a network is tried on, in this order: small images cost little, and some networks take one
# size only.
SIDES = (8, 4, 16, 32, 28, 64, 24, 40, 48, 96, 128, 160, 192, 224, 227, 256, 299)


@torch.no_grad()
def check_each_alone(features: fx.GraphModule, *, named: str, channels: int, like: Tensor) -> None:
    """Refuse features that mix the images of a batch, found by two images in three batches.

    Nothing is tried where every layer and function is known to treat each image on its own (``folding.KNOWN``,
    ``PER_IMAGE``), as in all networks of ``models.build_model``. Otherwise there are two conditions. Beside other
    images, in a batch of the same size, the output for an image must be the same up to 1e-4 of the largest output: the
    same kernels run, so even rounding hardly differs. In a smaller batch, at another position, it must be the same up
    to 5 %, which rounding does not reach, so the batch size does not matter either. The images are as small as the
    network accepts. The global generators are not used.

    Args:
        named: name of the features in messages.
        channels: channels of an image.
        like: a tensor on the device and in the dtype of the features.

    Raises:
        TypeError: the answer to an image depends on the other images of its batch.

    Warns:
        UserWarning: the features take no image of the sizes in ``SIDES``, so they could not be tried.
    """
    layers: dict[str, Any] = dict(features.named_modules())
    if like.device.type == "meta" or all(_is_known_alone(node, layers) for node in features.graph.nodes):
        return
    for side in SIDES:
        first = torch.randn((7, channels, side, side), generator=torch.Generator().manual_seed(side))
        others = [0, 1, 4, 5, 6]
        second = first.clone()
        second[others] = 3 * first[others].flip(0) + torch.tensor([-2.0, 1.5, -1.0, 0.5, 2.0]).view(5, 1, 1, 1)
        smaller = torch.stack([second[5], first[3], second[0], second[1]])
        try:
            answers = [
                features(images.to(like, memory_format=torch.channels_last)) for images in (first, second, smaller)
            ]
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
            continue  # a network for larger images
        if [len(answer) for answer in answers] != [7, 7, 4]:
            continue  # a network that cuts images into pieces of a fixed size
        beside_first, beside_second, in_smaller = (answer.double().flatten(1) for answer in answers)
        if _differ(beside_first[2:4], beside_second[2:4], 1e-4) or _differ(beside_first[3:4], in_smaller[1:2], 0.05):
            raise TypeError(
                f"{named} mixes the images of a batch: its output for an image depends on the other "
                "images of the batch, so an attack on that image alone is no attack on the network"
            )
        return
    warnings.warn(
        f"{named} takes no square images of side {', '.join(map(str, SIDES))}, so whether it treats each image on its "
        "own is not known",
        stacklevel=3,
    )


def _is_known_alone(node: fx.Node, layers: dict[str, Any]) -> bool:
    if node.op == "call_module":
        layer = layers[str(node.target)]
        # A negative dimension, counted from the end, may be that of the images.
        return all(getattr(layer, name, None) in (1, None) for name in ("dim", "start_dim"))
    if node.op in ("call_function", "call_method"):
        along = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("start_dim"))
        return node.target in PER_IMAGE or (node.target in FROM_CHANNELS_ON and type(along) is int and along == 1)
    return node.op in ("placeholder", "output")


def _differ(one: Tensor, two: Tensor, share: float) -> bool:
    # Values that are not finite are another fault, which is not checked here.
    known = one.isfinite() & two.isfinite()
    one, two = torch.where(known, one, 0.0), torch.where(known, two, 0.0)
    return bool((one - two).abs().max() > share * torch.maximum(one.abs(), two.abs()).max()) if one.numel() else False
