"""The scenes of planted worlds without their features: colours, soft backgrounds and clouds on a 32×32 grid."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from advfeat.silhouettes import SIZE, pixels

# Deep colours for the shapes, pale ones for the backgrounds: every pair has the same polarity and about the same
# contrast, so that the colour says nothing about the class and the shape is never lost in the background.
INKS = (
    (0.12, 0.30, 0.42),  # petrol
    (0.62, 0.20, 0.22),  # brick
    (0.16, 0.38, 0.30),  # pine
    (0.32, 0.20, 0.44),  # plum
    (0.66, 0.34, 0.12),  # rust
    (0.14, 0.22, 0.50),  # navy
    (0.52, 0.16, 0.36),  # berry
    (0.24, 0.26, 0.30),  # slate
)
PAPERS = (
    (0.86, 0.82, 0.72),  # cream
    (0.74, 0.84, 0.86),  # ice
    (0.86, 0.76, 0.74),  # rose
    (0.76, 0.84, 0.74),  # sage
    (0.80, 0.78, 0.86),  # lilac
    (0.87, 0.80, 0.68),  # sand
)
CLOUD_DEPTH = 0.10  # largest change of brightness by the cloud


def backgrounds(n: int, generator: torch.Generator) -> Float[Tensor, "n 3 32 32"]:
    """Two pale colours blended along a random direction, and one broad, brighter or darker cloud."""
    papers = torch.tensor(PAPERS)
    first = torch.randint(len(papers), (n,), generator=generator)
    second = torch.randint(len(papers), (n,), generator=generator)
    direction = 2 * math.pi * torch.rand(n, generator=generator)
    blend = blends(direction)[:, None]
    images = torch.lerp(papers[first][:, :, None, None], papers[second][:, :, None, None], blend)
    centre = SIZE * (torch.rand(n, 2, generator=generator) - 0.5)
    depth = CLOUD_DEPTH * (2 * torch.rand(n, generator=generator) - 1)
    return images + (depth[:, None, None] * clouds(centre))[:, None]


def blends(direction: Float[Tensor, " n"]) -> Float[Tensor, "n 32 32"]:
    """Share of the second colour (n, 32, 32): half in the middle, rising along ``direction`` (n,), in radians."""
    rows, columns = pixels()
    ramp = torch.cos(direction)[:, None, None] * columns + torch.sin(direction)[:, None, None] * rows
    return torch.sigmoid(ramp / 5)


def clouds(centre: Float[Tensor, "n 2"]) -> Float[Tensor, "n 32 32"]:
    """Clouds of height 1 (n, 32, 32) around ``centre`` (n, 2), in pixels from the middle of the image."""
    rows, columns = pixels()
    y, x = rows - centre[:, 0, None, None], columns - centre[:, 1, None, None]
    return torch.exp(-(x * x + y * y) / (2 * 8.0**2))
