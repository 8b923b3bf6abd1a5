"""Corruptions of images that are formulas: noise, fog, low contrast and blur, as in CIFAR-10-C.

They are computed here, in pixel units, for images of any size; CIFAR-10-C itself is not needed. Source of all:
Hendrycks and Dietterich 2019 (arXiv 1903.12261) and hendrycks/robustness, make_cifar_c.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from advfeat import inputs


def gaussian_noise(
    images: Float[Tensor, "n c h w"], scale: float, *, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Independent normal noise of standard deviation ``scale`` on every value, clamped to [0, 1].

    Raises:
        TypeError, ValueError: images that are none, ``scale`` negative or not finite, or no generator.

    Source: CIFAR-10-C, whose scales go from 0.04 to 0.10.
    """
    _check_pictures(images)
    inputs.number("scale", scale, least=0)
    inputs.generator(generator)
    drawn = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + scale * drawn).clamp_(*inputs.BOX)


def fog(
    images: Float[Tensor, "n c h w"], strength: float, *, decay: float, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """A cloud over each image: (x + s·p) · m / (m + s), clamped to [0, 1].

    Here s is the ``strength``, m the largest value of the image and p its cloud, see ``plasma_fractal``, the same for
    all channels.

    Args:
        strength: 0 leaves the images as they are.
        decay: of the clouds.

    Raises:
        TypeError, ValueError: images that are none, ``strength`` negative, ``decay`` below 1, or no generator.

    Source: CIFAR-10-C, whose (strength, decay) go from (0.2, 3) to (1.5, 1.75).
    """
    _check_pictures(images)
    inputs.number("strength", strength, least=0)
    inputs.number("decay", decay, least=1)
    inputs.generator(generator)
    count, _, height, width = images.shape
    size = 2 ** max(1, math.ceil(math.log2(max(height, width))))
    clouds = plasma_fractal(count, size, decay=decay, generator=generator)[:, None, :height, :width].to(images)
    largest = images.amax((1, 2, 3), keepdim=True)
    # A black image has no light to scatter.
    share = torch.where(largest > 0, largest / (largest + strength).clamp_min(torch.finfo(largest.dtype).tiny), 1)
    return ((images + strength * clouds) * share).clamp_(*inputs.BOX)


def plasma_fractal(count: int, size: int, *, decay: float, generator: torch.Generator) -> Float[Tensor, "n size size"]:
    """Clouds by the diamond-square algorithm, each scaled to [0, 1]; they go on over the edge.

    From one corner at 0 on, the middle of every square, then of every diamond, becomes the mean of its four corners
    plus a uniform random number, on ever finer grids. The random numbers shrink by ``decay``² from grid to grid (the
    source multiplies two factors that shrink by ``decay`` each). A larger decay makes broader, smoother clouds.

    Args:
        count: number of clouds.
        size: side of each, a power of two, 2 or more.
        decay: 1 or more.

    Returns:
        float32, on the CPU.

    Raises:
        TypeError, ValueError: an argument of another type or outside its range.

    Source: plasma_fractal of make_cifar_c.
    """
    inputs.whole("count", count, least=0)
    inputs.whole("size", size, least=2)
    inputs.number("decay", decay, least=1)
    inputs.generator(generator)
    if size & (size - 1):
        raise ValueError(f"size must be a power of two, got {size}")
    field = torch.zeros(count, size, size, dtype=torch.float64)
    step, spread = size, 1.0

    def middle(corners: Tensor) -> Tensor:
        """The mean of four corners, given by their sum, and a random number."""
        return corners / 4 + spread * (2 * torch.rand(corners.shape, generator=generator, dtype=torch.float64) - 1)

    while step >= 2:
        half = step // 2
        corner = field[:, ::step, ::step]
        beside = corner + corner.roll(-1, 1)
        field[:, half::step, half::step] = middle(beside + beside.roll(-1, 2))
        centre, corner = field[:, half::step, half::step], field[:, ::step, ::step]
        field[:, ::step, half::step] = middle(centre + centre.roll(1, 1) + corner + corner.roll(-1, 2))
        field[:, half::step, ::step] = middle(centre + centre.roll(1, 2) + corner + corner.roll(-1, 1))
        step, spread = half, spread / decay**2
    least, most = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return ((field - least) / (most - least)).float()


def contrast(images: Float[Tensor, "n c h w"], factor: float) -> Float[Tensor, "n c h w"]:
    """Every channel of every image pulled towards its mean: m + ``factor`` · (x − m).

    Raises:
        TypeError, ValueError: images that are none, or ``factor`` outside [0, 1].

    Source: CIFAR-10-C, whose factors go from 0.75 to 0.15.
    """
    _check_pictures(images)
    inputs.number("factor", factor, least=0, most=1)
    mean = images.mean((2, 3), keepdim=True)
    return (mean + factor * (images - mean)).clamp_(*inputs.BOX)


def gaussian_blur(images: Float[Tensor, "n c h w"], width: float) -> Float[Tensor, "n c h w"]:
    """Every channel smoothed by a Gaussian of standard deviation ``width`` pixels, edge pixels repeated outside.

    The Gaussian is cut off at four standard deviations, rounded to whole pixels, and sums to 1.

    Raises:
        TypeError, ValueError: images that are none, or ``width`` outside (0, 16].

    Source: CIFAR-10-C, one of its extra corruptions, whose widths go from 0.4 to 1.
    """
    _check_pictures(images)
    inputs.number("width", width, above=0, most=16)
    reach = int(4 * width + 0.5)
    weights = torch.exp(-torch.arange(-reach, reach + 1, dtype=torch.float64).square() / (2 * width**2))
    kernel = (weights / weights.sum()).to(images)
    count, channels, rows, columns = images.shape
    padded = F.pad(images.reshape(count * channels, 1, rows, columns), (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(across, kernel.view(1, 1, -1, 1)).view(images.shape).clamp_(*inputs.BOX)


def _check_pictures(images: Tensor) -> None:
    inputs.images(images)
    inputs.look(("images", images, inputs.BOX))
