"""Whether an attack is the attack that it says it is: checks that a wrong one fails, however far accuracy falls.

Robust accuracy falls under nearly any change of the images, so a falling accuracy is no test of an attack.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import inputs
from advfeat.gradient_masking import Check
from advfeat.models import ready
from advfeat.robustness import AttackFunction
from advfeat.threats import Threat, check_threat


class LinearModel(nn.Module):
    """Logits ⟨w_k, x⟩ + b_k with weights drawn from a seed, for which the worst perturbation is known.

    Two classes: the cross-entropy of a label then rises along one direction, w = ±(w_1 − w_0), everywhere.
    """

    def __init__(self, shape: tuple[int, ...], *, seed: int = 0) -> None:
        super().__init__()
        inputs.seed(seed)
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(math.prod(shape), generator=draw) / math.prod(shape) ** 0.5)
        self.eval()

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2"]:
        """(0, ⟨w, x − 1/2⟩): class 1 where the second is positive."""
        second = (images - 0.5).flatten(1) @ self.weight
        return torch.stack([torch.zeros_like(second), second], 1)

    def rise(self, threat: Threat) -> float:
        """By how much a perturbation inside the threat moves the second logit at most, far from the edges of [0, 1]."""
        return threat.eps * float(threat.dual_norm(self.weight.detach()[None]))


def check_attack_function(
    attack: AttackFunction,
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    threat: Threat,
    *,
    slack: float = 0.05,
) -> list[Check]:
    """Rules that every untargeted attack keeps; each of them catches a mistake under which accuracy falls all the same.

    1. It stays in the ball: no image moves farther than the radius, to rounding.
    2. It stays in the box [0, 1].
    3. It attacks each image on its own: the first image alone comes out as beside the others.
    4. It climbs: on no more than a share ``slack`` of the images is the cross-entropy of the label lower than before.
    5. On a linear model, far from the edges of the box, it reaches the optimum, ε ‖w‖ in the dual norm, to a share
       ``slack``.

    Args:
        attack: function of (model, images, labels, threat), such as ``attacks.fgsm``.
        model: the network that rules 1 to 4 attack.

    Raises:
        TypeError, ValueError: an argument of another type, fewer than two images, a radius that is 0 or infinite, or an
            attack that does not answer with images.
    """
    inputs.function("attack", attack, "of model, images, labels and threat")
    inputs.images(images, model=model, least=2)
    inputs.labels(labels, count=len(images))
    check_threat(threat, finite=True)
    inputs.number("slack", slack, least=0, most=1)
    judge = ready(model, dtype=torch.float32)

    def attacked(network: nn.Module, pictures: Tensor, classes: Tensor) -> Tensor:
        found = attack(network, pictures, classes, threat)
        if not isinstance(found, Tensor) or found.shape != pictures.shape:
            raise TypeError(
                f"attack must answer with images of shape {tuple(pictures.shape)}, got {type(found).__name__}"
            )
        return found.detach()

    adv = attacked(judge, images, labels)
    farthest = float(threat.distance(adv, images).max())
    low, high = float(adv.min()), float(adv.max())
    alone = attacked(judge, images[:1], labels[:1])
    apart = float(threat.distance(alone, adv[:1]).max())
    with torch.no_grad():
        before, after = (F.cross_entropy(judge(x), labels, reduction="none") for x in (images, adv))
    fallen = float((after < before).float().mean())
    plain, grey = LinearModel(tuple(images.shape[1:])).to(images.device), torch.full_like(images, 0.5)
    sides = torch.arange(len(images), device=images.device) % 2
    best = attacked(plain, grey, sides)
    with torch.no_grad():
        moved = plain(best)[:, 1] * torch.where(sides == 0, 1, -1)
    reached = float(moved.min()) / plain.rise(threat)
    return [
        Check(
            "it stays in the ball",
            farthest <= threat.eps * (1 + 1e-4),
            f"moves by {farthest:.4g}, radius {threat.eps:g}",
        ),
        Check("it stays in the box", low >= 0 and high <= 1, f"pixels from {low:.3g} to {high:.3g}"),
        Check("an image alone comes out the same", apart <= threat.eps * slack, f"{apart:.2g} apart"),
        Check("it climbs", fallen <= slack, f"lowers the loss of {fallen:.1%} of the images"),
        Check("it is the optimum on a linear model", reached >= 1 - slack, f"reaches {reached:.1%} of the optimum"),
    ]
