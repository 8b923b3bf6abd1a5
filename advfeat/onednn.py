"""Convolutions that oneDNN does not train correctly on a CPU: found, replaced and refused."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from advfeat import inputs

# As many channels as the widest vector of a CPU holds in float32. oneDNN works on so many at once, with AVX2 on half.
_VECTOR = 16


def narrow_strided(network: nn.Module) -> list[str]:
    """Names of the layers that must not be trained on a CPU: 1×1, with a stride, on fewer than 16 channels.

    For the weight gradient of such a convolution, with channels last, oneDNN writes beyond its memory: with AVX2 below
    8 channels, with AVX-512 below 16. The process ends, or hangs, or goes on with wrong gradients and without a word.
    Forward passes and gradients with respect to images are right, so layers whose weights are fixed are not listed.

    Source: uxlfoundation/oneDNN, issue 6035; seen with oneDNN 3.13, as in PyTorch 2.15.
    """
    return [name for name, layer in network.named_modules() if is_narrow_strided(layer)]


def is_narrow_strided(layer: nn.Module) -> bool:
    """Whether the layer itself is one of those that ``narrow_strided`` names."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.weight.requires_grad
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.padding in ((0, 0), "valid")
        and layer.groups == 1
        and layer.in_channels < _VECTOR
    )


def with_strides_apart(stack: nn.Sequential) -> nn.Sequential:
    """The same map without ``narrow_strided`` layers in ``stack`` itself: the points are picked first, then mixed.

    A maximum over one point is that point. Layers keep their names, so weights that were saved still fit.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in stack.named_children():
        if isinstance(layer, nn.Conv2d) and is_narrow_strided(layer):
            layers[f"stride_of_{name}"] = nn.MaxPool2d(1, stride=layer.stride)
            layer.stride = (1, 1)
        layers[name] = layer
    return nn.Sequential(layers)


def check_trainable(model: nn.Module) -> None:
    """Refuse a network that has layers whose weight gradients cannot be trusted on this device.

    See ``narrow_strided``: on a CPU oneDNN writes beyond its memory there. Networks of ``models.build_model`` have
    no such layer.

    Raises:
        ValueError: there are such layers, their weights are to be trained, and oneDNN would do it; named, with a cure.
    """
    inputs.network(model)
    on_cpu = {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    if not (on_cpu and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return
    if narrow := narrow_strided(model):
        raise ValueError(
            f"model has 1×1 convolutions with a stride on fewer than 16 channels: {', '.join(narrow)}. On a CPU oneDNN "
            "may crash or return wrong weight gradients there; put nn.MaxPool2d(1, stride=...) before each and give it "
            "stride 1, which is the same function, or 16 channels, or fix its weights with requires_grad_(False)"
        )
