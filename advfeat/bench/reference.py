"""The gate before any timing: the engine against projected gradient descent in float64, written out once more.

A wrong attack is often a fast one. So no time is printed before the engine has given, on cases whose answer is known to
far more digits than float32 holds, the same images to within what rounding can explain.

The network of the gate is made for this: its gradient has no cancellation, so that float32 knows every entry of it to a
few units of the last place, and no step can turn out differently for a reason other than a fault. Three switches in
fixed pixels give images with an ordinary, with a vanishing (e⁻⁶⁰) and with no gradient.

It has no convolutions. Those that frozen networks have on a CPU are compared with float64 layer by layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import attacks
from advfeat.attacks import L2, Linf, Threat, usual_step_size
from advfeat.engine.compiled_layers import put_in
from advfeat.models import FrozenClassifier

U = 2.0**-24
"""Unit roundoff of float32: one operation is off by at most this share of its result."""

STEPS = 16
"""Enough for an engine that records its steps to replay some of them."""


class GateFailed(RuntimeError):
    """The engine is further from the reference than rounding explains. The message holds every verdict."""


@dataclass(frozen=True)
class Verdict:
    """The largest error of one case over all pixels, and the most that rounding explains."""

    case: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound; one that is no number is not."""
        return self.error <= self.bound

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.case:36s} error {self.error:.1e}, bound {self.bound:.1e}"


@dataclass(frozen=True)
class ReferenceCase:
    """One attack: the arguments of ``attacks.pgd``, with ``start`` where the iterates begin if not at the images."""

    name: str
    images: Float[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    threat: Threat
    targeted: bool
    start: Float[Tensor, "n 3 h w"] | None


class ReferenceFeatures(nn.Module):
    """The logits of ``ReferenceNetwork`` from what a classifier has made of the pixels."""

    std: Tensor

    def __init__(self, network: ReferenceNetwork, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("std", std)

    def forward(self, normalised: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2"]:
        """Undo the normalisation, which is exact for powers of two, and answer."""
        return self.network(normalised * self.std)


class ReferenceNetwork(nn.Module):
    """Two classes with logits ∓D/2, D = open · Σ w_i (x_i + x_i²/2) / √d + 60 · sure and 1/2 ≤ |w_i|.

    Its gradient in x_i is ± p open · w_i (1 + x_i) / √d with p the probability of the other class: a product of factors
    that are all far from 0, so float32 rounds it by a few units in the last place and never gets a sign wrong. The
    first two values of an image, which no gradient reaches, hold ``open`` and ``sure``.
    """

    weight: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        drawn = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        weight = drawn.sign() * (0.5 + drawn.abs())
        weight.flatten()[:2] = 0
        self.register_buffer("weight", weight)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2"]:
        """Logits in the dtype of the images."""
        opened, sure = images.detach().flatten(1)[:, 0], images.detach().flatten(1)[:, 1]
        scale = 1 / math.sqrt(self.weight.numel())
        total = ((images + images * images / 2) * self.weight.to(images.dtype)).flatten(1).sum(1) * scale
        distance = opened * total + 60 * sure
        return torch.stack([-distance / 2, distance / 2], 1)


def frozen_reference(network: ReferenceNetwork) -> FrozenClassifier:
    """The same function as a frozen classifier, which the engine enters behind its normalisation and records.

    Nothing in it could be folded, so ``freeze`` would have nothing to do.
    """
    std = torch.tensor([0.25, 0.5, 0.125]).view(1, 3, 1, 1)
    head = nn.Linear(2, 2, bias=False)
    model = FrozenClassifier(ReferenceFeatures(network, std), head)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
        model.mean.zero_()
        model.std.copy_(std)
    return model.to(network.weight.device).eval().requires_grad_(False)


def l2_move(delta: Tensor, gradient: Tensor, eps: float, step_size: float) -> Tensor:
    """One step of one perturbation in ℓ2, back on the ball."""
    length = gradient.norm()
    delta = delta + (step_size * gradient / length if length > 0 else 0)
    return delta * min(1.0, eps / max(float(delta.norm()), 1e-300))


def linf_move(delta: Tensor, gradient: Tensor, eps: float, step_size: float) -> Tensor:
    """One step of one perturbation in ℓ∞, back on the ball."""
    return (delta + step_size * gradient.sign()).clamp(-eps, eps)


# Norm -> the definition of a step. Written once more, since a threat's own step is what the gate looks at.
MOVES: dict[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {"L2": l2_move, "Linf": linf_move}


def reference_pgd(model: nn.Module, case: ReferenceCase, *, steps: int, step_size: float) -> Float[Tensor, "n 3 h w"]:
    """The definition, image by image in float64: go along the gradient, return to the ball, return to the box.

    Raises:
        ValueError: a threat of a norm that is not in ``MOVES``.
    """
    if case.threat.norm not in MOVES:
        raise ValueError(f"the reference knows threats of the norms {', '.join(MOVES)}, got {case.threat}")
    move = MOVES[case.threat.norm]
    ascent = -1 if case.targeted else 1
    rows = []
    for row in range(len(case.images)):
        origin, label = case.images[row : row + 1].double(), case.labels[row : row + 1]
        adv = origin if case.start is None else case.start[row : row + 1].double()
        for _ in range(steps):
            adv = adv.detach().requires_grad_()
            with torch.enable_grad():
                loss = ascent * F.cross_entropy(model(adv), label)
            (gradient,) = torch.autograd.grad(loss, adv)
            adv = (origin + move(adv.detach() - origin, gradient, case.threat.eps, step_size)).clamp(0, 1)
        rows.append(adv)
    return torch.cat(rows)


def cases(shape: tuple[int, int, int] = (3, 32, 32), device: torch.device | str = "cpu") -> Iterator[ReferenceCase]:
    """ℓ2 and ℓ∞, targeted and not, from the images and from the edge of the ball.

    Each holds nine images: inside the box, on its edges and in its corners, times an ordinary, a vanishing and no
    gradient. Both labels occur, so the steps lead uphill and downhill in every pixel.
    """
    draw = torch.Generator().manual_seed(1)
    inside = 0.2 + 0.6 * torch.rand(3, *shape, generator=draw)
    edges = (torch.rand(3, *shape, generator=draw) * 2 - 0.5).clamp(0, 1)
    corners = torch.rand(3, *shape, generator=draw).round()
    images = torch.cat([inside, edges, corners])
    opened, sure = torch.tensor([1.0, 1.0, 0.0]).repeat(3), torch.tensor([0.0, 1.0, 0.0]).repeat(3)
    images.flatten(1)[:, 0], images.flatten(1)[:, 1] = opened, sure
    labels = torch.tensor([0, 1, 0, 1, 1, 1, 0, 1, 1])
    noise = torch.randn(images.shape, generator=draw)
    noise.flatten(1)[:, :2] = 0
    outward = noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    size = math.sqrt(images[0].numel())
    # In ℓ2 a radius of ten grey levels per pixel; in ℓ∞ ten grey levels.
    for threat, edge in ((L2(0.04 * size), 0.04 * size * outward), (Linf(0.04), 0.04 * noise.sign())):
        for targeted in (False, True):
            for where, start in (("image", None), ("edge", (images + edge).clamp(0, 1).to(device))):
                name = f"{threat.norm} {'targeted' if targeted else 'untargeted'} from {where}"
                yield ReferenceCase(name, images.to(device), labels.to(device), threat, targeted, start)


def check_engine(
    pgd: Callable[..., Tensor] = attacks.pgd,
    *,
    shape: tuple[int, int, int] = (3, 32, 32),
    device: torch.device | str = "cpu",
) -> list[Verdict]:
    """Compare ``pgd`` with the reference on every case, once with a model like any other and once with a frozen one.

    The bound. One step rounds a pixel below 1 three times and multiplies by two norms, each of which is known to 16 U,
    being a sum over blocks; with a dozen roundings of single products that makes at most 48 U (1 + step) per pixel and
    step, to which the gradient adds less than 16 U. Between two steps an error does not grow: projections bring points
    nearer, and the gradient's direction turns by less than the share of the image that moves. So T steps are off by at
    most T · 64 U · (1 + step). A pixel of these attacks moves by up to 0.04, some thousand times as much.
    """
    network = ReferenceNetwork(shape).to(device).eval()
    models = {"": network, ", frozen": frozen_reference(network)}
    verdicts = []
    for case in cases(shape, device):
        step_size = usual_step_size(case.threat, STEPS)
        expected = reference_pgd(network, case, steps=STEPS, step_size=step_size)
        for kind, model in models.items():
            found = pgd(
                model,
                case.images,
                case.labels,
                case.threat,
                steps=STEPS,
                step_size=step_size,
                targeted=case.targeted,
                start=case.start,
            )
            error = float((found.double() - expected).abs().max())
            verdicts.append(Verdict(case.name + kind, error, STEPS * 64 * U * (1 + step_size)))
    return verdicts


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


def require_all(verdicts: list[Verdict]) -> None:
    """Pass in silence, or raise ``GateFailed``: what is timed after this is known to be right."""
    if not verdicts or not all(verdict.passed for verdict in verdicts):
        raise GateFailed("the engine is not its reference, so no time is measured\n" + "\n".join(map(str, verdicts)))
