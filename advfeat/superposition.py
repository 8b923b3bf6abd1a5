"""Superposition: a linear layer that keeps more features than it has units, and what an adversary makes of it.

The toy of Elhage et al. 2022 (*Toy models of superposition*): n features, each rarely there, pass through m < n units
and come back, x ↦ ReLU(Wᵀ W x + b). What a feature adds to the output of another one is *interference*. Gorton and
Lewis 2025 (arXiv 2508.17456) hold that adversarial perturbations consist of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from advfeat import inputs


@dataclass(frozen=True, eq=False)
class ToyModels:
    """Several trained toys side by side.

    Attributes:
        weights: W of each toy, float32: column i is the direction of feature i.
        bias: b of each.
    """

    weights: Float[Tensor, "toys m n"]
    bias: Float[Tensor, "toys n"]

    def __post_init__(self) -> None:
        sizes = inputs.tensor("weights", self.weights, "toys m n")
        inputs.tensor("bias", self.bias, "toys n", like="weights", toys=sizes["toys"], n=sizes["n"])
        inputs.look(("weights", self.weights, inputs.FINITE), ("bias", self.bias, inputs.FINITE))

    @property
    def _gram(self) -> Tensor:
        return self.weights.mT @ self.weights

    def kept(self, *, threshold: float = 0.5) -> Float[Tensor, " toys"]:
        """How many features each toy keeps: those with ‖Wᵢ‖² above the threshold, per unit.

        Up to 1 every feature can have a direction of its own; above it they share.
        """
        inputs.number("threshold", threshold, least=0)
        return (
            (self.weights.square().sum(1) > threshold).float().mean(1) * self.weights.shape[2] / self.weights.shape[1]
        )

    def interference(self) -> Float[Tensor, " toys"]:
        """The share of Wᵀ W, in squares, that lies off its diagonal: 0 where no two features share a direction."""
        squares = self._gram.square()
        whole = squares.sum((1, 2))
        return 1 - squares.diagonal(dim1=1, dim2=2).sum(1) / whole.clamp(min=1e-12)

    def breaking_radius(self, *, threshold: float = 0.5) -> list[Tensor]:
        """For each kept feature of each toy, the ℓ2 length of the least perturbation that makes the toy name another.

        The image has this feature alone, at 1; the toy names the kept feature with the largest output before the ReLU.
        The length to the border with feature j is ((WᵀW)ᵢᵢ + bᵢ − (WᵀW)ⱼᵢ − bⱼ) / ‖WᵀW (eᵢ − eⱼ)‖, or 0 if j wins
        already; the least over j counts. Without superposition, WᵀW = 1 and b = 0, it is 1/√2.
        """
        inputs.number("threshold", threshold, least=0)
        found = []
        for gram, bias, sizes in zip(self._gram, self.bias, self.weights.square().sum(1), strict=True):
            rows = (sizes > threshold).nonzero().flatten()
            kept, offset = gram[rows], bias[rows]
            outputs = kept[:, rows] + offset[:, None]  # column: the feature that is there
            margins = (outputs.diagonal() - outputs).T  # row: the feature that is there; column: its rival
            lengths = (kept[:, None] - kept).norm(dim=2)
            lengths.fill_diagonal_(1)
            radii = (margins / lengths.clamp(min=1e-12)).clamp(min=0)
            radii.fill_diagonal_(math.inf)
            found.append(radii.amin(1) if len(rows) > 1 else radii.new_zeros(0))
        return found


def train_toys(
    presence: Sequence[float],
    radii: Sequence[float],
    *,
    features: int = 40,
    units: int = 10,
    steps: int = 600,
    batch_size: int = 256,
    lr: float = 0.02,
    seed: int = 0,
) -> ToyModels:
    """Train one toy for each entry of ``presence`` and ``radii``, all from the same first weights, by Adam.

    Each feature of an input is there with probability ``presence``, and then uniform in [0, 1]. The loss is the squared
    error of the output, after one ℓ2 step of the given radius up its gradient (0: as it is). All features count alike.

    Raises:
        TypeError, ValueError: ``presence`` is not in (0, 1], a radius is negative, the two differ in number or are
            none, or a count is below 1.
    """
    for name, values in (("presence", presence), ("radii", radii)):
        inputs.instance(name, values, (list, tuple), "a list of numbers")
        if not values:
            raise ValueError(f"{name} must hold one number or more, got none")
    for value in presence:
        inputs.number("presence", value, above=0.0, most=1.0)
    for value in radii:
        inputs.number("radii", value, least=0)
    if len(presence) != len(radii):
        raise ValueError(f"radii must be as many as presence, got {len(radii)} and {len(presence)}")
    for name, count in (("features", features), ("units", units), ("steps", steps)):
        inputs.whole(name, count, least=1)
    inputs.whole("batch_size", batch_size, least=1)
    inputs.number("lr", lr, above=0.0)
    inputs.seed(seed)
    generator = torch.Generator().manual_seed(seed)
    often = torch.tensor(presence, dtype=torch.float32)[:, None, None]
    reach = torch.tensor(radii, dtype=torch.float32)[:, None, None]
    first = torch.randn(1, units, features, generator=generator) / math.sqrt(features)
    weights = first.repeat(len(presence), 1, 1).requires_grad_()
    bias = torch.zeros(len(presence), 1, features, requires_grad=True)
    optimizer = torch.optim.Adam([weights, bias], lr=lr)
    for _ in range(steps):
        drawn = torch.rand(2, batch_size, features, generator=generator)
        clean = drawn[0] * (drawn[1] < often)
        given = clean
        if max(radii) > 0:
            (slope,) = torch.autograd.grad(_error(given.requires_grad_(), clean.detach(), weights, bias).sum(), given)
            given = clean.detach() + reach * slope / slope.norm(dim=2, keepdim=True).clamp(min=1e-12)
        optimizer.zero_grad()
        _error(given, clean.detach(), weights, bias).mean((1, 2)).sum().backward()
        optimizer.step()
    return ToyModels(weights.detach(), bias.detach()[:, 0])


def _error(given: Tensor, wanted: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    return (torch.relu(given @ weights.mT @ weights + bias) - wanted).square()
