"""Attacks by the engine beside projected gradient descent in float64, written out once more.

A wrong attack is often a fast one. So no time is printed before the engine has given, on cases whose answer is known to
far more digits than float32 holds, the same images up to rounding, within a bound.

The network is made for this: its gradient has no cancellation, so that float32 knows every entry of it to a
few units of the last place, and no step can turn out differently for a reason other than a fault. Three switches in
fixed pixels give images with an ordinary, with a vanishing (e⁻⁶⁰) and with no gradient.

It has no convolutions; those are looked at in ``convolutions``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import attacks
from advfeat.bench.gate import U, Verdict
from advfeat.models import FrozenClassifier
from advfeat.threats import L2, Linf, Threat, usual_step_size

STEPS = 16
"""Enough for an engine that records its steps to replay some of them."""


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
    """The logits of ``ReferenceNetwork`` from a classifier's normalised pixels."""

    std: Tensor

    def __init__(self, network: ReferenceNetwork, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("std", std)

    def forward(self, normalised: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2"]:
        """Undo the normalisation, which is exact for powers of two, and answer."""
        logits: Tensor = self.network(normalised * self.std)
        return logits


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


# Norm -> the definition of a step. Written once more, since the gate looks at a threat's own step.
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
