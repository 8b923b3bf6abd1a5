"""Images from a model's gradient: PGD and FGSM, matching of representations, and the loop below them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import inputs, kernels, replay
from advfeat.models import Classifier, check_eval
from advfeat.threats import FREE, L2, Linf, Threat, check_step, check_threat, usual_step_size

__all__ = [
    "FREE", "L2", "Linf", "Threat", "ascend", "fgsm", "gray_noise", "match_representation", "pgd", "usual_step_size",
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
    _check_attack(model, images, threat, steps, step_size, start)
    inputs.labels(labels, count=len(images))
    inputs.flag("targeted", targeted)
    if generator is not None and start is not None:
        raise ValueError("generator and start both say where to begin; give one of them")
    classes = model.head.out_features if isinstance(model, Classifier) else math.inf
    begun = [] if start is None else [("start", start, inputs.BOX)]
    seen = inputs.look(("images", images, inputs.BOX), ("labels", labels, (0, classes - 1)), *begun)
    highest = int(seen.get("labels", (0, 0))[1])
    if generator is not None:
        with inputs.trusted():
            start = threat.random_start(images, generator)
    ascent = -1.0 if targeted else 1.0

    def gain(logits: Tensor, labels: Tensor) -> Tensor:
        inputs.logits(logits, len(labels))
        if highest >= logits.shape[1]:
            raise ValueError(f"labels must lie in [0, {logits.shape[1]}), got up to {highest}")
        return ascent * F.cross_entropy(logits, labels, reduction="sum")

    return _climb(model, gain, images, labels, threat, ("pgd", targeted), steps, step_size, start=start)


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
    _check_attack(model, start, FREE, steps, step_size, None, inside=True, name="start")
    inputs.tensor("target", target, "n d")
    if len(start) != len(target):
        raise ValueError(f"start and target must match, got {len(start)} images but {len(target)} targets")
    inputs.look(("start", start, inputs.BOX))
    size = target.norm(dim=1, keepdim=True)
    # One tensor says what to reach and in which unit to measure the distance.
    aim = torch.cat([target, torch.where(size == 0, 1.0, size)], dim=1)

    def gain(representation: Tensor, aim: Tensor) -> Tensor:
        if representation.shape != target.shape:
            shapes = f"{tuple(representation.shape)}, got {tuple(target.shape)}"
            raise ValueError(f"target must have the shape of the representation, {shapes}")
        return -((representation - aim[:, :-1]).norm(dim=1) / aim[:, -1]).sum()

    try:
        return _climb(model, gain, start, aim, FREE, "match", steps, step_size, inside=True)
    except FloatingPointError as error:
        whole = bool(target.isfinite().all())
        raise error if whole else FloatingPointError(f"target must be finite: {error}") from None


def ascend(
    model: nn.Module,
    gain: Callable[[Tensor, Tensor], Tensor],
    images: Float[Tensor, "n c h w"],
    aim: Tensor,
    threat: Threat,
    *,
    name: Hashable,
    steps: int,
    step_size: float,
    inside: bool = False,
    start: Float[Tensor, "n c h w"] | None = None,
) -> Float[Tensor, "n c h w"]:
    """The loop below every attack: ``steps`` steps up the gradient of a gain, within ``threat`` around ``images``.

    Everything happens in memory that is laid out once, and nothing is read back to the host before the end. A frozen
    classifier consists of known operations only, so its steps can be recorded (see ``replay``); and it is entered
    behind its normalisation, because a step normalises on the fly. Any other model simply runs.

    Args:
        gain: ``gain(output, aim)``, a sum over images, from the model's logits or, with ``inside``, its representation.
            It must treat each image on its own, and read no value back.
        aim: what the gain needs to know of each image, first dimension n.
        threat: ``FREE`` if only the box is to hold the images.
        name: tells this gain from others: what is recorded under one name is replayed under it.
        start: where to begin, if not at the images.

    Raises:
        TypeError: an argument of another type or dtype, or a gain that is no number.
        ValueError: the model is in training mode, images or start are not in [0, 1], shapes disagree, ``steps`` is
            negative, ``step_size`` is not positive or too long, or nothing leads from the images to the gain.
        FloatingPointError: a gradient was not finite.
    """
    _check_attack(model, images, threat, steps, step_size, start, inside=inside)
    inputs.function("gain", gain, "of a network's output and the aim")
    inputs.instance("aim", aim, Tensor, "a tensor")
    if aim.ndim == 0 or len(aim) != len(images):
        raise ValueError(f"aim must have a row for each of {len(images)} images, got shape {tuple(aim.shape)}")
    begun = [] if start is None else [("start", start, inputs.BOX)]
    inputs.look(("images", images, inputs.BOX), *begun)
    return _climb(model, gain, images, aim, threat, name, steps, step_size, inside=inside, start=start)


def _check_attack(
    model: nn.Module, images: Tensor, threat: Threat, steps: int, step_size: float, start: Tensor | None, *,
    inside: bool = False, name: str = "images",
) -> None:  # fmt: skip
    """Everything about the arguments of an attack that can be told without a look at values."""
    inputs.flag("inside", inside)
    inputs.network(model, inside=inside)
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


def _climb(
    model: nn.Module, gain: Callable[[Tensor, Tensor], Tensor], images: Tensor, aim: Tensor, threat: Threat,
    name: Hashable, steps: int, step_size: float, *, inside: bool = False, start: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The work of ``ascend``."""
    frozen = model if type(model) is Classifier and model.frozen else None

    def buffers() -> dict[str, Tensor]:
        # Channels last, as the network reads and differentiates: then nothing is rearranged at every step.
        adv = torch.empty_like(images, memory_format=torch.channels_last)
        places = {"adv": adv, "origin": torch.empty_like(adv), "aim": torch.empty_like(aim)}
        return places if frozen is None else places | {"values": torch.empty_like(adv, dtype=frozen.dtype)}

    if frozen is None:
        recording = replay.Recording(buffers())
    else:
        key = (name, threat, step_size, inside, images.shape, images.dtype, aim.shape, aim.dtype)
        recording = replay.recording(frozen, key, buffers)
    adv, origin, aims = (recording.buffers[name] for name in ("adv", "origin", "aim"))
    network = None
    with torch.no_grad():
        adv.copy_(images if start is None else start)
        origin.copy_(images)
        aims.copy_(aim)
        if frozen is not None:
            network = kernels.NetworkInput(recording.buffers["values"], frozen.mean, frozen.std)
            network.read(adv)

    def output(inputs: Tensor) -> Tensor:
        if frozen is None:
            return cast("Classifier", model).representation(inputs) if inside else model(inputs)
        return frozen.represent(inputs) if inside else frozen.classify(inputs)

    def step() -> None:
        inputs = (adv if network is None else network.values).detach().requires_grad_()
        with torch.enable_grad():
            total = gain(output(inputs), aims)
        if not isinstance(total, Tensor) or total.ndim:
            raise TypeError(f"gain must return a sum over the images, one number, got {type(total).__name__}")
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
