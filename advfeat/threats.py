"""Threat models: which images count as one with a given image, and what one step inside is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from advfeat import inputs, kernels


@dataclass(frozen=True)
class L2:
    """The threat {x' : ‖x' − x‖₂ ≤ eps, 0 ≤ x' ≤ 1}, eps in [0, 1] pixel units over the whole image.

    Raises:
        ValueError: ``eps`` is negative or not a number.
    """

    eps: float

    def __post_init__(self) -> None:
        inputs.radius("eps", self.eps)

    def __str__(self) -> str:
        return f"l2 eps={self.eps:g}"

    def random_start(self, images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """A point drawn uniformly from the ball around each image, then clamped to [0, 1]."""
        _check_start(self, images, generator)
        noise = torch.randn(images.shape, generator=generator).to(images).flatten(1)
        # A uniform radius would crowd the centre: in d dimensions the radius is distributed as U^(1/d).
        radius = torch.rand(len(images), 1, generator=generator).to(images) ** (1 / noise.shape[1])
        offset = self.eps * radius * noise / noise.norm(dim=1, keepdim=True)
        return (images + offset.view_as(images)).clamp(0, 1)

    def step(self, adv: Tensor, origin: Tensor, gradient: Tensor, step_size: float, **place: Any) -> Tensor:
        """One ascent step of length ``step_size`` along the normalised gradient, projected; see ``kernels.l2_step``."""
        return kernels.l2_step(adv, origin, gradient, eps=self.eps, step_size=step_size, **place)

    def distance(self, adv: Float[Tensor, "n c h w"], origin: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """‖adv − origin‖₂ of each image; NaN where a pixel is NaN."""
        _check_alike(adv, origin)
        return (adv - origin).flatten(1).norm(dim=1)


@dataclass(frozen=True)
class Linf:
    """The threat {x' : max |x' − x| ≤ eps, 0 ≤ x' ≤ 1}, eps in [0, 1] pixel units.

    Raises:
        ValueError: ``eps`` is negative, not a number, or above 1, as levels of 255 would be.
    """

    eps: float

    def __post_init__(self) -> None:
        inputs.radius("eps", self.eps)
        if self.eps > 1:
            raise ValueError(f"eps must be at most 1, the whole range of a pixel, got {self.eps}; in levels of 255?")

    def __str__(self) -> str:
        return f"linf eps={self.eps:.4g}"

    def random_start(self, images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """A point drawn uniformly from the cube around each image, then clamped to [0, 1]."""
        _check_start(self, images, generator)
        noise = torch.rand(images.shape, generator=generator).to(images) * 2 - 1
        return (images + self.eps * noise).clamp(0, 1)

    def step(self, adv: Tensor, origin: Tensor, gradient: Tensor, step_size: float, **place: Any) -> Tensor:
        """One ascent step of ``step_size`` per pixel by the gradient's sign, projected; see ``kernels.linf_step``."""
        return kernels.linf_step(adv, origin, gradient, eps=self.eps, step_size=step_size, **place)

    def distance(self, adv: Float[Tensor, "n c h w"], origin: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Largest absolute pixel change of each image; NaN where a pixel is NaN."""
        _check_alike(adv, origin)
        return (adv - origin).flatten(1).abs().amax(1)


Threat = L2 | Linf
FREE = L2(math.inf)  # a ball in which only the box holds an image


def check_threat(threat: object, *, finite: bool = False) -> None:
    """Refuse what is no threat, or with ``finite`` one of radius 0 or without a bound.

    Raises:
        TypeError: it is neither an ``L2`` nor an ``Linf``.
        ValueError: the radius is 0 or infinite.
    """
    inputs.instance("threat", threat, (L2, Linf), "an L2 or Linf of attacks")
    if finite and not 0 < cast("Threat", threat).eps < math.inf:
        raise ValueError(f"threat: the radius must be positive and finite, got {threat}")


def check_step(step_size: float, threat: Threat, images: Tensor) -> None:
    """Refuse a step that is no step, or longer than the diameter of ``threat``: a length in other units, it seems.

    Where no ball holds the images (``FREE``), that is the diagonal of the box. Inside a ball of radius 0 nothing moves,
    so a step of 0, as a share of the radius gives, is accepted, too.

    Raises:
        TypeError, ValueError: ``step_size`` is no number, not positive or too long.
    """
    check_threat(threat)
    if threat.eps == 0 and step_size == 0:
        return
    if 0 < threat.eps < math.inf:
        inputs.step_size(step_size, limit=2 * threat.eps, of=threat)
    else:
        inputs.step_size(step_size, limit=math.sqrt(images[:1].numel() or math.inf), of="the box [0, 1]")


def _check_start(threat: Threat, images: Tensor, generator: torch.Generator) -> None:
    check_threat(threat)
    inputs.tensor("images", images, "n c h w", inputs.FLOATS)
    inputs.generator(generator)
    if threat.eps == math.inf:
        raise ValueError(f"threat must have a finite radius for a random start, got {threat}")
    inputs.look(("images", images, inputs.BOX))


def _check_alike(adv: Tensor, origin: Tensor) -> None:
    sizes = inputs.tensor("origin", origin, "n c h w", inputs.FLOATS)
    inputs.tensor("adv", adv, "n c h w", inputs.FLOATS, like="origin", **sizes)


def usual_step_size(threat: Threat, steps: int) -> float:
    """2.5 · eps / steps, the paper authors' choice: enough to cross the ball in any direction; for one step, 2 · eps.

    Raises:
        ValueError: ``steps`` is less than 1.
    """
    check_threat(threat)
    inputs.whole("steps", steps, least=1)
    return 2.5 * threat.eps / steps if steps > 1 else 2.0 * threat.eps
