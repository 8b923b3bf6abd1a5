"""Images from a model's gradient: PGD and FGSM, and matching of representations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import inputs
from advfeat.gradient_ascent import Objective, ascend, check_attack
from advfeat.models import Classifier
from advfeat.threats import FREE, L2, Linf, Threat, check_threat, usual_step_size

__all__ = [
    "FREE", "L2", "Linf", "Threat", "fgsm", "gray_noise", "match_representation", "pgd", "usual_step_size",
]  # fmt: skip


def pgd(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    threat: Threat,
    *,
    steps: int,
    step_size: float,
    targeted: bool = False,
    generator: torch.Generator | None = None,
    start: Float[Tensor, "n c h w"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Projected gradient descent: ``steps`` steps that raise the cross-entropy of ``labels`` inside ``threat``.

    With ``targeted`` the labels are targets and the steps *lower* their cross-entropy. With a ``generator`` the attack
    starts at a random point of the ball, with ``start`` it goes on from there (two steps and three more are five), with
    neither it starts at the images. Returns the last iterate.

    The loss is summed over the batch, so an image's result does not depend on the images beside it, as far as the
    model treats each on its own: ``freeze`` makes sure of that, of any other model only the modes of its layers are
    checked. On a CPU this holds up to rounding: oneDNN adds in another order in a batch of another size, or with
    another number of threads, and logits differ by some 1e-7 of their size. After ten ℓ2 steps on the book's small
    networks no pixel differed by more than 1e-6; in ℓ∞ a pixel whose gradient is 0 up to rounding can take the other
    sign, and so differ by up to twice ``eps``.

    Args:
        model: maps images to logits (n, classes), in eval mode; ``models.freeze`` gives the fastest one.
        images: float32 in [0, 1].
        step_size: length of a step (ℓ2) or change per pixel (ℓ∞), in pixel units.
        labels: int64, each one of the classes.
        start: earlier iterates of the same images, inside ``threat``.

    Raises:
        TypeError: an argument of another type or dtype, or a model that does not answer with logits.
        ValueError: the model is in training mode, images or start are not in [0, 1], a label is no class, shapes
            disagree, ``steps`` is negative, ``step_size`` is not positive or longer than the diameter of ``threat``,
            both ``generator`` and ``start`` are given, or ``torch.inference_mode`` is on.
        FloatingPointError: a gradient was not finite.

    >>> from advfeat import L2, build_model
    >>> images, labels = torch.full((2, 3, 32, 32), 0.5), torch.tensor([3, 7])
    >>> model = build_model("cnn4", seed=0).eval()
    >>> adv = pgd(model, images, labels, L2(0.5), steps=10, step_size=0.125)
    >>> adv.shape, bool((L2(0.5).distance(adv, images) < 0.5001).all())
    (torch.Size([2, 3, 32, 32]), True)

    Source: Madry et al. 2018; section 3.2 of Ilyas et al. 2019 for the targeted form.
    """
    inputs.flag("targeted", targeted)
    objective = _lower_loss if targeted else _raise_loss
    return _maximize_of_labels(model, objective, images, labels, threat, steps, step_size, generator, start)


def _raise_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def _lower_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return -_raise_loss(logits, labels)


def _maximize_of_labels(
    model: nn.Module, objective: Objective, images: Tensor, labels: Tensor, threat: Threat, steps: int,
    step_size: float, generator: torch.Generator | None = None, start: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """``maximize`` for an objective of logits and labels, each of which must be one of the model's classes."""
    check_attack(model, images, threat, steps, step_size, start)
    inputs.labels(labels, count=len(images))
    if generator is not None and start is not None:
        raise ValueError("generator and start both say where to begin; give one of them")
    classes = model.head.out_features if isinstance(model, Classifier) else math.inf
    begun = [] if start is None else [("start", start, inputs.BOX)]
    seen = inputs.look(("images", images, inputs.BOX), ("labels", labels, (0, classes - 1)), *begun)
    highest = int(seen.get("labels", (0, 0))[1])
    if generator is not None:
        with inputs.trusted():
            start = threat.random_start(images, generator)

    def check(logits: Tensor) -> None:
        inputs.logits(logits, len(labels))
        if highest >= logits.shape[1]:
            raise ValueError(f"labels must lie in [0, {logits.shape[1]}), got up to {highest}")

    return ascend(model, objective, images, labels, threat, steps, step_size, start=start, check=check)


def fgsm(
    model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], threat: Threat
) -> Float[Tensor, "n c h w"]:
    """Fast gradient (sign) method: one step of the full radius. In ℓ∞ this is FGSM itself, in ℓ2 its normalised twin.

    Raises:
        ValueError: ``threat`` has no finite radius, and from ``pgd``.

    Source: Goodfellow et al. 2015, section 4.
    """
    check_threat(threat)
    if threat.eps == math.inf:
        raise ValueError(f"threat must have a finite radius, got {threat}")
    # Where nothing may move, a step of any length is as good.
    return pgd(model, images, labels, threat, steps=1, step_size=threat.eps or 1.0)


def match_representation(
    model: Classifier,
    start: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n d"],
    *,
    steps: int,
    step_size: float,
) -> Float[Tensor, "n c h w"]:
    """Images whose representation comes near a given one: per image minimise ‖g(z) − target‖₂ / ‖target‖₂ over z.

    Gradient descent from ``start`` with steps of length ``step_size`` along the normalised gradient, clamped to [0, 1];
    no ball holds the images near where they began. Returns the last iterate, float32. The classifier head is never
    computed. A target of norm 0 is matched in absolute distance.

    Args:
        model: its ``representation`` is g, in eval mode; ``models.freeze`` gives the fastest one.
        start: float32 in [0, 1].
        target: representations to reach, one per image, such as ``model.representation(others)``.
        step_size: ℓ2 length of a step, in pixel units.

    Raises:
        TypeError: an argument of another type or dtype, or a model without a representation.
        ValueError: the model is in training mode, the start is not in [0, 1], there is not one target per image or it
            has another width than the representation, ``steps`` is negative, or ``step_size`` is not positive or longer
            than the diagonal of the box.
        FloatingPointError: a target or a gradient was not finite.

    Source: section 3.1 of Ilyas et al. 2019; the loss is that of MadryLab/robust_representations, image_inversion.
    """
    check_attack(model, start, FREE, steps, step_size, None, on="representation", name="start")
    inputs.tensor("target", target, "n d")
    if len(start) != len(target):
        raise ValueError(f"start and target must match, got {len(start)} images but {len(target)} targets")
    inputs.look(("start", start, inputs.BOX))
    size = target.norm(dim=1, keepdim=True)
    # One tensor holds the aim, and the unit in which its distance is measured.
    scaled = torch.cat([target, torch.where(size == 0, 1.0, size)], dim=1)

    def check(representation: Tensor) -> None:
        if representation.shape != target.shape:
            shapes = f"{tuple(representation.shape)}, got {tuple(target.shape)}"
            raise ValueError(f"target must have the shape of the representation, {shapes}")

    try:
        return ascend(model, _approach, start, scaled, FREE, steps, step_size, on="representation", check=check)
    except FloatingPointError as error:
        whole = bool(target.isfinite().all())
        raise error if whole else FloatingPointError(f"target must be finite: {error}") from None


def _approach(representation: Tensor, scaled: Tensor) -> Tensor:
    nearness: Tensor = -((representation - scaled[:, :-1]).norm(dim=1) / scaled[:, -1]).sum()
    return nearness


def gray_noise(shape: Sequence[int], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Gray images with a little normal noise, 0.5 + N(0, 1) / 20 per value, clamped to [0, 1]: a start without content.

    Raises:
        TypeError, ValueError: ``shape`` is not (n, channels, height, width).

    Source: MadryLab/robust_representations, image_inversion.
    """
    inputs.instance("shape", shape, (tuple, list), "four whole numbers")
    if len(shape) != 4:
        raise ValueError(f"shape must be (n, channels, height, width), got {tuple(shape)}")
    for size in shape:
        inputs.whole("shape", size, least=0)
    inputs.generator(generator)
    return torch.randn(tuple(shape), generator=generator).div_(20).add_(0.5).clamp_(0, 1)
