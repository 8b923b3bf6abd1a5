"""Recorded numbers, and what several seeds say of one together: a mean with its 95 % interval."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import norm, t

from advfeat import inputs


@dataclass(frozen=True)
class Measured:
    """One recorded number: its value, the images behind it, and what was measured how.

    A rate in [0, 1] needs no more, for its interval follows from n. Any other number brings its 95 % interval, ``low``
    and ``high``, and perhaps the bounds ``within`` which it lies whatever happens. ``seed`` is that of the network.
    Runs of several seeds may share one network, the source of a constructed dataset, say; it counts once.
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

    @property
    def rate(self) -> bool:
        """Whether this is a share in [0, 1], which brings no interval."""
        return self.low is None and self.high is None

    @property
    def accepted(self) -> bool:
        """Whether the numbers fit together: a rate in [0, 1], or a finite value inside its interval; n at least 1."""
        if self.low is None or self.high is None:
            return self.rate and 0 <= self.value <= 1 and self.n >= 1
        finite = all(map(math.isfinite, (self.low, self.value, self.high)))
        return finite and self.low <= self.value <= self.high and self.n >= 1


def signless_zero(spec: str) -> str:
    """The format ``spec`` of a number with a z behind alignment and sign: what rounds to zero has no minus."""
    return re.sub(r"^((?:.?[<>=^])?[-+ ]?)z?", r"\1z", spec, count=1)


@dataclass(frozen=True)
class Summary:
    """A recorded number over all seeds, with its 95 % interval. A ``rate`` prints in percent."""

    value: float
    low: float
    high: float
    n: int
    seeds: int
    network: str
    attack: str
    rate: bool = True

    def __str__(self) -> str:
        return format(self, ".1%" if self.rate else ".3f")

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        spec = signless_zero(spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def summarise(measured: Sequence[Measured]) -> Summary:
    """The mean over seeds of one value, measured once or more; runs that share a network count as one, at their mean.

    The interval adds two independent sources of error: the choice of test images (for a rate Wilson's interval, else
    the recorded one, averaged) and, from two seeds on, the spread between seeds (Student's t). With two seeds the
    second is wide, and it should be: two runs say little about a third.
    """
    by_seed = [[item for item in measured if item.seed == seed] for seed in {item.seed: None for item in measured}]

    def of_each(part: str) -> np.ndarray:
        return np.array([np.mean([getattr(item, part) for item in shared]) for shared in by_seed])

    values = of_each("value")
    mean, n, seeds = float(values.mean()), min(item.n for item in measured), len(by_seed)
    spread = _student(seeds - 1) * float(values.std(ddof=1)) / math.sqrt(seeds) if seeds > 1 else 0.0
    rate = all(item.rate for item in measured)
    if rate:
        # Wilson's interval for the images: unlike the usual half-width it does not vanish at 0 and 1.
        low, high = _wilson(mean, n)
    else:
        # The seeds saw the same images, so their errors may agree: averaged, not divided by the root of the number.
        low, high = float(of_each("low").mean()), float(of_each("high").mean())
    low, high = mean - math.hypot(mean - low, spread), mean + math.hypot(high - mean, spread)
    least, most = (0.0, 1.0) if rate else measured[0].within or (-math.inf, math.inf)
    low, high = max(least, low), min(most, high)
    return Summary(mean, low, high, n, seeds, measured[0].network, measured[0].attack, rate)


@cache
def _student(freedom: int) -> float:
    return float(t.ppf(0.975, freedom))


@cache
def _normal() -> float:
    return float(norm.ppf(0.975))


def _wilson(rate: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate over n images; the rate may be a mean over seeds, so no whole count."""
    z = _normal()
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half
