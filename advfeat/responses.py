"""The responses of features to images, and the averages over responses of which usefulness consists."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from advfeat import inputs
from advfeat.estimates import Estimate


@dataclass(frozen=True)
class Responses:
    """The values of k features on n images: as they are, and the least and the greatest within a threat."""

    clean: Float[Tensor, "n k"]
    lowest: Float[Tensor, "n k"]
    highest: Float[Tensor, "n k"]


def by_class(responses: Responses, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """|ρ| and the γ that goes with it (draws, classes, k), for several weightings (draws, n) of the images."""
    member = torch.nn.functional.one_hot(labels).double()
    if member.shape[1] < 2 or not bool(member.any(0).all()):
        raise ValueError(
            f"labels: two classes or more, each with images, are needed; got {member.sum(0).int().tolist()} of them"
        )
    _check_finite(responses.clean, responses.lowest, responses.highest)
    counts = weights.to(member) @ member
    given = responses.clean.double()
    centre = given.mean(0)

    def sides(values: Tensor) -> tuple[Tensor, Tensor]:
        sums = torch.stack([(member * row[:, None]).T @ values for row in weights.to(member)])
        own = sums / counts[:, :, None]
        rest = (sums.sum(1, keepdim=True) - sums) / (counts.sum(1, keepdim=True) - counts)[:, :, None]
        return own, rest

    clean, lowest, highest = (part.double() - centre for part in (given, responses.lowest, responses.highest))
    (own, rest), (own_low, rest_low), (own_high, rest_high) = map(sides, (clean, lowest, highest))
    square = sum(sides(clean.square())) / 2
    scale = (square - ((own + rest) / 2).square()).clamp(min=0).sqrt()
    varies = scale > 1e-12 * given.abs().amax(0)
    gap = own - rest
    worst = torch.where(gap >= 0, own_low - rest_high, rest_low - own_high)
    return torch.where(varies, gap.abs() / 2 / scale, 0), torch.where(varies, worst / 2 / scale, 0)


def check_responses(responses: Responses) -> None:
    """Refuse anything but ``Responses``, and one whose three parts do not have one shape."""
    inputs.instance("responses", responses, Responses, "responses.Responses")
    sizes = inputs.tensor("responses.clean", responses.clean, "n k", inputs.FLOATS)
    for name in ("lowest", "highest"):
        inputs.tensor(f"responses.{name}", getattr(responses, name), "n k", inputs.FLOATS, **sizes)


def check_labelled(responses: Responses, labels: Tensor) -> None:
    """Refuse responses and labels that do not belong together, or none at all."""
    check_responses(responses)
    inputs.labels(labels, count=len(responses.clean))
    if not len(labels):
        raise ValueError("labels must be one or more, got none")
    inputs.look(("labels", labels, (0, math.inf)))


def _check_finite(*responses: Tensor) -> None:
    bad = torch.stack([~part.isfinite().all(0) for part in responses]).any(0).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"values or responses: features {bad} are not finite on every image")


def mean_worst(clean: Tensor, lowest: Tensor, highest: Tensor, positive: Tensor, level: float) -> list[Estimate]:
    """E of y f at its worst, on the scale on which E[f] = 0 and E[f²] = 1: see ``features.usefulness``."""
    inputs.tensor("positive", positive, "n", inputs.BOOL, like="values or responses", n=len(clean))
    inputs.number("level", level)
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    counts = int(positive.sum()), int((~positive).sum())
    if min(counts) < 2:
        sides_of = f"got {counts[0]} with y = +1 and {counts[1]} with y = −1"
        raise ValueError(f"positive: each side needs two images or more, {sides_of}")
    _check_finite(clean, lowest, highest)
    clean, lowest, highest = clean.double(), lowest.double(), highest.double()
    centre = (clean[positive].mean(0) + clean[~positive].mean(0)) / 2
    squares = (clean - centre).square()
    variance = (squares[positive].mean(0) + squares[~positive].mean(0)) / 2
    constant = (variance <= 1e-24 * clean.square().amax(0)).nonzero().flatten().tolist()
    if constant:
        raise ValueError(f"values or responses: features {constant} have one value on all images, not E[f²] = 1")
    scale = variance.sqrt()
    sides = (lowest[positive] - centre) / scale, (centre - highest[~positive]) / scale
    value = (sides[0].mean(0) + sides[1].mean(0)) / 2
    # γ = A / σ with A and σ² means over images, so dγ = dA/σ − γ dσ²/2σ²; the centre drops out, as σ² is least there.
    influence = value / 2 / variance
    parts = [
        (side - influence * squares[rows]).var(0) / count
        for side, rows, count in zip(sides, (positive, ~positive), counts, strict=True)
    ]
    # Two sides with variances of their own: the degrees of freedom of Welch and Satterthwaite.
    total = parts[0] + parts[1]
    freedom = total.square() / sum(part.square() / (count - 1) for part, count in zip(parts, counts, strict=True))
    freedom = torch.where(total > 0, freedom, 1)  # a feature that is never wrong: no spread, whatever the quantile
    half = torch.as_tensor(stdtrit(freedom.cpu().numpy(), (1 + level) / 2)).to(total) * total.sqrt() / 2
    return [
        Estimate(v, v - h, v + h, len(positive), rate=False) for v, h in zip(value.tolist(), half.tolist(), strict=True)
    ]
