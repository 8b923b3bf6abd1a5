"""Whether a robust accuracy can be believed: checks that a model fails when its gradients mislead the attack.

A network can look robust because its gradients vanish, are shattered or are random, while adversarial images are as
near as ever. Such masking shows: the attack then breaks rules that every attack keeps that has converged along true
gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from advfeat import inputs
from advfeat.attacks import pgd
from advfeat.data import Dataset, batches, check_dataset
from advfeat.measures import predictions
from advfeat.minimum_norm import minimum_distances
from advfeat.models import ready
from advfeat.robustness import VanishedGradients, withstands
from advfeat.threats import Threat, check_threat, usual_step_size


@dataclass(frozen=True)
class Check:
    """One rule, whether it held, and the numbers behind that."""

    rule: str
    passed: bool
    found: str


def check_gradient_masking(
    model: nn.Module,
    dataset: Dataset,
    threat: Threat,
    *,
    steps: int,
    surrogate: nn.Module | None = None,
    slack: float = 0.02,
    pairs: int = 50,
    seed: int = 0,
    batch_size: int = 500,
) -> list[Check]:
    """Signs of masked gradients, each against ``withstands`` with PGD of ``steps`` steps inside ``threat``.

    1. Five times the steps of the same length fool hardly any more images: the attack had converged.
    2. One step of the full radius fools hardly any image that many steps do not.
    3. With the whole box in reach (ε = 1 in ℓ∞, the box's diagonal in ℓ2) nothing withstands.
    4. An attack that sees no gradient fools hardly any image that PGD does not. It climbs the margin
       m = max_{k≠y} z_k − z_y along Σ (m(x + ρu) − m(x − ρu)) u / 2ρ over ``pairs`` random directions u, remembers nine
       tenths of the last step's sum, and takes the steps of PGD; ρ is a twentieth of a pixel's range.
    5. Neither does a search for the nearest adversarial image (``minimum_norm`` of as many steps), whose objectives do
       not saturate as the cross-entropy does, so that large logits cannot hide the gradient.
    6. Asked twice, the model answers the same, to a thousandth of an image's largest logit. Otherwise an attack has to
       climb the mean over the model's draws, and every number above depends on the draw.
    7. Images made for ``surrogate``, another network for the same task, where one is given, fool hardly any image that
       PGD does not.

    "Hardly" is a share of at most ``slack`` of all images. A model that passes may still be masked. One that breaks
    only rules 1 and 5 has a robust accuracy that is too high, by that share or more: PGD was too weak for it, whether
    its gradients are masked or not. One that breaks another rule has a robust accuracy that says nothing.

    Raises:
        TypeError: an argument of another type.
        ValueError: ``steps`` or ``pairs`` is not positive, ``slack`` not in [0, 1], the radius 0 or infinite, or from
            ``withstands``.

    Source: Athalye, Carlini and Wagner 2018, section 3; Carlini et al. 2019, section 4.
    """
    check_threat(threat)
    inputs.whole("steps", steps)
    inputs.whole("pairs", pairs, least=1)  # without one the gradient-free rule would hold unasked
    inputs.number("slack", slack, least=0, most=1)
    inputs.seed(seed)
    inputs.whole("batch_size", batch_size, least=1)
    check_dataset(dataset, least=1)
    if steps < 1 or threat.eps == 0:
        raise ValueError(f"steps and radius must be positive, got steps={steps}, threat={threat}")
    check_threat(threat, finite=True)
    if surrogate is not None:
        inputs.network(surrogate, "surrogate")
    size = usual_step_size(threat, steps)
    judge = ready(model, dtype=torch.float32)

    def resist(bound: Threat, count: int, length: float) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VanishedGradients)  # the rules below are about just that
            return withstands(judge, dataset, bound, steps=count, step_size=length, batch_size=batch_size)

    def judged(adv: list[Tensor]) -> Tensor:
        return predictions(judge, dataset.replace(images=torch.cat(adv)), batch_size=batch_size) == dataset.labels

    def hardly(rule: str, weaker: Tensor, stronger: Tensor, name: str) -> Check:
        share = float((stronger & ~weaker).float().mean())
        return Check(rule, share <= slack, f"{name} fools {share:.1%} of the images, which PGD-{steps} does not")

    standing = resist(threat, steps, size)
    parts = list(batches(dataset, batch_size=batch_size))
    everything = threat.whole_box(dataset.images)
    left = float(resist(everything, steps, usual_step_size(everything, steps)).float().mean())
    margin = partial(_margin, judge, dataset.labels, batch_size)
    generator = torch.Generator().manual_seed(seed)
    blind = _without_gradients(
        margin, dataset.images, threat, steps=steps, step_size=size, pairs=pairs, generator=generator
    )
    found = [
        hardly("more steps gain little", resist(threat, 5 * steps, size), standing, f"PGD-{5 * steps}"),
        hardly("one step is not stronger", resist(threat, 1, threat.eps), standing, "one step"),
        Check("the whole box is fatal", left == 0, f"with {everything} PGD-{steps} leaves {left:.1%} of the images"),
        hardly("no gradient is not better", judged([blind]), standing, f"climbing by {2 * pairs * steps:,} queries"),
    ]
    with inputs.trusted():
        nearest = minimum_distances(judge, dataset, threat, steps=steps, batch_size=batch_size).isfinite()
    found.append(hardly("another objective is not better", ~nearest, standing, "the minimum-norm attack"))
    differ = sum(_answers_differ(judge, images) for images, _ in parts) / len(dataset)
    found.append(Check("asked twice, it answers the same", differ == 0, f"{differ:.1%} of the images get other logits"))
    if surrogate is not None:
        made_for = ready(surrogate)
        with inputs.trusted():
            moved = [pgd(made_for, images, labels, threat, steps=steps, step_size=size) for images, labels in parts]
        found.append(hardly("another network is not better", judged(moved), standing, "the other network's attack"))
    return found


@torch.no_grad()
def _answers_differ(model: nn.Module, images: Tensor) -> int:
    """How many images get other logits when the model is asked again; a thousandth is more than rounding explains."""
    first, second = model(images), model(images)
    return int(((first - second).abs().amax(1) > 1e-3 * first.abs().amax(1)).sum())


def _margin(model: nn.Module, labels: Tensor, batch_size: int, images: Tensor) -> Tensor:
    """Largest wrong logit minus the right one."""
    logits = torch.cat([model(piece) for piece in images.split(batch_size)])
    own = labels[:, None]
    return logits.scatter(1, own, -torch.inf).amax(1) - logits.gather(1, own).flatten()


@torch.no_grad()
def _without_gradients(
    margin: Callable[[Tensor], Tensor],
    images: Float[Tensor, "n c h w"],
    threat: Threat,
    *,
    steps: int,
    step_size: float,
    pairs: int,
    generator: torch.Generator,
    reach: float = 0.05,
) -> Float[Tensor, "n c h w"]:
    """Steps along a slope that is measured from outside; the margin, unlike the cross-entropy, never saturates."""
    adv, slope = images.clone(), torch.zeros_like(images)
    for _ in range(steps):
        slope *= 0.9
        for _ in range(pairs):
            direction = torch.randn(images.shape, generator=generator).to(images)
            rise = margin(adv + reach * direction) - margin(adv - reach * direction)
            slope += (rise / (2 * reach)).view(-1, 1, 1, 1) * direction
        adv = threat.step(adv, images, slope, step_size)
    return adv
