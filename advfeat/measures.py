"""Numbers about a model on a dataset, each with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest
from scipy.stats import t as student
from torch import Tensor, nn

from advfeat.attacks import Threat, pgd
from advfeat.data import Dataset, batches
from advfeat.models import Classifier, freeze
from advfeat.progress import progress


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the number of images behind it.

    A ``rate`` is a share in [0, 1] and prints in percent; anything else prints as a plain number. A format of one's own
    goes to all three numbers: ``f"{estimate:.2f}"``.
    """

    value: float
    low: float
    high: float
    n: int
    rate: bool = True

    def __str__(self) -> str:
        return format(self, ".1%" if self.rate else ".3f")

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    @classmethod
    def of_rate(cls, hits: int, n: int) -> Estimate:
        """A proportion with Wilson's score interval, which holds near 0 and 1 too.

        Raises:
            ValueError: ``n`` is not positive or ``hits`` not in [0, n].
        """
        if n < 1 or not 0 <= hits <= n:
            raise ValueError(f"a rate needs 0 <= hits <= n and n >= 1, got hits={hits}, n={n}")
        interval = binomtest(hits, n).proportion_ci(0.95, method="wilson")
        return cls(hits / n, float(interval.low), float(interval.high), n)

    @classmethod
    def of_mean(cls, values: Float[Tensor, " n"]) -> Estimate:
        """The mean of one number per image with Student's interval, m ± t(0.975, n − 1) · s / √n.

        Exact for normal values and, by the central limit theorem, close for others from some hundred images on; a
        bootstrap says the same there, at the price of a random answer. Shares of images are for ``of_rate``.

        Raises:
            ValueError: fewer than two values, or one that is not finite.
        """
        if len(values) < 2 or not bool(values.isfinite().all()):
            raise ValueError(f"a mean needs two or more finite values, got {len(values)}: {values}")
        exact = values.double()
        mean, n = float(exact.mean()), len(values)
        half = float(student.ppf(0.975, n - 1)) * float(exact.std()) / math.sqrt(n)
        return cls(mean, mean - half, mean + half, n, rate=False)


def predictions(model: nn.Module, dataset: Dataset, *, batch_size: int = 500) -> Int[Tensor, " n"]:
    """The class that the model gives to each image. The model should be in eval mode."""
    with torch.no_grad():
        return torch.cat([model(images).argmax(1) for images, _ in batches(dataset, batch_size=batch_size)])


def accuracy(model: Classifier, dataset: Dataset, *, batch_size: int = 500) -> Estimate:
    """Share of images classified as labelled, by the model in float32 with its BatchNorm folded."""
    answers = predictions(freeze(model, dtype=torch.float32), dataset, batch_size=batch_size)
    return Estimate.of_rate(int((answers == dataset.labels).sum()), len(dataset))


def robust_accuracy(
    model: Classifier,
    dataset: Dataset,
    threat: Threat,
    *,
    steps: int,
    step_size: float | None = None,
    batch_size: int = 500,
) -> Estimate:
    """Share of images still classified as labelled after untargeted PGD of ``steps`` steps within ``threat``.

    An upper bound on the accuracy under the worst perturbation: a stronger attack can only lower it.

    Args:
        step_size: default 2.5 · eps / steps, the paper authors' choice, enough to cross the ball in any direction.

    Raises:
        ValueError: from ``pgd``.

    Source: equation (4) of Ilyas et al. 2019, with the inner maximum approximated by PGD.
    """
    if threat.eps == 0 or steps == 0:
        return accuracy(model, dataset, batch_size=batch_size)
    attacked = freeze(model)
    judge = attacked if attacked.dtype == torch.float32 else freeze(model, dtype=torch.float32)
    size = 2.5 * threat.eps / steps if step_size is None else step_size
    hits = 0
    with progress(total=len(dataset), unit="img", description=f"PGD-{steps} {threat}") as bar:
        for images, labels in batches(dataset, batch_size=batch_size):
            adv = pgd(attacked, images, labels, threat, steps=steps, step_size=size)
            with torch.no_grad():
                hits += int((judge(adv).argmax(1) == labels).sum())
            bar.update(len(labels))
    return Estimate.of_rate(hits, len(dataset))
