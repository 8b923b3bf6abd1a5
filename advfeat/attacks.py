"""Images from a model's gradient: PGD and FGSM, matching of representations, and the loop below them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import inputs
from advfeat.engine import fused_steps, replay
from advfeat.models import Classifier, FrozenClassifier, check_eval
from advfeat.threats import FREE, L2, Linf, Threat, check_step, check_threat, usual_step_size

__all__ = [
    "FREE", "L2", "Linf", "Threat", "fgsm", "gray_noise", "match_representation", "maximize", "pgd", "usual_step_size",
]  # fmt: skip

Objective = Callable[[Tensor, Tensor], Tensor]
"""``objective(output, target)``: a sum over images, of what a network answers and what is wanted of each image.

The function itself is the key under which its steps are recorded on a GPU, see ``maximize``.
"""
Output = Literal["logits", "representation"]


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
    _check_attack(model, images, threat, steps, step_size, start)
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

    return _maximize(model, objective, images, labels, threat, steps, step_size, start=start, check=check)


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
    _check_attack(model, start, FREE, steps, step_size, None, on="representation", name="start")
    inputs.tensor("target", target, "n d")
    if len(start) != len(target):
        raise ValueError(f"start and target must match, got {len(start)} images but {len(target)} targets")
    inputs.look(("start", start, inputs.BOX))
    size = target.norm(dim=1, keepdim=True)
    # One tensor says what to reach and in which unit to measure the distance.
    scaled = torch.cat([target, torch.where(size == 0, 1.0, size)], dim=1)

    def check(representation: Tensor) -> None:
        if representation.shape != target.shape:
            shapes = f"{tuple(representation.shape)}, got {tuple(target.shape)}"
            raise ValueError(f"target must have the shape of the representation, {shapes}")

    try:
        return _maximize(model, _approach, start, scaled, FREE, steps, step_size, on="representation", check=check)
    except FloatingPointError as error:
        whole = bool(target.isfinite().all())
        raise error if whole else FloatingPointError(f"target must be finite: {error}") from None


def _approach(representation: Tensor, scaled: Tensor) -> Tensor:
    return -((representation - scaled[:, :-1]).norm(dim=1) / scaled[:, -1]).sum()


def maximize(
    model: nn.Module,
    objective: Objective,
    images: Float[Tensor, "n c h w"],
    target: Tensor,
    threat: Threat,
    *,
    on: Output = "logits",
    steps: int,
    step_size: float,
    start: Float[Tensor, "n c h w"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """The loop below every attack: ``steps`` steps up the gradient of an objective, inside ``threat``.

    Everything happens in memory that is laid out once, and nothing is read back to the host before the end. A frozen
    classifier consists of known operations only, so its steps can be recorded (see ``replay``); and it is entered
    behind its normalisation, because a step normalises on the fly. Any other model simply runs. What that does, without
    memory laid out and without recordings, is written in ``bench.reference.reference_pgd``.

    A recording is found again by the objective itself. So define it once, in a module: a function that is made anew,
    such as a lambda, is recorded anew. And let it depend on its two arguments only: what else it reads is recorded as
    it is at the time.

    Args:
        objective: ``objective(output, target)``, a sum over images. It must treat each image on its own, and read no
            value back.
        target: what the objective needs to know of each image, first dimension n.
        threat: ``FREE`` if only the box is to hold the images.
        on: what the output is, the model's ``logits`` or its ``representation``.
        start: where to begin, if not at the images.

    Raises:
        TypeError: an argument of another type or dtype, an objective that cannot be a key, or one that is no number.
        ValueError: the model is in training mode, images or start are not in [0, 1], shapes disagree, ``steps`` is
            negative, ``step_size`` is not positive or too long, or nothing leads from the images to the objective.
        FloatingPointError: a gradient was not finite.
    """
    _check_attack(model, images, threat, steps, step_size, start, on=on)
    inputs.function("objective", objective, "of a network's output and the target")
    inputs.instance("objective", objective, Hashable, "hashable, since its recordings are kept under it")
    inputs.instance("target", target, Tensor, "a tensor")
    if target.ndim == 0 or len(target) != len(images):
        raise ValueError(f"target must have a row for each of {len(images)} images, got shape {tuple(target.shape)}")
    begun = [] if start is None else [("start", start, inputs.BOX)]
    inputs.look(("images", images, inputs.BOX), *begun)
    return _maximize(model, objective, images, target, threat, steps, step_size, on=on, start=start)


def _check_attack(
    model: nn.Module, images: Tensor, threat: Threat, steps: int, step_size: float, start: Tensor | None, *,
    on: Output = "logits", name: str = "images",
) -> None:  # fmt: skip
    """Everything about the arguments of an attack that can be told without a look at values."""
    inputs.one_of("on", on, ("logits", "representation"))
    inputs.network(model, inside=on == "representation")
    check_eval(model)
    inputs.images(images, name, model=model)
    check_step(step_size, threat, images)
    inputs.whole("steps", steps, least=0)
    if start is not None:
        inputs.instance("start", start, Tensor, "a tensor")
        if start.shape != images.shape or start.dtype != images.dtype:
            got = f"{start.dtype} {tuple(start.shape)}"
            raise ValueError(f"start must be as the images are, float32 {tuple(images.shape)}, got {got}")
    inputs.gradients_possible(model)


def _maximize(
    model: nn.Module, objective: Objective, images: Tensor, target: Tensor, threat: Threat, steps: int,
    step_size: float, *, on: Output = "logits", start: Tensor | None = None,
    check: Callable[[Tensor], None] | None = None,
) -> Tensor:  # fmt: skip
    """The work of ``maximize``; ``check`` refuses an output that does not fit the target, without a look at values."""
    # A subclass may compute something else.
    known = model if type(model) is FrozenClassifier else None
    answer: Callable[[Tensor], Tensor]
    if known is not None:
        answer = known.represent if on == "representation" else known.classify
    else:
        answer = cast("Classifier", model).representation if on == "representation" else model

    def buffers() -> dict[str, Tensor]:
        # Channels last, as the network reads and differentiates: then nothing is rearranged at every step.
        adv = torch.empty_like(images, memory_format=torch.channels_last)
        made = {"adv": adv, "origin": torch.empty_like(adv), "target": torch.empty_like(target)}
        return made if known is None else made | {"values": torch.empty_like(adv, dtype=known.dtype)}

    if known is None:
        recording, network = replay.Recording(buffers()), None
    else:
        # All that a step depends on besides buffers and weights. The objective counts as itself, not by a name of its.
        key = (objective, threat, step_size, on, images.shape, images.dtype, target.shape, target.dtype)
        recording = replay.recording(known, key, buffers)
        network = fused_steps.NetworkInput(recording.buffers["values"], known.mean, known.std)
    adv, origin, targets = (recording.buffers[name] for name in ("adv", "origin", "target"))
    with torch.no_grad():
        adv.copy_(images if start is None else start)
        origin.copy_(images)
        targets.copy_(target)
        if network is not None:
            network.set_from(adv)

    def step() -> None:
        inputs = (adv if network is None else network.values).detach().requires_grad_()
        with torch.enable_grad():
            output = answer(inputs)
            if check is not None:
                check(output)
            total = objective(output, targets)
        if not isinstance(total, Tensor) or total.ndim:
            raise TypeError(f"objective must return a sum over the images, one number, got {type(total).__name__}")
        if not total.requires_grad:
            raise ValueError("model has no gradient: nothing leads from the images to what it answers")
        (gradient,) = torch.autograd.grad(total, inputs)
        threat.step(adv, origin, gradient, step_size, out=adv, network=network)

    recording.run(step, steps)
    # One look after the loop: a NaN, once there, stays (the steps never turn it into a valid pixel).
    broken = int((~adv.isfinite()).flatten(1).any(1).sum())
    if broken:
        raise FloatingPointError(f"model: the gradient was not finite for {broken} of {len(adv)} images")
    return torch.empty_like(images).copy_(adv)


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
