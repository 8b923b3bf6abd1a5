"""Networks. Normalisation is their first layer, so everything outside speaks [0, 1] pixels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from advfeat import kernels

# Per-channel mean and spread of CIFAR-10's training pixels. Any sensible constants serve: they only set the scale
# on which the first layer sees its input.
CHANNEL_MEAN = (0.4914, 0.4822, 0.4465)
CHANNEL_STD = (0.2470, 0.2435, 0.2616)


class Classifier(nn.Module):
    """Images to logits: normalise, ``features`` (n, d), linear ``head``.

    Args:
        features: maps normalised images (n, 3, h, w) to the representation (n, d).
        head: linear map from the representation to logits.
        logit_scale: constant factor on the logits; below 1 it softens the start of training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Module, head: nn.Linear, *, logit_scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(CHANNEL_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(CHANNEL_STD).view(1, 3, 1, 1))
        self.features = features
        self.head = head
        self.logit_scale = logit_scale
        self.dtype = torch.float32

    def representation(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """The penultimate layer, float32."""
        normalised = ((images - self.mean) / self.std).to(self.dtype, memory_format=torch.channels_last)
        return self.features(normalised).float()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        """Logits, float32 whatever the network computes in."""
        return self.head(self.representation(images)) * self.logit_scale


class Residual(nn.Module):
    """x + block(x)."""

    def __init__(self, *block: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*block)

    def forward(self, inputs: Tensor) -> Tensor:
        """Add the block's output to its input."""
        return inputs + self.block(inputs)


def _conv(inputs: int, outputs: int, *, pool: bool = False) -> list[nn.Module]:
    # Pooling before the normalisation makes that layer and the activation four times cheaper.
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
    if pool:
        layers.append(nn.MaxPool2d(2))
    return [*layers, nn.BatchNorm2d(outputs), nn.GELU()]


def _block_cosines(boost: float = 1.7) -> nn.Conv2d:
    """A fixed layer on unshuffled 4×4 patches: their cosine transform, high frequencies up to ``boost`` times as large.

    The transform is orthonormal, so with ``boost=1`` it would be a mere rotation. Natural training finds faint
    high-frequency features in the end; the boost lets so small a network find them within seconds.
    """
    index = torch.arange(4.0)
    cosines = torch.cos(math.pi * (index + 0.5) * index[:, None] / 4) / math.sqrt(2)
    cosines[0] /= math.sqrt(2)
    patch = torch.einsum("ui,vj->uvij", cosines, cosines).reshape(16, 16)
    gain = 1 + (boost - 1) * ((index[:, None] + index) / 3).clamp(max=1).reshape(16, 1)
    layer = nn.Conv2d(48, 48, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.kron(torch.eye(3), gain * patch)[:, :, None, None])
    return layer.requires_grad_(False)


def _cnn4(width: int) -> tuple[nn.Module, int]:
    # Four convolutions on 4×4 patches: a step costs milliseconds on a CPU. Enough for the planted world only.
    def block(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    features = nn.Sequential(
        nn.PixelUnshuffle(4),
        _block_cosines(),
        *block(48, width, 1, 1),
        *block(width, width, 3, 1),
        *block(width, 2 * width, 3, 2),
        *block(2 * width, 2 * width, 3, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return features, 2 * width


def _resnet9(width: int) -> tuple[nn.Module, int]:
    # Nine layers: a 2×2 stem that ``whiten`` sets from data, six 3×3 convolutions in the residual stages and one
    # before them, the head. Width 64 makes 77 million multiply-adds at 32×32.
    second, third = 9 * width // 4, 4 * width
    features = nn.Sequential(
        nn.Conv2d(3, 24, 2),
        nn.GELU(),
        *_conv(24, width, pool=True),
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


def _resnet18(width: int) -> tuple[nn.Module, int]:
    from torchvision.models.resnet import BasicBlock, ResNet  # late: torchvision takes a second to import

    if width != 64:
        raise ValueError(f"resnet18 has width 64, got {width}")
    network = ResNet(BasicBlock, [2, 2, 2, 2])
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)  # 32×32 images: no stride, no pooling at the stem
    network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    return network, 512


# Name -> (constructor of (features, representation size) from a width, default width, logit scale).
_NETWORKS: dict[str, tuple[Callable[[int], tuple[nn.Module, int]], int, float]] = {
    "cnn4": (_cnn4, 32, 1.0),
    "resnet9": (_resnet9, 64, 0.2),
    "resnet18": (_resnet18, 64, 1.0),
}


def build_model(name: str, *, classes: int = 10, width: int | None = None, seed: int = 0) -> Classifier:
    """A fresh network with weights drawn from ``seed``.

    Args:
        name: ``cnn4`` (tiny, for the planted world), ``resnet9`` (small: about 77 million multiply-adds at width 64)
            or ``resnet18`` (torchvision's, with a 3×3 stem for 32×32 images, 555 million).
        width: channels of the first stage; the default is the network's own.

    Raises:
        ValueError: unknown name, or a number of classes or a width below 1.
    """
    if name not in _NETWORKS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(sorted(_NETWORKS))}")
    construct, default_width, logit_scale = _NETWORKS[name]
    width = default_width if width is None else width
    if classes < 1 or width < 1:
        raise ValueError(f"classes and width must be positive, got classes={classes}, width={width}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features, size = construct(width)
        model = Classifier(features, nn.Linear(size, classes, bias=False), logit_scale=logit_scale)
    return model.to(memory_format=torch.channels_last)


def whiten(model: Classifier, images: Float[Tensor, "n 3 h w"], *, floor: float = 2e-2) -> Classifier:
    """Set a 2×2 stem to the whitening filters of the images' patches, and keep it there; other networks pass through.

    The filters are the eigenvectors of the patches' covariance, each divided by the root of its eigenvalue (plus
    ``floor``, in squared normalised pixel units), and their negatives. Training starts with decorrelated input, which
    saves epochs. The filters are not trained.

    Source: KellerJordan/cifar10-airbench, which credits Page 2019.
    """
    stem = next(model.features.children(), None)
    if not (isinstance(stem, nn.Conv2d) and stem.kernel_size == (2, 2)):
        return model
    with torch.no_grad():
        normalised = (images[:5000] - model.mean) / model.std
        patches = F.unfold(normalised, 2).transpose(1, 2).reshape(-1, 12)
        # On the CPU in float64: eigenvectors are sensitive, and two devices should agree.
        values, vectors = torch.linalg.eigh(torch.cov(patches.T.cpu().double()))
        filters = (vectors / (values + floor).sqrt()).T.reshape(12, 3, 2, 2)
        stem.weight.copy_(torch.cat([filters, -filters]))
        if stem.bias is not None:
            stem.bias.zero_()
    stem.requires_grad_(False)
    return model


def freeze(model: Classifier, *, dtype: torch.dtype | None = None) -> Classifier:
    """A copy for inference and attacks: eval mode, BatchNorm folded into convolutions, no weight gradients.

    Folding is exact up to rounding. A BatchNorm that follows no convolution stays. Without weight gradients an
    attack step costs two forward passes instead of three.

    Args:
        dtype: what the features compute in; default: bfloat16 where the hardware gains from it, else float32.
            Images, logits and the head stay float32.

    Raises:
        TypeError: the features cannot be traced, with the reason.
    """
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    try:
        frozen.features = _fold_batch_norm(fx.symbolic_trace(frozen.features))
    except fx.proxy.TraceError as error:
        raise TypeError(f"{type(model.features).__name__} cannot be traced, so it cannot be folded: {error}") from error
    frozen.dtype = dtype or kernels.fast_dtype(model.head.weight.device.type)
    frozen.features.to(frozen.dtype).to(memory_format=torch.channels_last)
    return frozen.eval()  # once more: tracing leaves fresh containers in training mode


def _fold_batch_norm(graph: fx.GraphModule) -> fx.GraphModule:
    """Fold each BatchNorm that follows a convolution, directly or through a max-pooling, into that convolution."""
    layers = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not isinstance(layers[node.target], nn.BatchNorm2d):
            continue
        norm = layers[node.target]
        before = node.args[0]
        # A maximum commutes with a per-channel increasing map only: the scale must be positive.
        positive = norm.weight is not None and bool((norm.weight > 0).all())
        if _is_layer(before, layers, nn.MaxPool2d) and positive and len(before.users) == 1:
            before = before.args[0]
        if _is_layer(before, layers, nn.Conv2d) and len(before.users) == 1:
            parent, _, leaf = before.target.rpartition(".")
            setattr(graph.get_submodule(parent), leaf, fuse_conv_bn_eval(layers[before.target], norm))
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _is_layer(node: object, layers: dict[str, nn.Module], kind: type[nn.Module]) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_module" and isinstance(layers[str(node.target)], kind)
