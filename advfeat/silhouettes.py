"""Two sets of ten soft silhouettes on a 32×32 grid, the shapes of planted worlds."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

SIZE = 32
"""Side of an image in pixels."""

SHAPES = ("disc", "ring", "triangle", "square", "cross", "star", "crescent", "bars", "heart", "arrow")
"""The shapes of classes 0 to 9, which are also the names of the classes."""

OTHER_SHAPES = ("hourglass", "chevron", "tee", "ell", "zigzag", "diamond", "frame", "dome", "dots", "trough")
"""A second set of ten, none of them a shape of the first."""

SHAPE_SETS = (SHAPES, OTHER_SHAPES)
"""The sets by number. ``masks`` counts through them: shapes 0 to 9 are of the first set, 10 to 19 of the second."""


def pixels(dtype: torch.dtype = torch.float32) -> tuple[Float[Tensor, "32 32"], Float[Tensor, "32 32"]]:
    """Pixel centres relative to the image centre: row and column offsets."""
    axis = torch.arange(SIZE, dtype=dtype) - (SIZE - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return y, x


def masks(
    shape: Int[Tensor, " n"], radius: Float[Tensor, " n"], *, centre: Float[Tensor, "n 2"], angle: Float[Tensor, " n"]
) -> Float[Tensor, "n 1 32 32"]:
    """Soft-edged masks in [0, 1] of the shapes with the numbers ``shape``, see ``SHAPE_SETS``.

    Args:
        radius: half the extent of each, in pixels.
        centre: offset from the middle of the image, in pixels, rows before columns.
        angle: rotation in radians.
    """
    rows, columns = pixels()
    y = rows - centre[:, 0, None, None]
    x = columns - centre[:, 1, None, None]
    cosine, sine = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    x, y = cosine * x + sine * y, cosine * y - sine * x
    x, y = x / radius[:, None, None], y / radius[:, None, None]
    distance = torch.empty_like(x)
    for index, signed_distance in enumerate(_DISTANCES):
        chosen = (shape == index).nonzero(as_tuple=True)[0]
        if len(chosen):
            distance[chosen] = signed_distance(x[chosen], y[chosen])
    # One and a half pixels of soft edge: sharper edges would put the shape itself into the high frequencies.
    t = (0.5 - distance * radius[:, None, None] / 1.5).clamp(0, 1)
    return (t * t * (3 - 2 * t))[:, None]


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    dx, dy = x.abs() - half_width, y.abs() - half_height
    outside = torch.hypot(dx.clamp(min=0), dy.clamp(min=0))
    return outside + torch.maximum(dx, dy).clamp(max=0)


def _disc(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.95


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.77).abs() - 0.24


def _polygon(x: Tensor, y: Tensor, corners: list[tuple[float, float]]) -> Tensor:
    """Signed distance to a closed polygon: nearest edge, sign by the even-odd rule."""
    squared = torch.full_like(x, float("inf"))
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        t = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        squared = torch.minimum(squared, (wx - t * ex) ** 2 + (wy - t * ey) ** 2)
        crosses = (ay > y) != (by > y)
        if ey:
            inside ^= crosses & (wx < ex * wy / ey)
    return torch.where(inside, -squared.sqrt(), squared.sqrt())


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return _polygon(x, y, [(0.0, -0.98), (1.02, 0.80), (-1.02, 0.80)]) - 0.05


def _square(x: Tensor, y: Tensor) -> Tensor:
    return _box(x, y, 0.74, 0.74) - 0.1


def _cross(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_box(x, y, 0.98, 0.27), _box(x, y, 0.27, 0.98)) - 0.05


def _star(x: Tensor, y: Tensor) -> Tensor:
    corners = []
    for k in range(10):
        length, direction = (1.05, 0.46)[k % 2], math.pi * k / 5
        corners.append((length * math.sin(direction), -length * math.cos(direction)))
    return _polygon(x, y - 0.05, corners) - 0.04


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(torch.hypot(x + 0.05, y) - 1.0, 0.72 - torch.hypot(x - 0.42, y))


def _bars(x: Tensor, y: Tensor) -> Tensor:
    nearest = torch.minimum(y.abs(), (y.abs() - 0.74).abs())  # three equal bars: distance to the nearest centre line
    return _box(x, nearest, 0.9, 0.19) - 0.03


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """Two discs and a wedge, after the exact distance of a heart by I. Quilez."""
    x, y = x.abs() / 1.9, (0.92 - y) / 1.9
    upper = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    half = 0.5 * (x + y).clamp(min=0)
    lower = torch.minimum(torch.hypot(x, y - 1), torch.hypot(x - half, y - half)) * torch.sign(x - y)
    return 1.9 * torch.where(x + y > 1, upper, lower)


def _arrow(x: Tensor, y: Tensor) -> Tensor:
    corners = [(1.0, 0.0), (0.05, 0.92), (0.05, 0.36), (-0.95, 0.36), (-0.95, -0.36), (0.05, -0.36), (0.05, -0.92)]
    return _polygon(x, y, corners) - 0.04


def _hourglass(x: Tensor, y: Tensor) -> Tensor:
    return _polygon(x, y, [(-0.85, -0.95), (0.85, -0.95), (-0.85, 0.95), (0.85, 0.95)]) - 0.06


def _chevron(x: Tensor, y: Tensor) -> Tensor:
    corners = [(-1.0, -0.8), (-0.45, -0.8), (0.0, 0.25), (0.45, -0.8), (1.0, -0.8), (0.3, 0.85), (-0.3, 0.85)]
    return _polygon(x, y, corners) - 0.04


def _tee(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_box(x, y + 0.68, 0.95, 0.24), _box(x, y - 0.1, 0.25, 0.82)) - 0.04


def _ell(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_box(x + 0.6, y, 0.24, 0.92), _box(x, y - 0.68, 0.84, 0.24)) - 0.04


def _zigzag(x: Tensor, y: Tensor) -> Tensor:
    half = [(-0.9, -0.92), (0.9, -0.92), (0.9, -0.5), (-0.2, 0.5), (0.9, 0.5)]
    return _polygon(x, y, half + [(-across, -down) for across, down in half]) - 0.03


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    return _polygon(x, y, [(0.0, -1.0), (0.7, 0.0), (0.0, 1.0), (-0.7, 0.0)]) - 0.06


def _frame(x: Tensor, y: Tensor) -> Tensor:
    return _box(x, y, 0.68, 0.68).abs() - 0.19


def _dome(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(torch.hypot(x, y - 0.5) - 1.0, y - 0.55)


def _dots(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x.abs() - 0.52, y) - 0.44


def _trough(x: Tensor, y: Tensor) -> Tensor:
    half_width, wall = x.abs(), 0.22  # two walls and a floor
    return torch.minimum(_box(half_width - 0.68, y, wall, 0.9), _box(x, y - 0.68, 0.68, wall)) - 0.04


# In the order of SHAPES, then of OTHER_SHAPES. Each maps coordinates in units of the radius (y downwards) to a signed
# distance, negative inside; near the outline the distance is exact enough for a soft edge of even width.
_DISTANCES = (
    _disc, _ring, _triangle, _square, _cross, _star, _crescent, _bars, _heart, _arrow,
    _hourglass, _chevron, _tee, _ell, _zigzag, _diamond, _frame, _dome, _dots, _trough,
)  # fmt: skip
