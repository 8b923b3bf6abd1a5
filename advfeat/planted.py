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
from jaxtyping import Float
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
    """Every number of a planted world. Equal numbers, equal world.

    Attributes:
        shape_reliability: probability that the shape is the one of the label; otherwise it is that of another class,
            each equally likely. In [0, 1]. The best that shapes alone allow.
        texture_reliability: the same for the texture, drawn independently of the shape.
        texture_norm: l2 norm of each texture, in [0, 1] pixel units over the whole image.
        noise: standard deviation of the independent noise on every channel of every pixel, in [0, 1].
        radius: smallest and largest size of a shape, half its extent in pixels.
        shift: largest move of a shape from the centre, pixels along each axis.
        turn: largest rotation of a shape, degrees to either side.
        seed: fixes which grating, in which phase, belongs to which class.

    Raises:
        ValueError: a number outside its range, named.
    """

    shape_reliability: float = 0.91
    texture_reliability: float = 0.99
    texture_norm: float = 0.3
    noise: float = 0.03
    radius: tuple[float, float] = (10.0, 12.5)
    shift: float = 2.0
    turn: float = 12.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require(0 <= self.shape_reliability <= 1, "shape_reliability", self.shape_reliability, "in [0, 1]")
        _require(0 <= self.texture_reliability <= 1, "texture_reliability", self.texture_reliability, "in [0, 1]")
        # A longer grating would no longer be faint, and would leave too little room inside [0, 1].
        _require(0 < self.texture_norm <= 4, "texture_norm", self.texture_norm, "in (0, 4]")
        _require(0 <= self.noise <= 0.5, "noise", self.noise, "in [0, 0.5]")
        ordered = len(self.radius) == 2 and 4 <= self.radius[0] <= self.radius[1] <= SIZE / 2
        _require(ordered, "radius", self.radius, f"(smallest, largest) with 4 <= smallest <= largest <= {SIZE // 2}")
        _require(0 <= self.shift <= SIZE / 4, "shift", self.shift, f"in [0, {SIZE // 4}] pixels")
        _require(0 <= self.turn <= 45, "turn", self.turn, "in [0, 45] degrees")
        _require(_is_seed(self.seed), "seed", self.seed, "an integer in [0, 2**63)")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in label order: the names of their shapes."""
        return SHAPES

    def textures(self) -> Float[Tensor, "classes 3 32 32"]:
        """The exact gratings that are added to images, one per class: grey, zero mean, l2 norm ``texture_norm``.

        They are mutually orthogonal up to float32 rounding, so <x, texture_c> reads off how much of texture c the
        image x holds.
        """
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(_WAVE_VECTORS), generator=generator)
        phase = 2 * math.pi * torch.rand(len(SHAPES), 1, 1, generator=generator, dtype=torch.float64)
        waves = torch.tensor(_WAVE_VECTORS, dtype=torch.float64)[order]
        y, x = _pixels(torch.float64)
        angle = 2 * math.pi / SIZE * (waves[:, 0, None, None] * x + waves[:, 1, None, None] * y)
        gratings = torch.cos(angle + phase)[:, None].expand(-1, 3, -1, -1)
        norms = torch.linalg.vector_norm(gratings, dim=(1, 2, 3), keepdim=True)
        return (self.texture_norm * gratings / norms).float()

    def shapes(self) -> Float[Tensor, "classes 3 32 32"]:
        """What each class's shape adds to the background: mean ink minus mean paper inside, 0 outside.

        The canonical shape is centred, upright and of mean size; the drawn ones move, turn, grow and change colour.
        """
        count = len(SHAPES)
        radius = torch.full((count,), sum(self.radius) / 2)
        mask = _masks(torch.arange(count), radius, centre=torch.zeros(count, 2), angle=torch.zeros(count))
        contrast = torch.tensor(_INKS).mean(0) - torch.tensor(_PAPERS).mean(0)
        return mask * contrast[:, None, None]


def planted(world: PlantedWorld, n: int, *, seed: int, shapes: bool = True, textures: bool = True) -> Dataset:
    """Draw ``n`` labelled images from ``world``; the classes are as even as ``n`` allows, in random order.

    Args:
        world: the numbers of the world; the same world serves training and test images.
        n: number of images.
        seed: fixes labels and pixels. Take different seeds for training and test images.
        shapes: draw the shapes.
        textures: add the textures. Switching a feature off leaves all other random numbers as they are, so the images
            of two datasets with the same seed differ by that feature and nothing else.

    Returns:
        A dataset whose ``truth`` holds, per image, the class whose ``"shape"`` and whose ``"texture"`` it was given
        (also where that feature is switched off), and whose ``info`` names the world and the seed.

    Raises:
        ValueError: ``n`` is negative or ``seed`` not in [0, 2**63).

    Source: section 2 of Ilyas et al. 2019 defines robust and non-robust useful features; this world holds one of each.
    """
    _require(isinstance(n, int) and n >= 0, "n", n, "an integer, 0 or more")
    _require(_is_seed(seed), "seed", seed, "an integer in [0, 2**63)")
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(n) % len(SHAPES))[torch.randperm(n, generator=generator)]
    shape = _drawn_class(labels, world.shape_reliability, generator)
    texture = _drawn_class(labels, world.texture_reliability, generator)

    images = _backgrounds(n, generator)
    radius = world.radius[0] + (world.radius[1] - world.radius[0]) * torch.rand(n, generator=generator)
    centre = world.shift * (2 * torch.rand(n, 2, generator=generator) - 1)
    angle = math.radians(world.turn) * (2 * torch.rand(n, generator=generator) - 1)
    ink = torch.tensor(_INKS)[torch.randint(len(_INKS), (n,), generator=generator)][:, :, None, None]
    if shapes:
        images = torch.lerp(images, ink.expand_as(images), _masks(shape, radius, centre=centre, angle=angle))
    images.add_(torch.randn(images.shape, generator=generator), alpha=world.noise)
    gratings = world.textures()
    # Clip before the texture is added and leave room for it: so every image holds its texture exactly.
    margin = gratings.abs().amax().item()
    images.clamp_(margin, 1 - margin)
    if textures:
        images += gratings[texture]
        images.clamp_(0, 1)  # only float32 rounding of margin + texture can be outside
    return Dataset(
        images=images,
        labels=labels,
        classes=SHAPES,
        name="planted",
        truth={"shape": shape, "texture": texture},
        info={
            "dataset": "planted",
            "world": dataclasses.asdict(world),
            "seed": seed,
            "shapes": shapes,
            "textures": textures,
        },
    )


def _require(accepted: bool, name: str, value: object, what: str) -> None:
    if not accepted:
        raise ValueError(f"{name} must be {what}, got {value!r}")


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _drawn_class(labels: Tensor, reliability: float, generator: torch.Generator) -> Tensor:
    """The label with probability ``reliability``, else one of the other classes, each equally likely."""
    wrong = torch.rand(labels.shape, generator=generator) >= reliability
    step = torch.randint(1, len(SHAPES), labels.shape, generator=generator)
    return torch.where(wrong, (labels + step) % len(SHAPES), labels)


def _pixels(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Pixel centres relative to the image centre: row and column offsets, each (32, 32)."""
    axis = torch.arange(SIZE, dtype=dtype) - (SIZE - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return y, x


def _masks(shape: Tensor, radius: Tensor, *, centre: Tensor, angle: Tensor) -> Tensor:
    """Soft-edged masks (n, 1, 32, 32) in [0, 1] of the classes ``shape``; pixels, rows before columns, radians."""
    rows, columns = _pixels()
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


# In the order of SHAPES. Each maps coordinates in units of the radius (y downwards) to a signed distance, negative
# inside; near the outline the distance is exact enough for a soft edge of even width.
_DISTANCES = (_disc, _ring, _triangle, _square, _cross, _star, _crescent, _bars, _heart, _arrow)


def _backgrounds(n: int, generator: torch.Generator) -> Tensor:
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
    y, x = rows - centre[:, 0, None, None], columns - centre[:, 1, None, None]
    cloud = torch.exp(-(x * x + y * y) / (2 * 8.0**2))
    return images + (depth[:, None, None] * cloud)[:, None]
