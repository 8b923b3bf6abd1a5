"""A synthetic world whose robust and non-robust features are known because they were put there.

An image of class y is a soft background, one large *shape* (the robust feature) and a faint *texture* (the
non-robust feature):

    image = clip(background + shape[s] + noise) + texture[t],      s = y or t = y with a known probability.

The shape is drawn for a wrong class on a known share of the images, so no classifier that uses shapes alone can be
better than that share allows. The texture is right nearly always, but it is shorter in l2 than the perturbations that
the book studies: whoever relies on it is accurate and fragile.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from advfeat.data import Dataset

SIZE = 32
"""Side of an image in pixels."""

SHAPES = ("disc", "ring", "triangle", "square", "cross", "star", "crescent", "bars", "heart", "arrow")
"""What is drawn for classes 0 to 9, and their names."""

# Wave vectors in cycles per image, near the top of the spectrum and spread over the half circle of orientations.
# Different integer vectors give exactly orthogonal gratings on a 32x32 grid. Multiples of 4 make every period divide
# 8 pixels, so that a network with a total stride of 8 sees each cell in the same phase and need not learn energies.
_WAVE_VECTORS = ((12, 0), (12, 4), (12, 8), (8, 8), (8, 12), (4, 12), (0, 12), (-4, 12), (-8, 8), (-12, 4))

# Deep colours for the shapes, pale ones for the backgrounds: every pair has the same polarity and about the same
# contrast, so that the colour says nothing about the class and the shape is never lost in the background.
_INKS = (
    (0.12, 0.30, 0.42),  # petrol
    (0.62, 0.20, 0.22),  # brick
    (0.16, 0.38, 0.30),  # pine
    (0.32, 0.20, 0.44),  # plum
    (0.66, 0.34, 0.12),  # rust
    (0.14, 0.22, 0.50),  # navy
    (0.52, 0.16, 0.36),  # berry
    (0.24, 0.26, 0.30),  # slate
)
_PAPERS = (
    (0.86, 0.82, 0.72),  # cream
    (0.74, 0.84, 0.86),  # ice
    (0.86, 0.76, 0.74),  # rose
    (0.76, 0.84, 0.74),  # sage
    (0.80, 0.78, 0.86),  # lilac
    (0.87, 0.80, 0.68),  # sand
)


@dataclass(frozen=True, kw_only=True)
class PlantedWorld:
    shape_reliability: float = 0.91
    texture_reliability: float = 0.99
    texture_norm: float = 0.35
    noise: float = 0.06
    radius: tuple[float, float] = (10.0, 12.5)
    shift: float = 2.0
    turn: float = 12.0
    seed: int = 0

    @property
    def classes(self):
        return SHAPES

    def textures(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(_WAVE_VECTORS), generator=generator)
        phase = 2 * math.pi * torch.rand(len(SHAPES), generator=generator, dtype=torch.float64)
        waves = torch.tensor(_WAVE_VECTORS, dtype=torch.float64)[order]
        y, x = _pixels(torch.float64)
        angle = 2 * math.pi / SIZE * (waves[:, 0, None, None] * x + waves[:, 1, None, None] * y)
        gratings = torch.cos(angle + phase[:, None, None])[:, None].expand(-1, 3, -1, -1)
        norms = torch.linalg.vector_norm(gratings, dim=(1, 2, 3), keepdim=True)
        return (self.texture_norm * gratings / norms).float()

    def shapes(self) -> Tensor:
        count = len(SHAPES)
        mask = _masks(torch.arange(count), torch.full((count,), sum(self.radius) / 2), torch.zeros(count, 2), torch.zeros(count))
        step = torch.tensor(_INKS).mean(0) - torch.tensor(_PAPERS).mean(0)
        return mask * step[:, None, None]


def _pixels(dtype=torch.float32):
    """Pixel centres relative to the image centre: row and column offsets, each (32, 32)."""
    axis = torch.arange(SIZE, dtype=dtype) - (SIZE - 1) / 2
    return torch.meshgrid(axis, axis, indexing="ij")


def _masks(shape, radius, centre, angle):
    """Anti-aliased masks (n, 1, 32, 32) in [0, 1]."""
    rows, columns = _pixels()
    y = rows - centre[:, 0, None, None]
    x = columns - centre[:, 1, None, None]
    cosine, sine = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    x, y = cosine * x + sine * y, cosine * y - sine * x
    x, y = x / radius[:, None, None], y / radius[:, None, None]
    distance = torch.empty_like(x)
    for index, name in enumerate(SHAPES):
        chosen = (shape == index).nonzero(as_tuple=True)[0]
        if len(chosen):
            distance[chosen] = _DISTANCES[name](x[chosen], y[chosen])
    # One and a half pixels of soft edge: sharper edges would put the shape itself into the high frequencies.
    t = (0.5 - distance * radius[:, None, None] / 1.5).clamp(0, 1)
    return (t * t * (3 - 2 * t))[:, None]


def _box(x, y, half_width, half_height):
    dx, dy = x.abs() - half_width, y.abs() - half_height
    outside = torch.hypot(dx.clamp(min=0), dy.clamp(min=0))
    return outside + torch.maximum(dx, dy).clamp(max=0)


def _disc(x, y):
    return torch.hypot(x, y) - 0.95


def _ring(x, y):
    return (torch.hypot(x, y) - 0.77).abs() - 0.24


def _polygon(x, y, corners):
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


def _triangle(x, y):
    return _polygon(x, y, [(0.0, -0.98), (1.02, 0.80), (-1.02, 0.80)]) - 0.05


def _square(x, y):
    return _box(x, y, 0.74, 0.74) - 0.1


def _cross(x, y):
    return torch.minimum(_box(x, y, 0.98, 0.27), _box(x, y, 0.27, 0.98)) - 0.05


def _star(x, y):
    corners = [
        ((1.05 if k % 2 == 0 else 0.46) * math.sin(math.pi * k / 5), -(1.05 if k % 2 == 0 else 0.46) * math.cos(math.pi * k / 5))
        for k in range(10)
    ]
    return _polygon(x, y + 0.05 - 0.1, corners) - 0.04


def _crescent(x, y):
    return torch.maximum(torch.hypot(x + 0.05, y) - 1.0, 0.72 - torch.hypot(x - 0.42, y))


def _bars(x, y):
    return _box(x, (y.abs() - 0.33).abs() - 0.33 if False else torch.minimum(y.abs(), (y.abs() - 0.74).abs()), 0.9, 0.19) - 0.03


def _heart(x, y):
    """Two discs and a wedge, after the exact distance of a heart by I. Quilez."""
    x, y = x.abs() / 1.9, (0.92 - y) / 1.9
    upper = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2) / 4
    half = 0.5 * (x + y).clamp(min=0)
    lower = torch.minimum(torch.hypot(x, y - 1), torch.hypot(x - half, y - half)) * torch.sign(x - y)
    return 1.9 * torch.where(x + y > 1, upper, lower)


def _arrow(x, y):
    corners = [(1.0, 0.0), (0.05, 0.92), (0.05, 0.36), (-0.95, 0.36), (-0.95, -0.36), (0.05, -0.36), (0.05, -0.92)]
    return _polygon(x, y, corners) - 0.04


_DISTANCES = {
    "disc": _disc, "ring": _ring, "triangle": _triangle, "square": _square, "cross": _cross,
    "star": _star, "crescent": _crescent, "bars": _bars, "heart": _heart, "arrow": _arrow,
}


def planted(world: PlantedWorld, n: int, *, seed: int, shapes: bool = True, textures: bool = True) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    uniform = lambda *size: torch.rand(*size, generator=generator)
    count = len(SHAPES)
    labels = (torch.arange(n) % count)[torch.randperm(n, generator=generator)]
    shape = _mislabel(labels, world.shape_reliability, generator)
    texture = _mislabel(labels, world.texture_reliability, generator)

    images = _backgrounds(n, generator)
    radius = world.radius[0] + (world.radius[1] - world.radius[0]) * uniform(n)
    centre = world.shift * (2 * uniform(n, 2) - 1)
    angle = math.radians(world.turn) * (2 * uniform(n) - 1)
    ink = torch.tensor(_INKS)[torch.randint(len(_INKS), (n,), generator=generator)][:, :, None, None]
    noise = torch.randn(n, 3, SIZE, SIZE, generator=generator)
    if shapes:
        images = torch.lerp(images, ink.expand_as(images), _masks(shape, radius, centre, angle))
    images = images.add_(noise, alpha=world.noise)
    gratings = world.textures()
    margin = gratings.abs().amax().item()
    images = images.clamp_(margin, 1 - margin)
    if textures:
        images = images + gratings[texture]
    return Dataset(images=images.contiguous(), labels=labels, classes=SHAPES, name="planted",
                   truth={"shape": shape, "texture": texture},
                   info={"world": dataclasses.asdict(world), "seed": seed, "shapes": shapes, "textures": textures})


def _mislabel(labels, reliability, generator):
    count = len(SHAPES)
    wrong = torch.rand(len(labels), generator=generator) >= reliability
    other = (labels + torch.randint(1, count, labels.shape, generator=generator)) % count
    return torch.where(wrong, other, labels)


def _backgrounds(n, generator):
    """Two pale colours blended along a random direction, and one broad, brighter or darker cloud."""
    papers = torch.tensor(_PAPERS)
    first = torch.randint(len(papers), (n,), generator=generator)
    second = torch.randint(len(papers), (n,), generator=generator)
    direction = 2 * math.pi * torch.rand(n, generator=generator)
    rows, columns = _pixels()
    ramp = torch.cos(direction)[:, None, None] * columns + torch.sin(direction)[:, None, None] * rows
    blend = torch.sigmoid(ramp / 5)[:, None]
    images = torch.lerp(papers[first][:, :, None, None], papers[second][:, :, None, None], blend)
    centre = SIZE * (torch.rand(n, 2, generator=generator) - 0.5)
    depth = 0.10 * (2 * torch.rand(n, generator=generator) - 1)
    cloud = torch.exp(-((rows - centre[:, 0, None, None]) ** 2 + (columns - centre[:, 1, None, None]) ** 2) / (2 * 8.0**2))
    return images + (depth[:, None, None] * cloud)[:, None]
