"""Robust accuracy: which images an attack finds no adversarial image for, and how many they are."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import inputs
from advfeat.attacks import pgd
from advfeat.autoattack import autoattack
from advfeat.data import Dataset, check_dataset
from advfeat.estimates import Estimate
from advfeat.measures import answers_of, check_answered, predictions
from advfeat.models import ready
from advfeat.progress import progress
from advfeat.threats import Threat, check_step, check_threat, usual_step_size

AttackFunction = Callable[[nn.Module, Tensor, Tensor, Threat], Tensor]
"""Model, images, labels and threat to images inside the threat: ``attacks.fgsm`` as it is, or a ``partial``."""


class VanishedGradients(UserWarning):
    """PGD stands still at some of the images that it was to attack: a robust accuracy by PGD says nothing of them."""


def robust_accuracy(
    model: nn.Module,
    dataset: Dataset,
    threat: Threat,
    *,
    attack: str | AttackFunction = "pgd",
    steps: int | None = None,
    step_size: float | None = None,
    restarts: int = 0,
    seed: int = 0,
    early_drop: bool = True,
    batch_size: int = 500,
) -> Estimate:
    """Share of images that ``withstands`` finds no adversarial image for; the arguments are its arguments.

    An upper bound on the accuracy under the worst perturbation, and at most ``accuracy``: a stronger attack can only
    lower it.

    Raises:
        TypeError, ValueError: from ``withstands``.

    Warns:
        VanishedGradients: from ``withstands``.

    >>> from advfeat import L2, PlantedWorld, accuracy, build_model
    >>> from advfeat.planted import planted
    >>> model, test_set = build_model("cnn4", seed=0).eval(), planted(PlantedWorld(), 50, seed=2)
    >>> attacked = robust_accuracy(model, test_set, L2(0.5), steps=10)
    >>> attacked.n, attacked.value <= accuracy(model, test_set).value
    (50, True)

    Source: equation (4) of Ilyas et al. 2019, with the inner maximum approximated by the attack.
    """
    stands = withstands(
        model,
        dataset,
        threat,
        attack=attack,
        steps=steps,
        step_size=step_size,
        restarts=restarts,
        seed=seed,
        early_drop=early_drop,
        batch_size=batch_size,
    )
    return Estimate.of_rate(int(stands.sum()), len(dataset))


def withstands(
    model: nn.Module,
    dataset: Dataset,
    threat: Threat,
    *,
    attack: str | AttackFunction = "pgd",
    steps: int | None = None,
    step_size: float | None = None,
    restarts: int = 0,
    seed: int = 0,
    early_drop: bool = True,
    batch_size: int = 500,
) -> Bool[Tensor, " n"]:
    """Whether each image is classified as labelled, itself and wherever an untargeted attack was looked at.

    The model in float32 is the judge. It looks at the images, at the iterates of PGD after a tenth of the steps and
    whenever their number has grown by half, and at the last ones; one wrong answer and the image is fooled. An image is
    attacked on its own, so leaving out the fooled ones from then on (``early_drop``) changes the time and not the
    answer, up to rounding: smaller batches are added up in another order (see ``attacks.pgd``), and an image whose two
    largest logits agree to 1e-6 can come out either way. AutoAttack's random draws run through a whole batch: there an
    answer may depend on ``batch_size`` and on the order of the images, so name both beside its number.

    Args:
        model: a ``Classifier``, or any other network in eval mode, which is asked as it is.
        attack: ``pgd``; ``autoattack`` (see that module); or any function of (model, images, labels, threat) that
            answers with images inside the threat, such as ``attacks.fgsm``. It gets the frozen network, and its
            answer is looked at once. The last two have no steps, step size or restarts to choose here.
        steps: of PGD.
        step_size: default ``threats.usual_step_size``.
        restarts: further runs of PGD from random points of the ball.
        seed: of those points, and of AutoAttack's draws; in [0, 2**32).

    Raises:
        TypeError: an argument of another type; from ``models.ready`` and ``predictions``.
        ValueError: an unknown attack, PGD without steps or with negative ones, another attack with steps, a function
            that leaves the threat, and from ``pgd`` and ``predictions``.

    Warns:
        VanishedGradients: images still stand, but PGD had no gradient to follow at any of its starting points.
    """
    inputs.seed(seed)
    inputs.whole("restarts", restarts, least=0)
    inputs.flag("early_drop", early_drop)
    check_dataset(dataset, least=1)
    check_threat(threat)
    _check_choice(attack, steps, step_size, restarts)
    if attack == "pgd" and step_size is not None:
        check_step(step_size, threat, dataset.images)
    attacked = ready(model)
    whole = getattr(attacked, "dtype", torch.float32) == torch.float32
    judge = attacked if whole else ready(model, dtype=torch.float32)
    stands = predictions(judge, dataset, batch_size=batch_size) == dataset.labels
    if threat.eps == 0 or steps == 0:
        return stands
    if attack == "pgd":
        plan = _Plan(threat, cast("int", steps), step_size, restarts, seed, early_drop, batch_size)
        return _withstands_pgd(attacked, judge, dataset, stands, plan)
    if attack == "autoattack":
        found = autoattack(judge, dataset.images, dataset.labels, threat, seed=seed, batch_size=batch_size)
        return stands & (predictions(judge, dataset.replace(images=found), batch_size=batch_size) == dataset.labels)
    left = _left(stands, early_drop)
    for rows in left.split(batch_size) if len(left) else ():
        part = dataset.subset(rows)
        found = cast("AttackFunction", attack)(attacked, part.images, part.labels, threat)
        _check_inside(found, part.images, threat)
        stands[rows] &= predictions(judge, part.replace(images=found), batch_size=batch_size) == part.labels
    return stands


def _check_choice(attack: object, steps: object, step_size: object, restarts: int) -> None:
    """Refuse an unknown attack, PGD without steps, and numbers of PGD for another attack."""
    if not callable(attack):
        inputs.one_of("attack", attack, ("pgd", "autoattack"))
    if attack == "pgd":
        if steps is None:
            raise ValueError("steps must be 0 or more, got None")
        inputs.whole("steps", steps, least=0)
    elif steps is not None or step_size is not None or restarts:
        named = "AutoAttack" if attack == "autoattack" else "attack: a function"
        raise ValueError(f"{named} fixes its steps and restarts, got {steps=}, {step_size=}, {restarts=}")


@dataclass(frozen=True)
class _Plan:
    """How PGD looks for adversarial images: the arguments of ``withstands``."""

    threat: Threat
    steps: int
    step_size: float | None
    restarts: int
    seed: int
    early_drop: bool
    batch_size: int


def _left(stands: Tensor, early_drop: bool) -> Tensor:
    """Indices of the images that are to be attacked."""
    return stands.nonzero().flatten() if early_drop else torch.arange(len(stands), device=stands.device)


def _withstands_pgd(attacked: nn.Module, judge: nn.Module, dataset: Dataset, stands: Tensor, plan: _Plan) -> Tensor:
    """``stands``, false from then on where an iterate of PGD was found that is not classified as labelled."""
    threat, steps, batch_size = plan.threat, plan.steps, plan.batch_size
    size = usual_step_size(threat, steps) if plan.step_size is None else plan.step_size
    generator = torch.Generator().manual_seed(plan.seed)
    total, description = len(dataset) * steps * (1 + plan.restarts), f"PGD-{steps} {threat}"
    silent, still = torch.zeros_like(stands), torch.ones_like(stands)
    with progress(total=total, unit="step", description=description) as bar, inputs.trusted():
        for run in range(1 + plan.restarts):
            # Drawn for all images, needed or not: the draws must not depend on who is left.
            start = dataset.images if run == 0 else threat.random_start(dataset.images, generator)
            left = _left(stands, plan.early_drop)
            adv = start[left]
            bar.update((len(dataset) - len(left)) * steps)
            for done, pause in pairwise(_pauses(steps)):
                for first in range(0, len(left), batch_size):
                    rows = slice(first, first + batch_size)
                    images, labels = dataset.images[left[rows]], dataset.labels[left[rows]]
                    found = pgd(attacked, images, labels, threat, steps=pause - done, step_size=size, start=adv[rows])
                    if done == 0:
                        still[left[rows]] &= (found == adv[rows]).flatten(1).all(1)
                    adv[rows] = found
                    with torch.no_grad():
                        answers = answers_of(judge, found, dataset.num_classes)
                    stands[left[rows]] &= answers == labels
                    silent[left[rows]] |= answers < 0
                    bar.update(len(labels) * (pause - done))
                if plan.early_drop:
                    keep = stands[left]
                    bar.update(int((~keep).sum()) * (steps - pause))
                    left, adv = left[keep], adv[keep]
    check_answered(torch.where(silent, -1, 0))
    _warn_of_vanished(attacked, dataset, stands & still, batch_size)
    return stands


def _check_inside(found: object, images: Tensor, threat: Threat) -> None:
    """Refuse the images of a function that is no attack within the threat."""
    if not isinstance(found, Tensor) or (found.shape, found.dtype) != (images.shape, images.dtype):
        got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise TypeError(f"attack must answer with images as it is given, float32 {tuple(images.shape)}, got {got}")
    inputs.look(("attack: its answer", found, inputs.BOX))
    worst = float(threat.distance(found, images).max())
    # The largest pixel is 1, and half a unit in its last place off.
    if not worst <= threat.eps * (1 + 1e-5) + 2.0**-24 * threat.whole_box(images).eps:
        raise ValueError(f"attack must stay inside {threat}, but it moved an image by {worst:.4g}")


def _warn_of_vanished(model: nn.Module, dataset: Dataset, still: Tensor, batch_size: int) -> None:
    """Say for how many of the images that no attack has moved this is for lack of a gradient.

    An image may also stay because every step leads out of the box.
    """
    vanished, left = 0, still.nonzero().flatten()
    for rows in left.split(batch_size) if len(left) else ():
        pixels = dataset.images[rows].clone().requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(model(pixels), dataset.labels[rows], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, pixels)
        vanished += int((gradient == 0).flatten(1).all(1).sum())
    if vanished:
        share = f"{vanished} of {len(dataset)} images ({vanished / len(dataset):.1%})"
        warnings.warn(
            f"the gradient vanishes at {share}: PGD leaves them as they are and they count as withstanding, which says "
            "nothing of other attacks; see check_gradient_masking, or take attack='autoattack'",
            VanishedGradients,
            stacklevel=3,
        )


def _pauses(steps: int) -> list[int]:
    """The steps between which PGD's iterates are looked at: 0, a tenth, half as many again and again, and the last.

    An ordinary network is fooled on the first tenth or fifth of the way; looking more often costs more than it saves.
    """
    pauses, at = {0, steps}, steps / 10
    while at < steps:
        pauses.add(math.ceil(at))
        at *= 1.5
    return sorted(pauses)
