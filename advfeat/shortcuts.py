"""Shortcuts: several features that tell the label while a network learns, of which one fails later.

``corners`` is the toy problem of Geirhos et al. 2020: a shape whose place gives the class away as well. ``shape_bias``
says which of two disagreeing features a network follows.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from advfeat import inputs
from advfeat.data import Dataset
from advfeat.estimates import Estimate
from advfeat.planted import PlantedWorld
from advfeat.silhouettes import SHAPES, SIZE, masks, pixels

CUES = ("location", "shape", "texture")
"""What tells the class in ``corners``."""

CORNER_CLASSES = ("star", "crescent")
"""The two classes of ``corners``."""

_NUMBERS = tuple(SHAPES.index(name) for name in CORNER_CLASSES)
_RADIUS = (4.5, 6.0)  # pixels
_QUADRANT = 8.0  # distance of the middle of a quadrant from the middle of the image, along each axis
_SHIFT = 1.5
_PAPER, _INK, _NOISE = 0.8, 0.2, 0.03


def corners(n: int, *, seed: int, telling: Sequence[str] = ("location", "shape"), texture_norm: float = 0.0) -> Dataset:
    """Draw ``n`` grey images of one small star or crescent in one of the four corners.

    Stars belong to the top right or the bottom left corner, crescents to the other two. The image may also hold a faint
    texture, one of two gratings of the planted world. Each feature in ``telling`` is that of the label; every other one
    is drawn at random, so that it says nothing about the label.

    Args:
        n: number of images, half of each class as far as ``n`` allows, in random order.
        seed: fixes labels and pixels. Take different seeds for training and test images.
        telling: of ``CUES``.
        texture_norm: ℓ2 norm of the texture, pixel units; 0 for none.

    Returns:
        A dataset whose ``truth`` holds the class, 0 or 1, that each of ``CUES`` points to.

    Raises:
        TypeError, ValueError: a negative ``n``, ``seed`` not in [0, 2**32), a feature that is none of ``CUES``, or a
            ``texture_norm`` outside [0, 4].

    Source: the location toy of Geirhos et al. 2020, with this library's shapes on its 32×32 grid instead of
    200×200 pixels; the texture is ours.
    """
    inputs.whole("n", n, least=0)
    inputs.seed(seed)
    inputs.instance("telling", telling, (tuple, list), f"a list of names among {', '.join(CUES)}")
    for name in telling:
        inputs.one_of("telling", name, CUES)
    inputs.number("texture_norm", texture_norm, least=0, most=4)
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(n) % 2)[torch.randperm(n, generator=generator)]
    # All are drawn whatever tells the class, so that datasets of one seed differ in what is asked and nothing else.
    drawn = {name: torch.randint(2, (n,), generator=generator) for name in CUES}
    truth = {name: labels if name in telling else drawn[name] for name in CUES}
    right = torch.randint(2, (n,), generator=generator)
    # Class 0 lies where row and column have opposite signs: top right (row −, column +) or bottom left.
    column = 2.0 * right - 1
    row = torch.where(truth["location"] == 0, -column, column)
    centre = _QUADRANT * torch.stack([row, column], 1) + _SHIFT * (2 * torch.rand(n, 2, generator=generator) - 1)
    radius = _RADIUS[0] + (_RADIUS[1] - _RADIUS[0]) * torch.rand(n, generator=generator)
    ink = masks(torch.tensor(_NUMBERS)[truth["shape"]], radius, centre=centre, angle=torch.zeros(n))
    images = (_PAPER + (_INK - _PAPER) * ink).expand(-1, 3, -1, -1)
    images = images + _NOISE * torch.randn(images.shape, generator=generator)
    if texture_norm:
        images = images + _gratings(texture_norm)[truth["texture"]]
    info = {"dataset": "corners", "seed": seed, "telling": list(telling), "texture_norm": texture_norm}
    return Dataset(images.clamp(0, 1), labels, CORNER_CLASSES, "corners", truth, info)


def location_template() -> Float[Tensor, "1 3 32 32"]:
    """Weights w of the feature ⟨w, x⟩ that reads the corner off an image of ``corners``: larger for class 0.

    It is +1 on two opposite quadrants and −1 on the others, so that ink in the corners of class 0 raises it.
    """
    rows, columns = pixels()
    return (rows.sign() * columns.sign()).expand(1, 3, SIZE, SIZE).contiguous()


def texture_template() -> Float[Tensor, "1 3 32 32"]:
    """Weights of the feature that reads the texture off an image of ``corners``: larger for class 0."""
    first, second = _gratings(1.0)
    weights: Tensor = first - second
    return weights[None]


def shape_response(images: Float[Tensor, "n 3 32 32"]) -> Float[Tensor, "n 1"]:
    """A differentiable feature that reads the shape off images of ``corners``, wherever it lies: larger for a star.

    Each shape is compared with the image at every place; its response is the best match. This is a convolution with
    two templates (of mean 0 and length 1) and a maximum over all places.

    Raises:
        TypeError, ValueError: no float32 images of 32×32 pixels in [0, 1].
    """
    inputs.tensor("images", images, f"n 3 {SIZE} {SIZE}")
    inputs.look(("images", images, inputs.BOX))
    matches = F.conv2d(
        -images.mean(1, keepdim=True), _templates().to(images.device), padding=_templates().shape[-1] // 2
    )
    best = matches.amax((2, 3))
    return best[:, :1] - best[:, 1:]


def shape_bias(answers: Int[Tensor, " n"], shape: Int[Tensor, " n"], texture: Int[Tensor, " n"]) -> Estimate:
    """How often a network goes by the shape, among its answers that are the class of the shape or of the texture.

    Images whose two classes agree do not count, nor do answers that are neither: see ``measures.predictions``.

    Raises:
        TypeError, ValueError: arguments that are not int64 (n,), differ in number or are negative, or no answer counts.

    Source: Geirhos et al. 2019, shape / (shape + texture).
    """
    count = len(shape) if isinstance(shape, Tensor) and shape.ndim else None
    for name, values in (("shape", shape), ("texture", texture), ("answers", answers)):
        inputs.tensor(name, values, "n", inputs.INT64, like="shape", **({} if count is None else {"n": count}))
    inputs.look(*((name, values, (0, torch.inf)) for name, values in
                  (("answers", answers), ("shape", shape), ("texture", texture))))  # fmt: skip
    torn = shape != texture
    by_shape, by_texture = (int(((answers == of) & torn).sum()) for of in (shape, texture))
    if not by_shape + by_texture:
        raise ValueError(f"answers: none of {count} is the class of a shape or a texture that disagree")
    return Estimate.of_rate(by_shape, by_shape + by_texture)


def _gratings(norm: float) -> Tensor:
    """The textures of the two classes, (2, 3, 32, 32)."""
    return PlantedWorld().textures()[list(_NUMBERS)] * (norm / PlantedWorld().texture_norm)


@functools.cache
def _templates() -> Tensor:
    """The two shapes at their mean size, (2, 1, 15, 15): each of mean 0 and length 1."""
    radius = torch.full((2,), sum(_RADIUS) / 2)
    # A centre on a pixel: half a pixel from the middle of the grid.
    drawn = masks(torch.tensor(_NUMBERS), radius, centre=torch.full((2, 2), 0.5), angle=torch.zeros(2))
    middle = slice(SIZE // 2 - 7, SIZE // 2 + 8)
    small: Tensor = drawn[:, :, middle, middle]
    small = small - small.mean((2, 3), keepdim=True)
    unit: Tensor = small / small.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return unit
