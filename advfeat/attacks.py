"""Images from a model's gradient: threat models, PGD and FGSM, and matching of representations."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import kernels, replay
from advfeat.models import Classifier, check_eval


def _check_eps(eps: float) -> None:
    if not eps >= 0:
        raise ValueError(f"eps must be 0 or more, got {eps}")


@dataclass(frozen=True)
class L2:
    """The threat {x' : ‖x' − x‖₂ ≤ eps, 0 ≤ x' ≤ 1}, eps in [0, 1] pixel units over the whole image.

    Raises:
        ValueError: ``eps`` is negative or not a number.
    """

    eps: float

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def __str__(self) -> str:
        return f"l2 eps={self.eps:g}"

    def random_start(self, images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """A point drawn uniformly from the ball around each image, then clamped to [0, 1]."""
        noise = torch.randn(images.shape, generator=generator).to(images).flatten(1)
        # A uniform radius would crowd the centre: in d dimensions the radius is distributed as U^(1/d).
        radius = torch.rand(len(images), 1, generator=generator).to(images) ** (1 / noise.shape[1])
        offset = self.eps * radius * noise / noise.norm(dim=1, keepdim=True)
        return (images + offset.view_as(images)).clamp(0, 1)

    def step(self, adv: Tensor, origin: Tensor, gradient: Tensor, step_size: float, **place: Any) -> Tensor:
        """One ascent step of length ``step_size`` along the normalised gradient, projected; see ``kernels.l2_step``."""
        return kernels.l2_step(adv, origin, gradient, eps=self.eps, step_size=step_size, **place)

    def distance(self, adv: Float[Tensor, "n c h w"], origin: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """‖adv − origin‖₂ of each image."""
        return (adv - origin).flatten(1).norm(dim=1)


@dataclass(frozen=True)
class Linf:
    """The threat {x' : max |x' − x| ≤ eps, 0 ≤ x' ≤ 1}, eps in [0, 1] pixel units.

    Raises:
        ValueError: ``eps`` is negative, not a number, or above 1, as levels of 255 would be.
    """

    eps: float

    def __post_init__(self) -> None:
        _check_eps(self.eps)
        if self.eps > 1:
            raise ValueError(f"eps must be at most 1, the whole range of a pixel, got {self.eps}; in levels of 255?")

    def __str__(self) -> str:
        return f"linf eps={self.eps:.4g}"

    def random_start(self, images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """A point drawn uniformly from the cube around each image, then clamped to [0, 1]."""
        noise = torch.rand(images.shape, generator=generator).to(images) * 2 - 1
        return (images + self.eps * noise).clamp(0, 1)

    def step(self, adv: Tensor, origin: Tensor, gradient: Tensor, step_size: float, **place: Any) -> Tensor:
        """One ascent step of ``step_size`` per pixel by the gradient's sign, projected; see ``kernels.linf_step``."""
        return kernels.linf_step(adv, origin, gradient, eps=self.eps, step_size=step_size, **place)

    def distance(self, adv: Float[Tensor, "n c h w"], origin: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Largest absolute pixel change of each image."""
        return (adv - origin).flatten(1).abs().amax(1)


Threat = L2 | Linf
FREE = L2(math.inf)  # a ball in which only the box holds an image


def usual_step_size(threat: Threat, steps: int) -> float:
    """2.5 · eps / steps, the paper authors' choice: enough to cross the ball in any direction.

    Raises:
        ValueError: ``steps`` is less than 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    return 2.5 * threat.eps / steps


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
        start: earlier iterates of the same images, inside ``threat``.

    Raises:
        ValueError: the model is in training mode, ``steps`` is negative, ``step_size`` is not positive, the numbers
            of images and labels differ, or both ``generator`` and ``start`` are given.
        FloatingPointError: a gradient was not finite.

    Source: Madry et al. 2018; section 3.2 of Ilyas et al. 2019 for the targeted form.
    """
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    if generator is not None and start is not None:
        raise ValueError("generator and start both say where to begin; give one of them")
    if generator is not None:
        start = threat.random_start(images, generator)
    ascent = -1.0 if targeted else 1.0

    def gain(logits: Tensor, labels: Tensor) -> Tensor:
        return ascent * F.cross_entropy(logits, labels, reduction="sum")

    return ascend(
        model, gain, images, labels, threat, name=("pgd", targeted), start=start, steps=steps, step_size=step_size
    )


def fgsm(
    model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], threat: Threat
) -> Float[Tensor, "n c h w"]:
    """Fast gradient (sign) method: one step of the full radius. In ℓ∞ this is FGSM itself, in ℓ2 its normalised twin.

    Source: Goodfellow et al. 2015, section 4.
    """
    if threat.eps == 0:
        return images.clone()
    return pgd(model, images, labels, threat, steps=1, step_size=threat.eps)


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
        ValueError: the model is in training mode, ``steps`` is negative, ``step_size`` is not positive, or there is
            not one target per image.
        FloatingPointError: a gradient was not finite.

    Source: section 3.1 of Ilyas et al. 2019; the loss is that of MadryLab/robust_representations, image_inversion.
    """
    if len(start) != len(target):
        raise ValueError(f"{len(start)} images but {len(target)} targets")
    size = target.norm(dim=1, keepdim=True)
    # One tensor says what to reach and in which unit to measure the distance.
    aim = torch.cat([target, torch.where(size == 0, 1.0, size)], dim=1)

    def gain(representation: Tensor, aim: Tensor) -> Tensor:
        return -((representation - aim[:, :-1]).norm(dim=1) / aim[:, -1]).sum()

    return ascend(model, gain, start, aim, FREE, name="match", inside=True, steps=steps, step_size=step_size)


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
        ValueError: the model is in training mode, ``steps`` is negative, or ``step_size`` is not positive.
        FloatingPointError: a gradient was not finite.
    """
    check_eval(model)
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, got {steps}")
    if not step_size > 0:
        raise ValueError(f"step_size must be positive, got {step_size}")
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
        (gradient,) = torch.autograd.grad(total, inputs)
        threat.step(adv, origin, gradient, step_size, out=adv, network=network)

    recording.run(step, steps)
    # One look after the loop: a NaN, once there, stays (the steps never turn it into a valid pixel).
    broken = int((~adv.isfinite()).flatten(1).any(1).sum())
    if broken:
        raise FloatingPointError(f"the gradient was not finite for {broken} of {len(adv)} images")
    return torch.empty_like(images).copy_(adv)


def gray_noise(shape: Sequence[int], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Gray images with a little normal noise, 0.5 + N(0, 1) / 20 per value, clamped to [0, 1]: a start without content.

    Source: MadryLab/robust_representations, image_inversion.
    """
    return torch.randn(tuple(shape), generator=generator).div_(20).add_(0.5).clamp_(0, 1)
