"""Threat models: the images that count as one with a given image, a step among them, and the properties of a norm.

A threat answers for itself. Whoever needs to know something of its norm asks it, so that a further norm is a further
class here, and no other module takes it for one that it knows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from advfeat import inputs
from advfeat.engine import fused_steps


@dataclass(frozen=True)
class Threat(ABC):
    """The images within ``eps`` of a given one, in a norm, and inside [0, 1]; eps in [0, 1] pixel units.

    Raises:
        ValueError: ``eps`` is negative or not a number.
    """

    eps: float

    def __post_init__(self) -> None:
        inputs.radius("eps", self.eps)

    def __str__(self) -> str:
        return f"{self.norm.lower()} eps={self.eps:g}"

    @property
    def key(self) -> str:
        """The words of ``str``, which name the norm, for keys of the store: with the exact radius where those round it.

        Two radii must not share a key.
        """
        norm, _, rounded = str(self).rpartition("=")
        return f"{norm}={rounded if float(rounded) == self.eps else repr(self.eps)}"

    @property
    @abstractmethod
    def norm(self) -> str:
        """Its name, such as ``L2``; each norm has another one."""

    @abstractmethod
    def random_start(self, images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """A point drawn uniformly from the ball around each image, then clamped to [0, 1]."""

    @abstractmethod
    def step(
        self,
        adv: Float[Tensor, "n *shape"],
        origin: Float[Tensor, "n *shape"],
        gradient: Float[Tensor, "n *shape"],
        step_size: float,
        *,
        out: Tensor | None = None,
        network: fused_steps.NetworkInput | None = None,
    ) -> Float[Tensor, "n *shape"]:
        """One ascent step in which an image moves by ``step_size`` in the norm, projected on the threat.

        Args:
            out: where to write the result; it may be ``adv``.
            network: the gradient is with respect to this input, which is brought up to date.
        """

    @abstractmethod
    def step_each(
        self, adv: Float[Tensor, "n *shape"], origin: Float[Tensor, "n *shape"], gradient: Float[Tensor, "n *shape"],
        step_sizes: Float[Tensor, " n"], radii: Float[Tensor, " n"],
    ) -> Float[Tensor, "n *shape"]:  # fmt: skip
        """``step`` with a length and a radius of its own for each image; the threat's radius plays no part."""

    @abstractmethod
    def distance(self, adv: Float[Tensor, "n c h w"], origin: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """The norm of adv − origin of each image; NaN where a pixel is NaN."""

    @abstractmethod
    def dual_norm(self, rows: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
        """max ⟨row, δ⟩ over all δ of norm 1, of each row."""

    @abstractmethod
    def reach(self, size: Float[Tensor, " d"], room: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """max ⟨size, δ⟩ over 0 ≤ δ ≤ room within the radius, for each row of ``room``; both at least 0."""

    @abstractmethod
    def whole_box(self, images: Float[Tensor, "n c h w"]) -> Threat:
        """The least threat of this norm that holds, from any such image on, every other."""


class FusedThreat(Threat):
    """A threat whose step is one of ``fused_steps``: what is the same for all of these."""

    @property
    @abstractmethod
    def fused(self) -> Callable[..., Tensor]:
        """The step, as ``fused_steps.l2_step`` is called; looked up anew each time, since a test may replace it."""

    def step(
        self,
        adv: Float[Tensor, "n *shape"],
        origin: Float[Tensor, "n *shape"],
        gradient: Float[Tensor, "n *shape"],
        step_size: float,
        *,
        out: Tensor | None = None,
        network: fused_steps.NetworkInput | None = None,
    ) -> Float[Tensor, "n *shape"]:
        """One step of length ``step_size``, projected; see ``fused``."""
        return self.fused(adv, origin, gradient, eps=self.eps, step_size=step_size, out=out, network=network)

    def step_each(
        self, adv: Float[Tensor, "n *shape"], origin: Float[Tensor, "n *shape"], gradient: Float[Tensor, "n *shape"],
        step_sizes: Float[Tensor, " n"], radii: Float[Tensor, " n"],
    ) -> Float[Tensor, "n *shape"]:  # fmt: skip
        """``step`` with a length and a radius of its own for each image."""
        lengths, bounds = _columns(step_sizes, adv), _columns(radii, adv)
        return self.fused(adv, origin, gradient, eps=bounds, step_size=lengths)


class L2(FusedThreat):
    """The threat {x' : ‖x' − x‖₂ ≤ eps, 0 ≤ x' ≤ 1}, eps in [0, 1] pixel units over the whole image.

    Raises:
        ValueError: ``eps`` is negative or not a number.
    """

    norm = "L2"

    def random_start(self, images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """A point drawn uniformly from the ball around each image, then clamped to [0, 1]."""
        _check_start(self, images, generator)
        noise = torch.randn(images.shape, generator=generator).to(images).flatten(1)
        # A uniform radius would crowd the centre: in d dimensions the radius is distributed as U^(1/d).
        radius = torch.rand(len(images), 1, generator=generator).to(images) ** (1 / noise.shape[1])
        offset = self.eps * radius * noise / noise.norm(dim=1, keepdim=True)
        start: Tensor = (images + offset.view_as(images)).clamp(0, 1)
        return start

    @property
    def fused(self) -> Callable[..., Tensor]:
        """A step along the normalised gradient."""
        return fused_steps.l2_step

    def distance(self, adv: Float[Tensor, "n c h w"], origin: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """‖adv − origin‖₂ of each image; NaN where a pixel is NaN."""
        _check_alike(adv, origin)
        lengths: Tensor = (adv - origin).flatten(1).norm(dim=1)
        return lengths

    def dual_norm(self, rows: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
        """‖row‖₂."""
        inputs.tensor("rows", rows, "k d", inputs.FLOATS)
        lengths: Tensor = rows.norm(dim=1)
        return lengths

    def reach(self, size: Float[Tensor, " d"], room: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Pixel i moves by min(τ · sizeᵢ, roomᵢ), where τ is as large as the radius allows.

        The pixels that run out of room are found in a few rounds, since filling one lets the others move further.
        """
        full = torch.zeros_like(room, dtype=torch.bool)
        tau = size.new_zeros(len(room), 1)
        while True:
            left = (self.eps**2 - torch.where(full, room, 0).square().sum(1, keepdim=True)).clamp(min=0)
            free = torch.where(full, 0, size).square().sum(1, keepdim=True)
            tau = torch.where(free > 0, (left / free).sqrt(), tau)
            fuller = full | (tau * size >= room) & (size > 0)
            if torch.equal(fuller, full):
                # Without a limit tau is infinite, and where there is no weight nothing moves.
                return torch.minimum(torch.where(size > 0, tau * size, 0), room) @ size
            full = fuller

    def whole_box(self, images: Float[Tensor, "n c h w"]) -> L2:
        """The radius is the diagonal of the box."""
        inputs.images(images, least=1)
        return type(self)(math.sqrt(images[0].numel()))


class Linf(FusedThreat):
    """The threat {x' : max |x' − x| ≤ eps, 0 ≤ x' ≤ 1}, eps in [0, 1] pixel units.

    Raises:
        ValueError: ``eps`` is negative, not a number, or above 1, as levels of 255 would be.
    """

    norm = "Linf"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps > 1:
            raise ValueError(f"eps must be at most 1, the whole range of a pixel, got {self.eps}; in levels of 255?")

    def __str__(self) -> str:
        return f"linf eps={self.eps:.4g}"

    def random_start(self, images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """A point drawn uniformly from the cube around each image, then clamped to [0, 1]."""
        _check_start(self, images, generator)
        noise = torch.rand(images.shape, generator=generator).to(images) * 2 - 1
        return (images + self.eps * noise).clamp(0, 1)

    @property
    def fused(self) -> Callable[..., Tensor]:
        """A step by the sign of the gradient, in every pixel."""
        return fused_steps.linf_step

    def distance(self, adv: Float[Tensor, "n c h w"], origin: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Largest absolute pixel change of each image; NaN where a pixel is NaN."""
        _check_alike(adv, origin)
        return (adv - origin).flatten(1).abs().amax(1)

    def dual_norm(self, rows: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
        """‖row‖₁."""
        inputs.tensor("rows", rows, "k d", inputs.FLOATS)
        return rows.abs().sum(1)

    def reach(self, size: Float[Tensor, " d"], room: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Every pixel moves by the radius, or as far as there is room."""
        return torch.clamp(room, max=self.eps) @ size

    def whole_box(self, images: Float[Tensor, "n c h w"]) -> Linf:
        """The radius is 1, the range of a pixel."""
        inputs.images(images, least=1)
        return type(self)(1.0)


FREE = L2(math.inf)  # a ball in which only the box holds an image


def check_threat(threat: object, *, finite: bool = False) -> None:
    """Refuse anything but a threat, and with ``finite`` one of radius 0 or without a bound.

    Raises:
        TypeError: it is no ``Threat``, such as an ``L2`` or an ``Linf``.
        ValueError: the radius is 0 or infinite.
    """
    inputs.instance("threat", threat, Threat, "a threats.Threat, such as L2(0.5) or Linf(8/255)")
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


def _columns(values: Tensor, beside: Tensor) -> Tensor:
    """One number per image, in the shape in which it meets all values of its image."""
    return values.view(-1, *[1] * (beside.ndim - 1))


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
