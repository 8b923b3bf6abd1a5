"""A synthetic world whose robust and non-robust features are known because they were put there.

An image of class y is a soft background, one large *shape* (the robust feature) and a faint *texture* (the
non-robust feature):

    image = clip(background + shape[s] + noise) + texture[t],      s = y or t = y with a known probability.

The shape is drawn for a wrong class on a known share of the images, so no classifier that uses shapes alone can be
better than that share allows. The texture is right nearly always, but it is shorter in l2 than the perturbations that
the book studies: a classifier that relies on it is accurate and fragile.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor

from advfeat import inputs
from advfeat.data import Dataset
from advfeat.silhouettes import SHAPES, SIZE, masks, pixels

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
_CLOUD_DEPTH = 0.10  # largest change of brightness by the cloud


@dataclass(frozen=True, kw_only=True)
class PlantedWorld:
    """Every number of a planted world; equal numbers give equal worlds.

    Attributes:
        shape_reliability: probability that the shape is that of the label; otherwise it is that of another class, each
            equally likely. In [0, 1]. No classifier that uses shapes alone can be more accurate.
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
        for name in ("shape_reliability", "texture_reliability", "texture_norm", "noise", "shift", "turn"):
            value = getattr(self, name)
            _require(isinstance(value, Real) and not isinstance(value, bool), name, value, "a number")
        numbers = isinstance(self.radius, tuple | list) and all(isinstance(value, Real) for value in self.radius)
        _require(numbers, "radius", self.radius, "two numbers")
        _require(0 <= self.shape_reliability <= 1, "shape_reliability", self.shape_reliability, "in [0, 1]")
        _require(0 <= self.texture_reliability <= 1, "texture_reliability", self.texture_reliability, "in [0, 1]")
        # A longer grating would no longer be faint, and would leave too little room inside [0, 1].
        _require(0 < self.texture_norm <= 4, "texture_norm", self.texture_norm, "in (0, 4]")
        _require(0 <= self.noise <= 0.5, "noise", self.noise, "in [0, 0.5]")
        ordered = len(self.radius) == 2 and 4 <= self.radius[0] <= self.radius[1] <= SIZE / 2
        _require(ordered, "radius", self.radius, f"(smallest, largest) with 4 <= smallest <= largest <= {SIZE // 2}")
        _require(0 <= self.shift <= SIZE / 4, "shift", self.shift, f"in [0, {SIZE // 4}] pixels")
        _require(0 <= self.turn <= 45, "turn", self.turn, "in [0, 45] degrees")
        inputs.seed(self.seed)

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
        y, x = pixels(torch.float64)
        angle = 2 * math.pi / SIZE * (waves[:, 0, None, None] * x + waves[:, 1, None, None] * y)
        gratings = torch.cos(angle + phase)[:, None].expand(-1, 3, -1, -1)
        norms = torch.linalg.vector_norm(gratings, dim=(1, 2, 3), keepdim=True)
        textures: Tensor = (self.texture_norm * gratings / norms).float()
        return textures

    def shapes(self) -> Float[Tensor, "classes 3 32 32"]:
        """The contribution of each class's shape to the background: mean ink minus mean paper inside, 0 outside.

        The canonical shape is centred, upright and of mean size; the drawn ones move, turn, grow and change colour.
        """
        count = len(SHAPES)
        radius = torch.full((count,), sum(self.radius) / 2)
        silhouettes = masks(torch.arange(count), radius, centre=torch.zeros(count, 2), angle=torch.zeros(count))
        contrast = torch.tensor(_INKS).mean(0) - torch.tensor(_PAPERS).mean(0)
        return silhouettes * contrast[:, None, None]

    def moments(
        self, weights: Float[Tensor, "k 3 32 32"], *, points: int = 1024
    ) -> tuple[Float[Tensor, "classes k"], Float[Tensor, "classes k"]]:
        """Mean and variance of each linear feature f(x) = ⟨w, x⟩ over the images of each label, in float64.

        Shape, texture, colours and noise enter in closed form, by their probabilities and covariances. The average over
        the position, size and rotation of the shape, the direction of the blend and the position of the cloud is an
        integral over a cube of seven dimensions, taken at ``points`` Sobol points for each shape. Clipping is ignored:
        it changes fewer than one value in a thousand as long as ``noise`` is near its default.

        Source: the numbers of this world; images drawn by ``planted`` have these moments.
        """
        inputs.tensor("weights", weights, f"k 3 {SIZE} {SIZE}", inputs.FLOATS)
        inputs.whole("points", points, least=1)
        inputs.look(("weights", weights, inputs.FINITE))
        rows = weights.double().cpu()
        shape_mean, shape_square = zip(*(self._scene_moments(rows, s, points) for s in range(len(SHAPES))), strict=True)
        in_shape = _chances(self.shape_reliability) @ torch.stack(shape_mean)
        in_shape_square = _chances(self.shape_reliability) @ torch.stack(shape_square)
        texture = self.textures().double().flatten(1) @ rows.flatten(1).T
        in_texture = _chances(self.texture_reliability) @ texture
        in_texture_square = _chances(self.texture_reliability) @ texture.square()
        # Given the label, shape and texture are drawn independently of each other.
        variance = in_shape_square - in_shape.square() + in_texture_square - in_texture.square()
        return in_shape + in_texture, variance + self.noise**2 * rows.flatten(1).square().sum(1)

    def _scene_moments(self, weights: Tensor, shape: int, points: int) -> tuple[Tensor, Tensor]:
        """E[f] and E[f²] over background and ``shape``, without texture and noise, for each of k features."""
        cube = torch.quasirandom.SobolEngine(7).draw(points, dtype=torch.float64).float() + 0.5 / points
        radius = self.radius[0] + (self.radius[1] - self.radius[0]) * cube[:, 0]
        angle = math.radians(self.turn) * (2 * cube[:, 1] - 1)
        centre = self.shift * (2 * cube[:, 2:4] - 1)
        mask = masks(torch.full((points,), shape), radius, centre=centre, angle=angle)[:, 0].double()
        # The scene is ink · m + (first · (1 − b) + second · b + depth · cloud) · (1 − m). It is linear in ink, first,
        # second and depth, which are independent, so their means and covariances suffice.
        ink, paper = torch.tensor(_INKS).double(), torch.tensor(_PAPERS).double()
        blend = (1 - mask) * _blends(2 * math.pi * cube[:, 4])
        cloud = (1 - mask) * _clouds(SIZE * (cube[:, 5:7] - 0.5))
        on_ink, on_second = (torch.einsum("nhw,kchw->nkc", part, weights) for part in (mask, blend))
        on_first = weights.sum((2, 3)) - on_ink - on_second
        on_cloud = torch.einsum("nhw,kchw->nk", cloud, weights)
        mean = on_ink @ ink.mean(0) + (on_first + on_second) @ paper.mean(0)
        spread = _CLOUD_DEPTH**2 / 3 * on_cloud.square()
        for part, colours in ((on_ink, ink), (on_first, paper), (on_second, paper)):
            spread += torch.einsum("nkc,cd,nkd->nk", part, torch.cov(colours.T, correction=0), part)
        return mean.mean(0), (mean.square() + spread).mean(0)


def planted(world: PlantedWorld, n: int, *, seed: int, shapes: bool = True, textures: bool = True) -> Dataset:
    """Draw ``n`` labelled images from ``world``; the classes are as balanced as ``n`` allows, in random order.

    Args:
        world: the numbers of the world; use the same world for training and test images.
        n: number of images.
        seed: fixes labels and pixels. Take different seeds for training and test images.
        shapes: whether to draw the shapes.
        textures: whether to add the textures. Switching a feature off leaves all other random numbers unchanged, so the
            images of two datasets with the same seed differ by that feature and nothing else.

    Returns:
        A dataset whose ``truth`` holds, per image, the class of its ``"shape"`` and the class of its ``"texture"``
        (even if that feature is switched off), and whose ``info`` names the world and the seed.

    Raises:
        TypeError, ValueError: ``n`` is negative, ``seed`` not in [0, 2**32), or ``world`` no ``PlantedWorld``.

    >>> dataset = planted(PlantedWorld(shape_reliability=0.9), 1000, seed=0)
    >>> dataset.images.shape
    torch.Size([1000, 3, 32, 32])
    >>> right = dataset.truth["shape"] == dataset.labels
    >>> print(f"{right.double().mean():.1f}")
    0.9

    Source: section 2 of Ilyas et al. 2019 defines robust and non-robust useful features; this world holds one of each.
    """
    inputs.instance("world", world, PlantedWorld, "a PlantedWorld")
    inputs.whole("n", n, least=0)
    inputs.seed(seed)
    inputs.flag("shapes", shapes)
    inputs.flag("textures", textures)
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
        images = torch.lerp(images, ink.expand_as(images), masks(shape, radius, centre=centre, angle=angle))
    images.add_(torch.randn(images.shape, generator=generator), alpha=world.noise)
    gratings = world.textures()
    # Clipping comes before the texture and leaves room for it, so every image holds its texture exactly.
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


def _require(accepted: bool, name: str, value: object, condition: str) -> None:
    if not accepted:
        wrong = TypeError if condition in ("a number", "two numbers") else ValueError
        raise wrong(f"{name} must be {condition}, got {value!r}")


def _chances(reliability: float) -> Tensor:
    """Row y: the probability of each drawn class given the label y."""
    count = len(SHAPES)
    off = (1 - reliability) / (count - 1)
    return torch.full((count, count), off, dtype=torch.float64).fill_diagonal_(reliability)


def _drawn_class(labels: Tensor, reliability: float, generator: torch.Generator) -> Tensor:
    """The label with probability ``reliability``, otherwise one of the other classes, each equally likely."""
    wrong = torch.rand(labels.shape, generator=generator) >= reliability
    step = torch.randint(1, len(SHAPES), labels.shape, generator=generator)
    return torch.where(wrong, (labels + step) % len(SHAPES), labels)


def _backgrounds(n: int, generator: torch.Generator) -> Tensor:
    """Two pale colours blended along a random direction, and one broad, brighter or darker cloud."""
    papers = torch.tensor(_PAPERS)
    first = torch.randint(len(papers), (n,), generator=generator)
    second = torch.randint(len(papers), (n,), generator=generator)
    direction = 2 * math.pi * torch.rand(n, generator=generator)
    blend = _blends(direction)[:, None]
    images = torch.lerp(papers[first][:, :, None, None], papers[second][:, :, None, None], blend)
    centre = SIZE * (torch.rand(n, 2, generator=generator) - 0.5)
    depth = _CLOUD_DEPTH * (2 * torch.rand(n, generator=generator) - 1)
    return images + (depth[:, None, None] * _clouds(centre))[:, None]


def _blends(direction: Tensor) -> Tensor:
    """Share of the second colour (n, 32, 32): half in the middle, rising along ``direction`` (n,), in radians."""
    rows, columns = pixels()
    ramp = torch.cos(direction)[:, None, None] * columns + torch.sin(direction)[:, None, None] * rows
    return torch.sigmoid(ramp / 5)


def _clouds(centre: Tensor) -> Tensor:
    """Clouds of height 1 (n, 32, 32) around ``centre`` (n, 2), in pixels from the middle of the image."""
    rows, columns = pixels()
    y, x = rows - centre[:, 0, None, None], columns - centre[:, 1, None, None]
    return torch.exp(-(x * x + y * y) / (2 * 8.0**2))
