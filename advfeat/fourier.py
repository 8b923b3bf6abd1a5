"""Images as sums of waves: which frequencies a network listens to, and which ones a perturbation holds.

A *map* is a matrix (height, width) with one entry per frequency and the constant in its middle, in the order that
``torch.fft.fftshift`` gives: the entry (i, j) is of (i − height // 2) waves down and (j − width // 2) waves across the
image. Real images hold a frequency and its opposite alike, so every map is symmetric about its middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from advfeat import inputs
from advfeat.data import Dataset, check_dataset
from advfeat.estimates import Estimate
from advfeat.measures import predictions
from advfeat.models import ready
from advfeat.progress import progress

# Images that are transformed at a time: a transform takes several times the memory of its images.
PIECE = 1000


def fourier_basis(height: int, width: int) -> Float[Tensor, "h w h w"]:
    """One wave of ℓ2 norm 1 for each frequency of a map: ``fourier_basis(h, w)[i, j]`` is the picture of entry (i, j).

    With θ the phase of the frequency at a pixel, the wave is (cos θ − sin θ) / √(h·w). Its Fourier transform is zero
    except at (i, j) and at the opposite entry. Both share one wave, with θ of the one that comes first in the matrix. A
    frequency that is its own opposite (the constant, and where a side is even its highest frequency) has
    cos θ / √(h·w). Waves of different pairs are orthogonal; 32×32 has 514 of them. They do not span all images: they
    hold one phase of each frequency, and (cos θ + sin θ) / √(h·w), a quarter of a period on, is orthogonal to them all.

    Raises:
        TypeError, ValueError: a side is no whole number, or below 1.

    >>> basis = fourier_basis(32, 32)
    >>> float(basis[16, 16, 0, 0]) * 32, bool((basis[12, 3] == basis[20, 29]).all())
    (1.0, True)

    Source: the real basis of Yin et al. 2019 (arXiv 1906.08988), as in google-research/frequency_analysis.
    """
    inputs.whole("height", height, least=1)
    inputs.whole("width", width, least=1)
    down, across = (torch.arange(size, dtype=torch.float64) - size // 2 for size in (height, width))
    # The phase is taken modulo a whole period in integers, so that it is exact.
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in (height, width))
    y, x = torch.outer(down, rows).remainder(height) / height, torch.outer(across, columns).remainder(width) / width
    theta = 2 * math.pi * (y[:, None, :, None] + x[None, :, None, :])
    waves = (theta.cos() - theta.sin()) / math.sqrt(height * width)
    entries = torch.arange(height * width).view(height, width)
    other = _opposite(entries)
    alone = entries == other
    waves[alone] = theta[alone].cos() / math.sqrt(height * width)
    return waves.flatten(0, 1)[torch.minimum(entries, other)].float()


def _opposite(of: Tensor) -> Tensor:
    """A map with each entry replaced by the one at the opposite frequency; the first two dimensions are the map's."""
    rows, columns = ((2 * (size // 2) - torch.arange(size)) % size for size in of.shape[:2])
    return of[rows][:, columns]


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Which images a network gets wrong when a wave is added, for each frequency.

    Attributes:
        wrong: entry (i, j) is of the frequency (i, j) of a map; the last dimension are the images.
    """

    wrong: Bool[Tensor, "h w n"]

    def __post_init__(self) -> None:
        inputs.tensor("wrong", self.wrong, "h w n", inputs.BOOL)
        if 0 in self.wrong.shape:
            raise ValueError(f"wrong must have frequencies and images, got shape {tuple(self.wrong.shape)}")

    @property
    def errors(self) -> Float[Tensor, "h w"]:
        """Share of the images that are wrong, per frequency, float64: the map as it is drawn."""
        return self.wrong.double().mean(-1)

    def over(self, frequencies: Bool[Tensor, "h w"]) -> Estimate:
        """The mean error over the ``frequencies`` that are true, with its interval over images.

        Raises:
            TypeError, ValueError: ``frequencies`` is no boolean map of this size, or true nowhere; or there is only one
                image, which says nothing of others.
        """
        mean = Estimate.of_mean(self._shares("frequencies", frequencies))
        # Student's interval, because the shares are no ones and zeros; the mean is a share all the same.
        return Estimate(mean.value, max(0.0, mean.low), min(1.0, mean.high), mean.n, rate=False, within=(0.0, 1.0))

    def excess(self, frequencies: Bool[Tensor, "h w"], others: Bool[Tensor, "h w"]) -> Estimate:
        """How much larger the mean error is over the ``frequencies`` than over the ``others``, in [-1, 1].

        The difference is taken image by image, so that the interval does not count images that are hard everywhere.

        Raises:
            TypeError, ValueError: as ``over``, for either map.
        """
        mean = Estimate.of_mean(self._shares("frequencies", frequencies) - self._shares("others", others))
        return Estimate(mean.value, max(-1.0, mean.low), min(1.0, mean.high), mean.n, rate=False, within=(-1.0, 1.0))

    def _shares(self, name: str, frequencies: Tensor) -> Tensor:
        """For each image, the share of the frequencies that are true at which it is wrong."""
        height, width, count = self.wrong.shape
        inputs.tensor(name, frequencies, "h w", inputs.BOOL, like="the map", h=height, w=width)
        if not bool(frequencies.any()):
            raise ValueError(f"{name} must be true somewhere, got a map that is false everywhere")
        if count < 2:
            raise ValueError(f"{name}: an interval needs a map of two or more images, got {count}")
        return self.wrong[frequencies].double().mean(0)


def error_heat_map(
    model: nn.Module,
    dataset: Dataset,
    basis: Float[Tensor, "h w h w"],
    *,
    norm: float,
    generator: torch.Generator,
    batch_size: int = 500,
) -> HeatMap:
    """The errors of a network on images to which one wave is added, for every frequency.

    To each channel of each image ± ``norm`` times the wave is added, with a sign drawn for that channel of that image
    and that frequency; then the image is clamped to [0, 1]. So an image with c channels moves by √c · ``norm`` at most.
    A frequency and its opposite have the same wave, are measured once, and share the result.

    Args:
        model: a ``Classifier``, which answers in float32 with its BatchNorm folded, or any other network in eval mode.
        basis: one wave per frequency, such as ``fourier_basis``; equal at opposite frequencies.
        norm: ℓ2 norm of the wave that is added to each channel, in pixel units.
        generator: draws the signs; they do not depend on ``batch_size``.

    Raises:
        TypeError: an argument of another type; from ``models.ready`` and ``measures.predictions``.
        ValueError: ``basis`` is not of the images' size or differs at opposite frequencies; ``norm`` is negative or not
            finite; there is no image.

    Source: Yin et al. 2019 (arXiv 1906.08988). Their published code adds waves of norm 1, whatever the norm that was
    asked for, if signs are drawn; here they have the norm.
    """
    inputs.network(model)
    check_dataset(dataset, least=1)
    _, _, height, width = dataset.images.shape
    inputs.tensor("basis", basis, f"{height} {width} {height} {width}")
    inputs.number("norm", norm, least=0)
    inputs.generator(generator)
    inputs.whole("batch_size", batch_size, least=1)
    inputs.look(("basis", basis, inputs.FINITE))
    if not torch.equal(basis, _opposite(basis)):
        raise ValueError("basis must have the same wave at opposite frequencies, see fourier_basis")
    network, images = ready(model, dtype=torch.float32), dataset.images
    entries = torch.arange(height * width).view(height, width)
    first = torch.minimum(entries, _opposite(entries))
    waves = basis.flatten(0, 1).to(images.device)
    wrong = torch.zeros(height * width, len(dataset), dtype=torch.bool, device=images.device)
    measured = first.unique().tolist()
    with progress(total=len(measured) * len(dataset), unit="img", description="heat map") as bar, inputs.trusted():
        for entry in measured:
            shape = (*images.shape[:2], 1, 1)
            signs = (2 * torch.randint(2, shape, generator=generator) - 1).to(images.device, torch.float32)
            moved = (images + norm * signs * waves[entry]).clamp_(*inputs.BOX)
            found = predictions(network, dataset.replace(images=moved), batch_size=batch_size)
            wrong[entry] = found != dataset.labels
            bar.update(len(dataset))
    return HeatMap(wrong[first.flatten().to(wrong.device)].view(height, width, -1).cpu())


def near(frequencies: Bool[Tensor, "h w"], *, bins: int = 1) -> Bool[Tensor, "h w"]:
    """The frequencies at most ``bins`` entries down and across from a true one, round the edge of the map as well.

    Raises:
        TypeError, ValueError: ``frequencies`` is no boolean map, ``bins`` is negative or no whole number.
    """
    inputs.tensor("frequencies", frequencies, "h w", inputs.BOOL)
    inputs.whole("bins", bins, least=0)
    moves = range(-bins, bins + 1)
    moved = [frequencies.roll((down, across), (0, 1)) for down in moves for across in moves]
    return torch.stack(moved).any(0)


def low_pass(images: Float[Tensor, "n c h w"], bandwidth: int) -> Float[Tensor, "n c h w"]:
    """The images without the frequencies outside a square of side ``bandwidth`` around the middle of the map.

    Values are not clamped: near edges they can leave [0, 1] by a little. ``bandwidth=1`` leaves the mean of each
    channel, and from the larger side of the image on (one more if that is even) everything stays.

    Args:
        images: pictures or perturbations, any finite values.
        bandwidth: an odd number, so that a frequency and its opposite stay or go together.

    Raises:
        TypeError, ValueError: images of another type or shape or not finite; ``bandwidth`` is even or below 1.

    Source: the filter of Yin et al. 2019 (arXiv 1906.08988), a square centred on the constant.
    """
    inputs.images(images)
    inputs.whole("bandwidth", bandwidth, least=1)
    if bandwidth % 2 == 0:
        raise ValueError(f"bandwidth must be odd, so that opposite frequencies stay together, got {bandwidth}")
    inputs.look(("images", images, inputs.FINITE))
    waves = (torch.arange(size) for size in images.shape[2:])
    rows, columns = (torch.minimum(of, len(of) - of) <= bandwidth // 2 for of in waves)
    square = torch.outer(rows, columns).to(images)
    return torch.cat([torch.fft.ifft2(torch.fft.fft2(piece) * square).real for piece in images.split(PIECE)])


def high_pass(images: Float[Tensor, "n c h w"], bandwidth: int) -> Float[Tensor, "n c h w"]:
    """The images minus their ``low_pass`` of the same ``bandwidth``, which holds every channel's mean: values around 0.

    Raises:
        TypeError, ValueError: from ``low_pass``.
    """
    kept = low_pass(images, bandwidth)
    return images - kept


def power_spectrum(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "h w"]:
    """How much of the pictures' square lies at each frequency: the mean over pictures and channels of |FFT|² / (h·w).

    The entries add up to the mean of the squared ℓ2 norm of a channel (Parseval). White noise of standard deviation σ
    has σ² everywhere; the wave ``a · fourier_basis(h, w)[i, j]`` has a²/2 at (i, j) and at the opposite entry.

    Args:
        pictures: images or perturbations, any finite values; at least one.

    Returns:
        A map, float64.

    Raises:
        TypeError, ValueError: pictures of another type or shape, none, or not finite.
    """
    inputs.images(pictures, "pictures", least=1)
    inputs.look(("pictures", pictures, inputs.FINITE))
    total = torch.zeros(pictures.shape[2:], dtype=torch.float64, device=pictures.device)
    for piece in pictures.split(PIECE):
        total += torch.fft.fft2(piece.double(), norm="ortho").abs().square().sum((0, 1))
    spectrum: Tensor = torch.fft.fftshift(total / (len(pictures) * pictures.shape[1])).cpu()
    return spectrum


def power_share(pictures: Float[Tensor, "n c h w"], frequencies: Bool[Tensor, "h w"]) -> Float[Tensor, " n"]:
    """Share of each picture's square that lies at the ``frequencies`` of a map that are true, in [0, 1], float64.

    Raises:
        TypeError, ValueError: pictures of another type or shape, not finite, or zero everywhere, which has no shares;
            ``frequencies`` is no boolean map of their size.
    """
    known = inputs.images(pictures, "pictures")
    size = {letter: known[letter] for letter in ("h", "w")}
    inputs.tensor("frequencies", frequencies, "h w", inputs.BOOL, like="pictures", **size)
    inputs.look(("pictures", pictures, inputs.FINITE))
    chosen = torch.fft.ifftshift(frequencies).to(pictures.device)
    whole, inside = (torch.empty(len(pictures), dtype=torch.float64, device=pictures.device) for _ in range(2))
    for rows in torch.arange(len(pictures)).split(PIECE):
        power = torch.fft.fft2(pictures[rows].double(), norm="ortho").abs().square().sum(1)
        whole[rows], inside[rows] = power.sum((1, 2)), (power * chosen).sum((1, 2))
    if not bool((whole > 0).all()):
        raise ValueError(
            f"pictures must not be zero everywhere, got {int((whole == 0).sum())} of {len(whole)} that are"
        )
    share: Tensor = (inside / whole).clamp(0, 1).cpu()
    return share


def radial_average(spectrum: Float[Tensor, "h w"]) -> Float[Tensor, " radii"]:
    """The mean of a map over rings: entry r is of the frequencies whose distance from the middle rounds to r.

    Rings go up to half of the shorter side; further out, in the corners, they would be arcs.

    Raises:
        TypeError, ValueError: ``spectrum`` is no map of finite numbers.
    """
    inputs.tensor("spectrum", spectrum, "h w", inputs.FLOATS)
    inputs.look(("spectrum", spectrum, inputs.FINITE))
    if 0 in spectrum.shape:
        raise ValueError(f"spectrum must have frequencies, got shape {tuple(spectrum.shape)}")
    down, across = (torch.arange(size, dtype=torch.float64) - size // 2 for size in spectrum.shape)
    # Distances squared are whole numbers, so no distance lies half way between two rings.
    ring = (down[:, None].square() + across.square()).sqrt().round().long()
    rings = min(spectrum.shape) // 2 + 1
    return torch.stack([spectrum.cpu()[ring == radius].double().mean() for radius in range(rings)])
