"""Numbers with their 95% intervals: a single estimate, a recorded number, and a summary over several seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import bdtr, ndtri, stdtrit
from torch import Tensor

from advfeat import inputs


def signless_zero(spec: str) -> str:
    """The format ``spec`` with a z after alignment and sign: a number that rounds to zero has no minus sign."""
    return re.sub(r"^((?:.?[<>=^])?[-+ ]?)z?", r"\1z", spec, count=1)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval and the number of images behind it.

    A ``rate`` is a share of the images, in [0, 1], and prints in percent; any other estimate prints as a plain number.
    A format applies to all three numbers: ``f"{estimate:.2f}"``. ``within`` are the bounds of the possible values, such
    as (-1, 1) for a correlation.
    """

    value: float
    low: float
    high: float
    n: int
    rate: bool = True
    within: tuple[float, float] | None = None

    def __str__(self) -> str:
        return format(self, ".1%" if self.rate else ".3f")

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        spec = signless_zero(spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    @classmethod
    def of_rate(cls, hits: int, n: int) -> Estimate:
        """A proportion with Wilson's score interval, which is valid near 0 and 1, too.

        Raises:
            ValueError: ``n`` is not positive or ``hits`` not in [0, n].
        """
        inputs.whole("hits", hits)
        inputs.whole("n", n)
        if n < 1 or not 0 <= hits <= n:
            raise ValueError(f"a rate needs 0 <= hits <= n and n >= 1, got hits={hits}, n={n}")
        return cls(hits / n, *_wilson(hits / n, n), n)

    @classmethod
    def of_mean(cls, values: Float[Tensor, " n"]) -> Estimate:
        """The mean of one number per image with Student's interval, m ± t(0.975, n − 1) · s / √n.

        The interval is exact for normal values and, by the central limit theorem, close for others from some hundred
        images on, where a bootstrap gives the same interval, but with random error. For shares of images use
        ``of_rate``.

        Raises:
            ValueError: fewer than two values, or a value that is not finite.
        """
        inputs.tensor("values", values, "n", inputs.FLOATS)
        if len(values) < 2 or not bool(values.isfinite().all()):
            raise ValueError(f"values: a mean needs two or more finite values, got {len(values)}: {values}")
        exact = values.double()
        mean, n = float(exact.mean()), len(values)
        half = _student(n - 1) * float(exact.std()) / math.sqrt(n)
        return cls(mean, mean - half, mean + half, n, rate=False)

    @classmethod
    def of_median(cls, values: Float[Tensor, " n"]) -> Estimate:
        """The median with the interval between two of the values themselves, which holds for every distribution.

        The ends are the l-th smallest and the l-th largest value, with the largest l for which a binomial number of n
        fair coins is below l with a probability of at most 2.5 %. Values may be infinite, such as the distance of an
        image for which no adversarial image was found; a record takes the median if it and its interval are finite.

        Raises:
            ValueError: fewer than six values, which are too few for an interval, or a value that is NaN.
        """
        inputs.tensor("values", values, "n", inputs.FLOATS)
        n = len(values)
        if n < 6 or bool(values.isnan().any()):
            raise ValueError(f"values: a median needs six or more numbers, got {n}: {values}")
        ordered = values.double().sort().values
        rank = int((bdtr(np.arange(n // 2), n, 0.5) <= 0.025).sum())
        low, high = float(ordered[rank - 1]), float(ordered[n - rank])
        middle = ordered[(n - 1) // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2
        return cls(float(middle), low, high, n, rate=False)

    @classmethod
    def of_correlation(cls, pairs: Float[Tensor, "n 2"]) -> Estimate:
        """Pearson's r of n pairs with Fisher's interval, tanh(artanh r ± 1.96 / √(n − 3)).

        The interval allows for the choice of the pairs, not for the error of each number. With few pairs it is wide: at
        n = 5 an r of 0.9 is compatible with a true correlation of 0.09.

        Raises:
            ValueError: fewer than four pairs, or one side is constant.
        """
        inputs.tensor("pairs", pairs, "n 2", inputs.FLOATS)
        inputs.look(("pairs", pairs, inputs.FINITE))
        n = len(pairs)
        if n < 4 or not bool((pairs.std(0) > 0).all()):
            raise ValueError(f"pairs: a correlation needs four or more pairs that differ, got {pairs.tolist()}")
        r = float(torch.corrcoef(pairs.double().T)[0, 1].clamp(-1, 1))
        half = _normal() / math.sqrt(n - 3)
        low, high = (math.tanh(math.atanh(r) + side * half) if abs(r) < 1 else r for side in (-1, 1))
        return cls(r, low, high, n, rate=False, within=(-1.0, 1.0))

    def on_fishers_scale(self) -> Estimate:
        """The same correlation with an interval that cannot leave [−1, 1]: symmetric about artanh r, not about r.

        There each side is as long as here, times the slope of artanh at r, 1 / (1 − r²). Far from ±1 this changes
        nothing but the third digit; near them the side towards the end shrinks and the other one grows.

        Raises:
            ValueError: the value is outside [−1, 1] by more than rounding.
        """
        if abs(self.value) > 1 + 1e-9:
            raise ValueError(f"a correlation must be in [-1, 1], got {self.value}")
        r = min(1.0, max(-1.0, self.value))
        slope = 1 / (1 - r * r) if abs(r) < 1 else 0.0
        low, high = (math.tanh(math.atanh(r) + slope * (end - r)) if slope else r for end in (self.low, self.high))
        return replace(self, value=r, low=low, high=high, within=(-1.0, 1.0))


def correlation_of(first: Mapping[str, Estimate], second: Mapping[str, Estimate], *, without: str = "") -> Estimate:
    """Pearson's r, with Fisher's interval, of two measurements of the same things, for example of five networks.

    Args:
        first: name of the thing → its measured value; the interval of the value plays no part.
        second: the same for some of these things, or for all: those that count.
        without: one of them, to be left out all the same.

    Raises:
        ValueError: ``first`` lacks one of them, ``without`` is none of them, or from ``Estimate.of_correlation``.
    """
    if missing := [name for name in second if name not in first]:
        raise ValueError(f"first must hold all that second holds, and lacks {', '.join(missing)}")
    if without:
        inputs.one_of("without", without, second)
    pairs = [[first[name].value, second[name].value] for name in second if name != without]
    return Estimate.of_correlation(torch.tensor(pairs))


def leaving_one_out(first: Mapping[str, Estimate], second: Mapping[str, Estimate]) -> list[Estimate]:
    """``correlation_of`` two measurements, without each of the things of ``second`` in turn."""
    return [correlation_of(first, second, without=name) for name in second]


@dataclass(frozen=True)
class Measured:
    """One recorded number: its value, the number of images behind it, the network and the attack.

    For a rate in [0, 1] this is enough, because its interval follows from n. Any other number has a 95% interval of
    its own, ``low`` and ``high``, and optionally the bounds ``within`` which every possible value lies. ``seed`` is the
    seed of the network. Runs of several seeds may share one network, such as the source of a constructed dataset; it
    counts once.
    """

    value: float
    n: int
    network: str
    attack: str = "none"
    seed: int = 0
    low: float | None = None
    high: float | None = None
    within: Sequence[float] | None = None

    def __post_init__(self) -> None:
        inputs.real("value", self.value)
        inputs.whole("n", self.n)
        inputs.text("network", self.network)
        inputs.text("attack", self.attack)
        inputs.seed(self.seed)
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                inputs.real(name, getattr(self, name))

    @classmethod
    def of_estimate(cls, estimate: Estimate, network: str, *, attack: str = "none", seed: int = 0) -> Measured:
        """An estimate as it is recorded: of a rate without its interval, which follows from n."""
        inputs.instance("estimate", estimate, Estimate, "an estimates.Estimate")
        low, high = (None, None) if estimate.rate else (estimate.low, estimate.high)
        return cls(estimate.value, estimate.n, network, attack, seed, low, high, estimate.within)

    @property
    def rate(self) -> bool:
        """Whether the number is a share in [0, 1], which has no interval of its own."""
        return self.low is None and self.high is None

    @property
    def accepted(self) -> bool:
        """Whether the numbers fit together: a rate in [0, 1], or a finite value inside its interval; n at least 1."""
        if self.low is None or self.high is None:
            return self.rate and 0 <= self.value <= 1 and self.n >= 1
        finite = all(map(math.isfinite, (self.low, self.value, self.high)))
        return finite and self.low <= self.value <= self.high and self.n >= 1


@dataclass(frozen=True, kw_only=True)
class Summary(Estimate):
    """A recorded number over all seeds; n is the smallest number of images behind any seed."""

    seeds: int
    network: str
    attack: str


def summarise(measured: Sequence[Measured]) -> Summary:
    """The mean over seeds of one value; runs that share a network count as one, with their mean.

    The interval adds two independent sources of error. The first is the choice of test images: Wilson's interval for a
    rate, the mean of the recorded intervals for any other number. The second, from two seeds on, is the spread between
    seeds (Student's t). With two seeds it is wide, as it should be: two runs say little about a third. Of a number in
    [−1, 1], such as a correlation, both are added on Fisher's scale, artanh r, so the interval ends before ±1.
    """
    by_seed = [[item for item in measured if item.seed == seed] for seed in {item.seed: None for item in measured}]

    def of_each(part: str) -> np.ndarray:
        return np.array([np.mean([getattr(item, part) for item in shared]) for shared in by_seed])

    values = of_each("value")
    mean, n, seeds = float(values.mean()), min(item.n for item in measured), len(by_seed)
    spread = _student(seeds - 1) * float(values.std(ddof=1)) / math.sqrt(seeds) if seeds > 1 else 0.0
    rate = all(item.rate for item in measured)
    if rate:
        # Unlike the interval from the normal approximation, Wilson's does not vanish at 0 and 1.
        low, high = _wilson(mean, n)
    else:
        # All seeds saw the same images, so their errors may agree: the intervals are averaged, not divided by √seeds.
        low, high = float(of_each("low").mean()), float(of_each("high").mean())
    low, high = mean - math.hypot(mean - low, spread), mean + math.hypot(high - mean, spread)
    least, most = (0.0, 1.0) if rate else measured[0].within or (-math.inf, math.inf)
    if seeds > 1 and (least, most) == (-1.0, 1.0):
        low, high = _fishers_interval(values, of_each("low"), of_each("high"))
    low, high = max(least, low), min(most, high)
    return Summary(
        value=mean,
        low=low,
        high=high,
        n=n,
        rate=rate,
        seeds=seeds,
        network=measured[0].network,
        attack=measured[0].attack,
    )


def _fishers_interval(values: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
    """The interval of the mean of numbers in [−1, 1], one for each network, as ``summarise`` has it."""
    almost = math.nextafter(1.0, 0.0)  # artanh 1 is infinite
    middle, z, below, above = (np.arctanh(np.clip(of, -almost, almost)) for of in (values.mean(), values, lows, highs))
    spread = _student(len(z) - 1) * float(z.std(ddof=1)) / math.sqrt(len(z))
    down, up = math.hypot(float((z - below).mean()), spread), math.hypot(float((above - z).mean()), spread)
    return math.tanh(middle - down), math.tanh(middle + up)


@cache
def _student(freedom: int) -> float:
    return float(stdtrit(freedom, 0.975))


@cache
def _normal() -> float:
    return float(ndtri(0.975))


def _wilson(rate: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate over n images; n times the rate need not be a whole number."""
    z = _normal()
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 and 1 the end is exact; rounding could put it outside [0, 1].
    return 0.0 if rate == 0 else centre - half, 1.0 if rate == 1 else centre + half
