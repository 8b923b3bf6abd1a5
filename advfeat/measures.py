"""Numbers about a model on a dataset, each with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest, norm
from scipy.stats import t as student
from torch import Tensor, nn

from advfeat.attacks import Threat, pgd, usual_step_size
from advfeat.autoattack import autoattack
from advfeat.data import Dataset, batches
from advfeat.models import Classifier, check_eval, freeze
from advfeat.progress import progress
from advfeat.records import signless_zero


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval and the number of images behind it.

    A ``rate`` is a share of the images, in [0, 1], and prints in percent; anything else prints as a plain number. A
    format of one's own goes to all three numbers: ``f"{estimate:.2f}"``. ``within`` are the bounds of what such a
    number can be at all, such as (-1, 1) for a correlation.
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

    @classmethod
    def of_correlation(cls, pairs: Float[Tensor, "n 2"]) -> Estimate:
        """Pearson's r of n pairs with Fisher's interval, tanh(artanh r ± 1.96 / √(n − 3)).

        It is about further pairs drawn like these, not about the error of each number. With few pairs it is wide: at
        n = 5 an r of 0.9 is compatible with one of 0.09.

        Raises:
            ValueError: fewer than four pairs, or one side never changes.
        """
        n = len(pairs)
        if n < 4 or not bool((pairs.std(0) > 0).all()):
            raise ValueError(f"a correlation needs four or more pairs that differ, got {pairs.tolist()}")
        r = float(torch.corrcoef(pairs.double().T)[0, 1].clamp(-1, 1))
        half = float(norm.ppf(0.975)) / math.sqrt(n - 3)
        low, high = (math.tanh(math.atanh(r) + side * half) if abs(r) < 1 else r for side in (-1, 1))
        return cls(r, low, high, n, rate=False, within=(-1.0, 1.0))


def predictions(model: nn.Module, dataset: Dataset, *, batch_size: int = 500) -> Int[Tensor, " n"]:
    """The class that the model gives to each image.

    Raises:
        ValueError: the model is in training mode, where an answer depends on the other images of its batch.
    """
    check_eval(model)
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
    attack: str = "pgd",
    steps: int | None = None,
    step_size: float | None = None,
    restarts: int = 0,
    seed: int = 0,
    early_drop: bool = True,
    batch_size: int = 500,
) -> Estimate:
    """Share of images that ``withstands`` finds no adversarial image for; the arguments are its arguments.

    An upper bound on the accuracy under the worst perturbation, and at most ``accuracy``: a stronger attack can only
    lower it.

    Raises:
        ValueError: from ``withstands``.

    Source: equation (4) of Ilyas et al. 2019, with the inner maximum approximated by the attack.
    """
    stands = withstands(
        model,
        dataset,
        threat,
        attack=attack,
        steps=steps,
        step_size=step_size,
        restarts=restarts,
        seed=seed,
        early_drop=early_drop,
        batch_size=batch_size,
    )
    return Estimate.of_rate(int(stands.sum()), len(dataset))


def withstands(
    model: Classifier,
    dataset: Dataset,
    threat: Threat,
    *,
    attack: str = "pgd",
    steps: int | None = None,
    step_size: float | None = None,
    restarts: int = 0,
    seed: int = 0,
    early_drop: bool = True,
    batch_size: int = 500,
) -> Bool[Tensor, " n"]:
    """Whether each image is classified as labelled, itself and wherever an untargeted attack was looked at.

    The model in float32 is the judge. It looks at the images, at the iterates of PGD after a tenth of the steps and
    whenever their number has grown by half, and at the last ones; one wrong answer and the image is fooled. An image is
    attacked on its own, so leaving out the fooled ones from then on (``early_drop``) changes the time and not the
    answer, up to rounding: smaller batches are added up in another order (see ``attacks.pgd``), and an image whose two
    largest logits agree to 1e-6 can come out either way.

    Args:
        attack: ``pgd``, or ``autoattack`` (see that module), which has no steps, step size or restarts to choose.
        steps: of PGD.
        step_size: default ``attacks.usual_step_size``.
        restarts: further runs of PGD from random points of the ball.
        seed: of those points, and of AutoAttack's draws.

    Raises:
        ValueError: an unknown attack, PGD without steps or with negative ones, AutoAttack with steps, and from ``pgd``.
    """
    attacked = freeze(model)
    judge = attacked if attacked.dtype == torch.float32 else freeze(model, dtype=torch.float32)
    stands = predictions(judge, dataset, batch_size=batch_size) == dataset.labels
    if attack == "autoattack":
        if steps is not None or step_size is not None or restarts:
            raise ValueError(f"AutoAttack fixes its steps and restarts, got {steps=}, {step_size=}, {restarts=}")
        if threat.eps > 0:
            found = autoattack(judge, dataset.images, dataset.labels, threat, seed=seed, batch_size=batch_size)
            stands &= predictions(judge, dataset.replace(images=found), batch_size=batch_size) == dataset.labels
        return stands
    if attack != "pgd":
        raise ValueError(f"attack must be 'pgd' or 'autoattack', got {attack!r}")
    if steps is None or steps < 0:
        raise ValueError(f"steps must be 0 or more, got {steps}")
    if restarts < 0:
        raise ValueError(f"restarts must be 0 or more, got {restarts}")
    if steps == 0 or threat.eps == 0:
        return stands
    size = usual_step_size(threat, steps) if step_size is None else step_size
    generator = torch.Generator().manual_seed(seed)
    with progress(total=len(dataset) * steps * (1 + restarts), unit="step", description=f"PGD-{steps} {threat}") as bar:
        for run in range(1 + restarts):
            # Drawn for all images, needed or not: the draws must not depend on who is left.
            start = dataset.images if run == 0 else threat.random_start(dataset.images, generator)
            left = stands.nonzero().flatten() if early_drop else torch.arange(len(dataset), device=stands.device)
            adv = start[left]
            bar.update((len(dataset) - len(left)) * steps)
            for done, pause in pairwise(_pauses(steps)):
                for first in range(0, len(left), batch_size):
                    rows = slice(first, first + batch_size)
                    images, labels = dataset.images[left[rows]], dataset.labels[left[rows]]
                    adv[rows] = pgd(
                        attacked, images, labels, threat, steps=pause - done, step_size=size, start=adv[rows]
                    )
                    with torch.no_grad():
                        stands[left[rows]] &= judge(adv[rows]).argmax(1) == labels
                    bar.update(len(labels) * (pause - done))
                if early_drop:
                    keep = stands[left]
                    bar.update(int((~keep).sum()) * (steps - pause))
                    left, adv = left[keep], adv[keep]
    return stands


def _pauses(steps: int) -> list[int]:
    """The steps between which PGD's iterates are looked at: 0, a tenth, half as many again and again, and the last.

    An ordinary network is fooled on the first tenth or fifth of the way; looking more often costs more than it saves.
    """
    pauses, at = {0, steps}, steps / 10
    while at < steps:
        pauses.add(math.ceil(at))
        at *= 1.5
    return sorted(pauses)


def signal_kept(
    dataset: Dataset, original: Dataset, templates: Float[Tensor, "classes 3 h w"], *, paired: bool = True
) -> Estimate:
    """How much of what a known linear feature says about the labels is still in a dataset made from ``original``.

    With f_c(x) = ⟨x, T_c⟩ an image labelled y says f_y(x) minus the mean of f_c(x) over the other classes c. This is
    the mean of that over ``dataset``, each image with the label that it has there, divided by the mean over
    ``original``: 1 if the feature tells as much about the label as before, 0 if it tells nothing, negative if it
    misleads.

    Args:
        templates: T, one per class, such as the shapes or the textures of a planted world.
        paired: whether each image was made from the one of ``original`` in its row. The interval of the ratio then
            counts what is common to both only once (delta method); else it takes the denominator as exact.

    Raises:
        ValueError: not one template per class, the feature says nothing true about the labels of ``original``, or pairs
            are wanted of datasets of different sizes.

    Source: section 3.1 of Ilyas et al. 2019, which defines D_R by E[f(x) y], for features that are known.
    """
    if len(templates) != dataset.num_classes:
        raise ValueError(f"{len(templates)} templates for {dataset.num_classes} classes")

    def said(of: Dataset) -> Tensor:
        responses = of.images.flatten(1).double() @ templates.flatten(1).T.to(of.images.device).double()
        own = responses.gather(1, of.labels[:, None]).squeeze(1)
        return own - (responses.sum(1) - own) / (of.num_classes - 1)

    if paired and len(dataset) != len(original):
        raise ValueError(f"pairs need as many images in both, got {len(dataset)} and {len(original)}; or paired=False")
    before = said(original)
    whole = float(before.mean())
    if not whole > 0:
        raise ValueError(f"the templates say nothing true about the labels of {original.name}: mean {whole:.3g}")
    share = said(dataset) / whole
    if paired:
        share -= share.mean() * (before / whole - 1)  # of mean 0: it moves the spread, not the mean
    return Estimate.of_mean(share.cpu())
