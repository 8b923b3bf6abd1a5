"""Classifiers. Normalisation is their first layer, so everything outside speaks [0, 1] pixels."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from advfeat import inputs
from advfeat.engine import folding, fused_steps
from advfeat.engine.batch_independence import check_each_alone
from advfeat.engine.compiled_layers import CompiledConv2d
from advfeat.engine.convolution_code import engine_name
from advfeat.evaluation_mode import check_eval
from advfeat.networks import SMALL_NETWORKS
from advfeat.torchvision_networks import FULL_WIDTH, TORCHVISION, ArchitectureScale

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

    @property
    def dtype(self) -> torch.dtype:
        """The type that the features compute in; images, logits and the head are float32 whatever it is."""
        return next(self.features.parameters(), self.mean).dtype

    def normalise(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """The network's input: centred, scaled, in its dtype and channels last.

        Raises:
            TypeError, ValueError: images of another type, shape or number of channels. Values are not looked at here.
        """
        inputs.tensor("images", images, f"n {self.mean.shape[1]} h w", inputs.FLOATS)
        return ((images - self.mean) / self.std).to(self.dtype, memory_format=torch.channels_last)

    def represent(self, normalised: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """The representation of images that are normalised already."""
        representation: Tensor = self.features(normalised).float()
        return representation

    def classify(self, normalised: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        """The logits of images that are normalised already."""
        logits: Tensor = self.head(self.represent(normalised)) * self.logit_scale
        return logits

    def representation(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """The penultimate layer, float32."""
        return self.represent(self.normalise(images))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        """Logits, float32 whatever the network computes in."""
        return self.classify(self.normalise(images))


class FrozenClassifier(Classifier):
    """A classifier for inference and attacks, whose features are known to treat each image on its own.

    ``freeze`` makes it. Its steps can be recorded, and an attack enters it behind its normalisation. A frozen copy of a
    subclass of ``Classifier`` is one of that class, too: its methods stay, and so nothing is known of them.

    Attributes:
        refoldable: whether ``refold`` can bring it up to date, see ``freeze``.
    """

    refoldable = False

    @property
    def engine(self) -> str:
        """The code that computes its convolutions: ``torch``, or ``winograd`` and the instructions that it is for."""
        used = (layer.weight for layer in self.modules() if isinstance(layer, CompiledConv2d))
        return engine_name() if any(weight.is_cpu and weight.dtype == torch.float32 for weight in used) else "torch"


def build_model(
    name: str,
    *,
    classes: int = 10,
    width: int | None = None,
    depth: int | None = None,
    patch: int = 1,
    boost: float = 1.0,
    whitened: bool = False,
    seed: int = 0,
) -> Classifier:
    """A fresh network with weights drawn from ``seed``.

    ``networks`` and ``torchvision_networks`` list the names, and the cost of an image.

    Every network can be trained at every width. On a CPU that is not a matter of course: oneDNN, which computes
    PyTorch's convolutions there, writes beyond its memory in the weight gradient of a 1×1 convolution with a stride on
    fewer than 16 channels (8 on processors without AVX-512), and then crashes, hangs or returns wrong gradients.
    Narrow ResNets would have such layers. Here they pick every other point first and convolve with stride 1, which is
    the same function; wider networks are torchvision's. See ``onednn.check_trainable`` for networks of your own.

    Args:
        width: channels of the first stage; default: the network's own. torchvision's constructors do not offer this
            for every network, so here every channel count of theirs is multiplied by width / 64, a multiple of 1/16;
            the multiply-adds go with its square.
        depth: at most so many blocks in each stage of torchvision's networks; default: all.
        patch: side of the square of pixels, 1, 2 or 4, that torchvision's networks see as one point: a coarser stem
            that divides the multiply-adds by about ``patch``². VGG-16 leaves out as many poolings instead.
        boost: how many times as large the stem makes the highest frequencies inside a patch.
        whitened: give torchvision's networks the 2×2 stem of ``resnet9``, for ``whiten`` to set from data: at every
            pixel, or with ``patch=2`` once a patch.

    Raises:
        ValueError: unknown name; a number of classes, a width, a depth, a patch, a boost or a ``whitened`` that is not
            accepted.
    """
    inputs.text("name", name)
    inputs.seed(seed)
    for key, value in {"classes": classes, "width": width, "depth": depth, "patch": patch}.items():
        if value is not None or key in ("classes", "patch"):
            inputs.whole(key, value)
    inputs.number("boost", boost)
    inputs.flag("whitened", whitened)
    if classes < 1:
        raise ValueError(f"classes must be positive, got classes={classes}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in TORCHVISION:
            scale = ArchitectureScale(FULL_WIDTH if width is None else width, depth, patch, boost, whitened)
            features, size = TORCHVISION[name](scale)
            logit_scale = 1.0
        elif name in SMALL_NETWORKS:
            construct, own_width, logit_scale = SMALL_NETWORKS[name]
            if (depth, patch, boost, whitened) != (None, 1, 1, False) or (width is not None and width < 1):
                raise ValueError(
                    f"{name} takes a positive width and no depth, patch, boost or whitened, "
                    f"got {width=}, {depth=}, {patch=}, {boost=}, {whitened=}"
                )
            features, size = construct(own_width if width is None else width)
        else:
            raise ValueError(
                f"name: unknown network {name!r}; there are {', '.join(sorted({*SMALL_NETWORKS, *TORCHVISION}))}"
            )
        model = Classifier(features, nn.Linear(size, classes, bias=False), logit_scale=logit_scale)
    return model.to(memory_format=torch.channels_last)


def freeze(
    model: Classifier, *, dtype: torch.dtype | None = None, leak: float = 0.0, refoldable: bool = False
) -> FrozenClassifier:
    """A copy for inference and attacks: eval mode, BatchNorm folded into convolutions, no weight gradients.

    Folding is exact up to rounding. A BatchNorm that follows no convolution stays, dropout goes. Without weight
    gradients an attack step costs two forward passes instead of three. In float32 on a CPU compiled code computes the
    convolutions where there is a compiler (see the network's ``engine``): an image then gets the same bits alone, in
    any batch and with any number of threads, and rounding is relative to the largest value in a tile of 6×6 pixels.
    Weights that somebody writes to through ``.data`` or NumPy must be frozen anew. A classifier that is frozen as it is
    asked for is returned itself, a leak included.

    >>> from advfeat import build_model
    >>> model, images = build_model("resnet9", width=16, seed=0).eval(), torch.full((2, 3, 32, 32), 0.5)
    >>> torch.allclose(freeze(model, dtype=torch.float32)(images), model(images), atol=1e-4)
    True

    Args:
        dtype: of the features; default: bfloat16 where the hardware gains from it, otherwise float32.
            Images, logits and the head stay float32.
        leak: share of the gradient, in [0, 1], that the last ReLU lets through where its output is 0. Outputs stay as
            they are. A search for an image that excites a unit has no gradient to follow while the unit is silent;
            a small leak, 0.1 say, gives it one and hardly changes any other. At 1 it is the ``fake_relu`` of Engstrom
            et al. 2019. Networks without a ReLU need none.
        refoldable: leave out steps that hold for some weights only (folding through a max-pooling), so that
            ``refold`` can follow a model whose weights change.

    Raises:
        TypeError: the features have a layer that is not known to treat each image on its own, or cannot be traced;
            named, with the reason. Or they mix the images of a batch all the same, by a function between the layers:
            this is tried out, see ``batch_independence.check_each_alone``.
        ValueError: ``leak`` is outside [0, 1].
    """
    inputs.instance("model", model, Classifier, "a models.Classifier")
    inputs.instance("dtype", dtype, (torch.dtype, type(None)), "a torch.dtype")
    inputs.number("leak", leak)
    inputs.flag("refoldable", refoldable)
    if not 0 <= leak <= 1:
        raise ValueError(f"leak must be in [0, 1], got {leak}")
    dtype = dtype or fused_steps.fast_dtype(model.head.weight.device.type)
    if (
        isinstance(model, FrozenClassifier)
        and (model.dtype, model.refoldable, leak) == (dtype, refoldable, 0)
        and not any(part.training for part in model.modules())
    ):
        return model
    kind = _frozen_kind(type(model))
    frozen = kind.__new__(kind)
    frozen.__dict__.update(copy.deepcopy(model.__dict__))
    frozen.eval().requires_grad_(False)
    folding.forget_layout(frozen)
    folded = folding.fold(frozen.features, through_pooling=not refoldable)
    weight = next(folded.parameters(), model.head.weight)
    named = type(model.features).__name__
    check_each_alone(folded, named=named, channels=model.mean.shape[1], like=weight)
    if leak:
        folding.open_last_relu(folded, leak)
    frozen.features = folded
    frozen.features.to(dtype).to(memory_format=torch.channels_last)
    if (model.head.weight.device.type, dtype) == ("cpu", torch.float32):
        folding.lay_out_for_float32(frozen)
    frozen.refoldable = refoldable
    return frozen.eval()  # once more: tracing leaves fresh containers in training mode


def _frozen_kind(kind: type[Classifier]) -> type[FrozenClassifier]:
    if issubclass(kind, FrozenClassifier):
        return kind
    return FrozenClassifier if kind is Classifier else type(f"Frozen{kind.__name__}", (FrozenClassifier, kind), {})


@torch.no_grad()
def refold(frozen: FrozenClassifier, model: Classifier) -> None:
    """Give ``frozen`` the weights and statistics that ``model`` has now: a fraction of the price of ``freeze``.

    Args:
        frozen: ``freeze(model, refoldable=True)``, from before the weights changed.

    Raises:
        TypeError: ``frozen`` is no ``FrozenClassifier``, or ``model`` is no classifier.
        ValueError: ``frozen`` is not refoldable, or was made from another network.
    """
    inputs.instance("frozen", frozen, FrozenClassifier, "a models.FrozenClassifier, as freeze makes it")
    inputs.instance("model", model, Classifier, "a models.Classifier")
    if not frozen.refoldable:
        raise ValueError("frozen cannot follow a model; make it with freeze(model, refoldable=True)")
    folding.refold(frozen.features, model.features)
    for fixed, current in ((frozen.head.weight, model.head.weight), (frozen.head.bias, model.head.bias),
                           (frozen.mean, model.mean), (frozen.std, model.std)):  # fmt: skip
        if fixed is not None:
            fixed.copy_(current)


def ready(model: nn.Module, *, dtype: torch.dtype | None = None) -> nn.Module:
    """The network that is measured for ``model``: ``freeze(model, dtype=dtype)`` of a classifier, any other as it is.

    A network that is no ``Classifier``, one of torchvision's, say, is asked in its own precision and in eval mode; if a
    part of it is in training mode, a copy is.

    Raises:
        TypeError: ``model`` is no network, and from ``freeze``.
    """
    inputs.network(model)
    if isinstance(model, Classifier):
        return freeze(model, dtype=dtype)
    if any(part.training for part in model.modules()):
        model = copy.deepcopy(model).eval()
    check_eval(model)
    return model
