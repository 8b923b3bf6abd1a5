"""Waves, heat maps, filters and spectra, beside slow versions of the same and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from advfeat import fourier
from advfeat.data import Dataset
from advfeat.estimates import Estimate
from advfeat.planted import PlantedWorld

SIZES = [(32, 32), (4, 6), (5, 7), (6, 5), (1, 4)]

pytestmark = pytest.mark.numbers

each_size = pytest.mark.parametrize(("height", "width"), SIZES)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, *size: int, channels: int = 3) -> Tensor:
    return torch.rand((n, channels, *size), generator=draw())


def opposite(i: int, size: int) -> int:
    """Place of the opposite frequency, with the constant at size // 2."""
    return (2 * (size // 2) - i) % size


def slow_basis(height: int, width: int) -> Tensor:
    """The published loop: a spectrum with one pair of entries, transformed back, entry by entry."""
    basis = torch.full((height, width, height, width), math.nan, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            other = opposite(i, height), opposite(j, width)
            if not basis[i, j].isnan().all():
                continue
            spectrum = torch.zeros(height, width, dtype=torch.complex128)
            spectrum[i, j] = 1 if other == (i, j) else 0.5 + 0.5j
            if other != (i, j):
                spectrum[other] = 0.5 - 0.5j
            wave = math.sqrt(height * width) * torch.fft.ifft2(torch.fft.ifftshift(spectrum))
            assert wave.imag.abs().max() < 1e-12
            basis[i, j] = basis[other] = wave.real
    return basis


# The basis


@each_size
def test_the_basis_is_the_published_one(height, width):
    """Catches a map that is not shifted, a wrong sign of the sine, and a norm off by √2 at the highest frequency."""
    error = (fourier.fourier_basis(height, width).double() - slow_basis(height, width)).abs().max()
    assert error < 1e-6


@each_size
def test_the_basis_is_orthonormal_and_symmetric(height, width):
    basis = fourier.fourier_basis(height, width)
    pairs = {min((i, j), (opposite(i, height), opposite(j, width))) for i in range(height) for j in range(width)}
    rows = torch.stack([basis[pair].flatten() for pair in sorted(pairs)]).double()
    assert (rows @ rows.T - torch.eye(len(rows))).abs().max() < 1e-6
    for i in range(height):
        for j in range(width):
            assert torch.equal(basis[i, j], basis[opposite(i, height), opposite(j, width)])


def test_32_by_32_has_514_waves_a_constant_in_the_middle_and_four_that_are_their_own_opposites():
    basis = fourier.fourier_basis(32, 32)
    assert len(basis.flatten(0, 1).flatten(1).unique(dim=0)) == 514
    assert (basis[16, 16] - 1 / 32).abs().max() < 1e-7
    for alone in ((16, 16), (0, 16), (16, 0), (0, 0)):
        assert (basis[alone].abs() - 1 / 32).abs().max() < 1e-7  # ± 1 everywhere
    assert float(basis.abs().max()) == pytest.approx(math.sqrt(2) / 32)
    # Down the first dimension: a map that is transposed would have the waves across.
    assert (basis[19, 16].std(1) < 1e-7).all()
    assert (basis[19, 16].std(0) > 0.02).all()


def test_a_quarter_of_a_period_on_every_wave_is_orthogonal_to_the_basis():
    basis = fourier.fourier_basis(8, 8)
    rolled = basis[6, 4].roll(1, 0)  # two waves in eight pixels: one pixel is a quarter of a period
    assert (basis.flatten(2) @ rolled.flatten()).abs().max() < 1e-6


# The heat map


class Listener(nn.Module):
    """Says 1 if an image holds more than ``threshold`` of a wave in a channel, 0 otherwise; counts its calls."""

    def __init__(self, wave: Tensor, threshold: float, channel: int = 0) -> None:
        super().__init__()
        self.wave, self.threshold, self.channel, self.seen = wave, threshold, channel, []
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        held = (images[:, self.channel] * self.wave).sum((1, 2))
        return torch.stack([torch.zeros_like(held), held - self.threshold], 1)


def grey(n: int, *size: int) -> Dataset:
    return Dataset(torch.full((n, 3, *size), 0.5), torch.zeros(n, dtype=torch.int64), ("no", "yes"), "grey")


def slow_map(model: nn.Module, dataset: Dataset, *, norm: float, generator: torch.Generator) -> Tensor:
    """One image at a time, with the published basis; the signs as the library draws them."""
    _, channels, height, width = dataset.images.shape
    basis, wrong = slow_basis(height, width), {}
    for i in range(height):
        for j in range(width):
            other = opposite(i, height), opposite(j, width)
            if other in wrong:
                wrong[i, j] = wrong[other]
                continue
            signs = torch.randint(2, (len(dataset), channels, 1, 1), generator=generator) * 2 - 1
            answers = []
            for image, label, sign in zip(dataset.images, dataset.labels, signs, strict=True):
                moved = image.clone()
                for channel in range(channels):
                    moved[channel] += (norm * float(sign[channel]) * basis[i, j]).float()
                answers.append(bool(model(moved.clamp(0, 1)[None]).argmax() != label))
            wrong[i, j] = torch.tensor(answers)
    return torch.stack([torch.stack([wrong[i, j] for j in range(width)]) for i in range(height)])


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 5)])
def test_the_map_is_that_of_the_slow_version(height, width):
    """Catches a transposed map, labels in another order, missing signs, clamping or norm, and a wrong opposite."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, 5)).eval()
    data = Dataset(pictures(7, height, width), torch.arange(7) % 5, tuple("abcde"), "noise")
    basis = fourier.fourier_basis(height, width)
    found = fourier.error_heat_map(model, data, basis, norm=2.0, generator=draw(3), batch_size=3)
    expected = slow_map(model, data, norm=2.0, generator=draw(3))
    assert torch.equal(found.wrong, expected)
    assert 0.2 < float(expected.double().mean()) < 0.95  # both answers occur, or nothing is compared
    assert (found.errors - expected.double().mean(-1)).abs().max() < 1e-12
    whole = fourier.error_heat_map(model, data, basis, norm=2.0, generator=draw(3))
    assert torch.equal(whole.wrong, found.wrong), "the signs depend on the batches"


def test_only_the_frequency_that_a_network_listens_to_is_wrong_and_half_of_its_signs():
    """Catches an unshifted map, and signs that are not drawn: then the error would be 0 or 1."""
    basis = fourier.fourier_basis(16, 16)
    model = Listener(basis[5, 10], threshold=0.2)
    errors = fourier.error_heat_map(model, grey(400, 16, 16), basis, norm=0.4, generator=draw()).errors
    places = {(5, 10), (opposite(5, 16), opposite(10, 16))}
    assert {tuple(place) for place in errors.nonzero().tolist()} == places
    assert abs(float(errors[5, 10]) - 0.5) < 0.1
    assert errors[5, 10] == errors[11, 6]


def test_signs_are_drawn_for_each_image_and_each_channel():
    basis = fourier.fourier_basis(4, 4)
    model = Listener(basis[1, 2], threshold=9)
    fourier.error_heat_map(model, grey(64, 4, 4), basis, norm=0.4, generator=draw())
    for seen in model.seen:
        moved = seen - 0.5
        assert (moved.flatten(2).norm(dim=2) - 0.4).abs().max() < 1e-6  # per channel, and nothing was clamped
        patterns = {tuple((moved[k, :, 0, 0] > 0).tolist()) for k in range(64)}
        assert len(patterns) == 8, "all combinations of three signs occur among 64 images"


def test_images_stay_inside_the_box():
    basis = fourier.fourier_basis(4, 4)
    model = Listener(basis[1, 2], threshold=9)
    fourier.error_heat_map(model, grey(3, 4, 4), basis, norm=50.0, generator=draw())
    assert {(float(seen.min()), float(seen.max())) for seen in model.seen} <= {(0.0, 1.0), (0.0, 0.0), (1.0, 1.0)}


def test_the_mean_over_frequencies_has_its_interval_over_images():
    wrong = torch.rand(4, 4, 50, generator=draw()) < 0.3
    chosen = torch.zeros(4, 4, dtype=torch.bool)
    chosen[1, 2] = chosen[3, 2] = True
    found = fourier.HeatMap(wrong).over(chosen)
    shares = torch.stack([wrong[1, 2], wrong[3, 2]]).double().mean(0)
    expected = Estimate.of_mean(shares)
    assert (found.value, found.low, found.high, found.n) == (expected.value, expected.low, expected.high, 50)
    rest = fourier.HeatMap(wrong).excess(chosen, ~chosen)
    paired = Estimate.of_mean(shares - wrong[~chosen].double().mean(0))
    assert (rest.value, rest.low, rest.high) == (paired.value, paired.low, paired.high)
    never = fourier.HeatMap(torch.zeros(2, 2, 5, dtype=torch.bool)).over(torch.ones(2, 2, dtype=torch.bool))
    assert (never.value, never.low, never.high) == (0, 0, 0)


def test_a_basis_that_differs_at_opposite_frequencies_is_refused():
    model, basis = Listener(torch.ones(4, 4), threshold=0.2), fourier.fourier_basis(4, 4)
    basis[1, 2] = basis[1, 2].roll(1, 0)
    with pytest.raises(ValueError, match="basis must have the same wave at opposite frequencies"):
        fourier.error_heat_map(model, grey(2, 4, 4), basis, norm=0.4, generator=draw())


def test_neighbours_go_round_the_edge():
    middle = torch.zeros(5, 6, dtype=torch.bool)
    middle[0, 3] = True
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[torch.tensor([4, 0, 1])[:, None], torch.tensor([2, 3, 4])] = True
    assert torch.equal(fourier.near(middle), expected)
    assert torch.equal(fourier.near(middle, bins=0), middle)


# Filters and spectra


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (49, 3)])
@pytest.mark.parametrize("bandwidth", [1, 3, 5])
def test_a_filter_keeps_the_waves_of_its_square_and_no_other(size, bandwidth):
    """Catches a filter on the unshifted spectrum, and a square that holds a frequency without its opposite."""
    basis = fourier.fourier_basis(*size)
    for i in range(size[0]):
        for j in range(size[1]):
            wave = basis[i, j][None, None]
            inside = max(abs(i - size[0] // 2), abs(j - size[1] // 2)) <= bandwidth // 2
            kept = fourier.low_pass(wave, bandwidth)
            assert (kept - inside * wave).abs().max() < 1e-6
            assert (fourier.high_pass(wave, bandwidth) - (not inside) * wave).abs().max() < 1e-6


def test_two_filters_make_the_image_whole_and_the_narrowest_leaves_the_mean():
    images = pictures(3, 8, 8)
    assert (fourier.low_pass(images, 3) + fourier.high_pass(images, 3) - images).abs().max() < 1e-6
    mean = images.mean((2, 3), keepdim=True)
    assert (fourier.low_pass(images, 1) - mean).abs().max() < 1e-6
    assert (fourier.low_pass(images, 9) - images).abs().max() < 1e-6
    assert (fourier.low_pass(images, 7) - images).abs().max() > 1e-3  # the highest frequency of an even side is gone


def test_the_spectrum_of_a_wave_is_half_here_and_half_at_the_opposite():
    basis = fourier.fourier_basis(8, 6)
    spectrum = fourier.power_spectrum(3 * basis[2, 5].expand(2, 3, -1, -1))
    expected = torch.zeros(8, 6, dtype=torch.float64)
    expected[2, 5] = expected[opposite(2, 8), opposite(5, 6)] = 4.5
    assert (spectrum - expected).abs().max() < 1e-6
    alone = fourier.power_spectrum(3 * basis[0, 3][None, None])
    assert alone[0, 3] == pytest.approx(9)


def test_the_spectrum_adds_up_to_the_square_of_a_channel():
    """Catches a missing norm of the transform, and sums over channels in place of means."""
    images = pictures(5, 8, 6)
    total = float(fourier.power_spectrum(images).sum())
    assert total == pytest.approx(float(images.double().square().sum((2, 3)).mean()))
    noise = 0.2 * torch.randn(2000, 1, 8, 8, generator=draw())
    assert (fourier.power_spectrum(noise) / 0.04 - 1).abs().max() < 0.2


def test_the_share_of_a_picture_at_some_frequencies():
    """Catches frequencies in the order of the transform, and the share of all pictures together."""
    basis = fourier.fourier_basis(8, 6)
    first, second = 3 * basis[2, 5] + basis[4, 3], basis[2, 5] + 2 * basis[1, 1]
    chosen = torch.zeros(8, 6, dtype=torch.bool)
    chosen[2, 5] = chosen[opposite(2, 8), opposite(5, 6)] = True
    shares = fourier.power_share(torch.stack([first, second])[:, None].repeat(1, 3, 1, 1), chosen)
    assert shares.tolist() == pytest.approx([0.9, 0.2], abs=1e-6)
    chosen[opposite(2, 8), opposite(5, 6)] = False  # half of a wave lies at the opposite frequency
    assert fourier.power_share(first[None, None], chosen).tolist() == pytest.approx([0.45], abs=1e-6)


def test_many_pictures_are_transformed_piece_by_piece(monkeypatch):
    """Catches a last piece that is left out, and pieces whose means are averaged whatever their size."""
    images, low = pictures(7, 8, 6), torch.zeros(8, 6, dtype=torch.bool)
    low[3:6, 2:5] = True
    at_once = fourier.low_pass(images, 3), fourier.power_spectrum(images), fourier.power_share(images, low)
    monkeypatch.setattr(fourier, "PIECE", 3)
    in_pieces = fourier.low_pass(images, 3), fourier.power_spectrum(images), fourier.power_share(images, low)
    for whole, pieces in zip(at_once, in_pieces, strict=True):
        assert (whole - pieces).abs().max() < 1e-6


def test_rings_are_means_around_the_middle():
    down, across = torch.meshgrid(torch.arange(-4, 4), torch.arange(-3, 4), indexing="ij")
    distance = (down**2 + across**2).double().sqrt()
    spectrum = torch.rand(8, 7, generator=draw(), dtype=torch.float64)
    rings = fourier.radial_average(spectrum)
    assert len(rings) == 4
    for radius in range(4):
        pairs = zip(spectrum.flatten().tolist(), distance.flatten().tolist(), strict=True)
        members = [power for power, away in pairs if round(away) == radius]
        assert float(rings[radius]) == pytest.approx(sum(members) / len(members))


def test_the_planted_textures_are_twenty_bins_of_the_spectrum():
    spectrum = fourier.power_spectrum(PlantedWorld().textures())
    where = spectrum > 1e-6
    assert int(where.sum()) == 20
    assert torch.equal(where, where.flip(0, 1).roll((1, 1), (0, 1)))
    # A tenth of the classes each, half at either end: 0.3² / 3 per channel.
    assert (spectrum[where] - 0.3**2 / 3 / 10 / 2).abs().max() < 1e-7
