"""Noise, clouds, fog, contrast and blur, beside slow versions of the same and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from advfeat import corruptions, fourier

pytestmark = pytest.mark.numbers


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, *size: int) -> Tensor:
    return torch.rand((n, 3, *size), generator=draw())


def test_noise_is_that_of_the_generator_and_clamped():
    images = torch.full((200, 3, 8, 8), 0.5)
    found = corruptions.gaussian_noise(images, 0.05, generator=draw(1))
    assert torch.equal(found, 0.5 + 0.05 * torch.randn(images.shape, generator=draw(1)))
    assert float((found - 0.5).std()) == pytest.approx(0.05, rel=0.01)
    wild = corruptions.gaussian_noise(images, 9.0, generator=draw(1))
    assert (float(wild.min()), float(wild.max())) == (0, 1)


def slow_cloud(size: int, decay: float, numbers: list[Tensor], row: int) -> Tensor:
    """Diamond-square, point by point; ``numbers`` are the random ones: of squares, then of both kinds of diamonds."""
    field, step, spread = torch.zeros(size, size, dtype=torch.float64), size, 1.0
    source = iter(numbers)
    while step >= 2:
        half = step // 2
        for top, left in ((half, half), (0, half), (half, 0)):
            # The middle of a square has corners diagonally, the middle of a diamond above, below, left and right.
            corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)] if top and left else [(-1, 0), (1, 0), (0, -1), (0, 1)]
            drawn, fresh = next(source)[row], {}
            for y in range(top, size, step):
                for x in range(left, size, step):
                    around = [field[(y + half * a) % size, (x + half * b) % size] for a, b in corners]
                    number = 2 * drawn[y // step, x // step] - 1
                    fresh[y, x] = sum(around) / 4 + spread * number
            for place, value in fresh.items():
                field[place] = value
        step, spread = half, spread / decay**2
    return (field - field.min()) / (field.max() - field.min())


def test_clouds_are_those_of_the_slow_version():
    """Catches corners from one side only, numbers that shrink by the decay alone, and clouds scaled together."""
    size, decay, generator = 8, 1.7, draw(4)
    sides = [side for side in (1, 2, 4) for _ in range(3)]
    numbers = [torch.rand(2, side, side, generator=generator, dtype=torch.float64) for side in sides]
    found = corruptions.plasma_fractal(2, size, decay=decay, generator=draw(4)).double()
    for row in range(2):
        assert (found[row] - slow_cloud(size, decay, numbers, row)).abs().max() < 1e-6


def test_a_larger_decay_makes_smoother_clouds():
    shares = []
    for decay in (1.2, 3.0):
        clouds = corruptions.plasma_fractal(20, 32, decay=decay, generator=draw())[:, None]
        spectrum = fourier.power_spectrum(clouds - clouds.mean((2, 3), keepdim=True))
        low = spectrum[12:21, 12:21].sum()
        shares.append(float(low / spectrum.sum()))
    assert shares[0] < shares[1]
    assert shares[1] > 0.95


def test_fog_is_the_formula_with_a_cloud_for_each_image():
    images = pictures(3, 5, 7) * torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1, 1)
    found = corruptions.fog(images, 0.8, decay=2, generator=draw(2))
    clouds = corruptions.plasma_fractal(3, 8, decay=2, generator=draw(2))[:, :5, :7]
    for k in range(2):
        largest = float(images[k].max())
        expected = (images[k] + 0.8 * clouds[k]) * largest / (largest + 0.8)
        assert (found[k] - expected.clamp(0, 1)).abs().max() < 1e-6
    assert torch.equal(corruptions.fog(images, 0.0, decay=2, generator=draw(2)), images)


def test_contrast_keeps_the_mean_of_each_channel():
    images = pictures(2, 6, 6)
    found = corruptions.contrast(images, 0.4)
    assert (found.mean((2, 3)) - images.mean((2, 3))).abs().max() < 1e-6
    assert (found.std((2, 3)) / images.std((2, 3)) - 0.4).abs().max() < 1e-5


def test_blur_is_the_convolution_with_a_gaussian():
    image = torch.zeros(1, 1, 15, 15)
    image[0, 0, 7, 7] = 1
    width, reach = 0.9, int(4 * 0.9 + 0.5)
    weights = torch.tensor([math.exp(-(k**2) / (2 * width**2)) for k in range(-reach, reach + 1)]).double()
    expected = torch.zeros(15, 15, dtype=torch.float64)
    expected[7 - reach : 8 + reach, 7 - reach : 8 + reach] = torch.outer(weights, weights) / weights.sum() ** 2
    assert (corruptions.gaussian_blur(image, width)[0, 0] - expected).abs().max() < 1e-6
    flat = torch.full((2, 3, 5, 4), 0.3)
    assert (corruptions.gaussian_blur(flat, 3.0) - 0.3).abs().max() < 1e-6  # at the edge, too


def test_blur_weakens_a_wave_as_its_transform_says():
    """In the middle of a large image a wave of frequency f shrinks by exp(−2π²σ²f²)."""
    wave = 8 * fourier.fourier_basis(64, 64)[32 + 12, 32]
    blurred = corruptions.gaussian_blur(0.5 + wave[None, None], 0.8)[0, 0] - 0.5
    middle = slice(16, 48)  # six whole periods
    ratio = float((blurred * wave)[middle].sum() / wave[middle].square().sum())
    assert ratio == pytest.approx(math.exp(-2 * math.pi**2 * 0.8**2 * (12 / 64) ** 2), rel=0.001)
