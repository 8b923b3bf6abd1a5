"""Whether one network is better than another: paired and unpaired comparisons, and several of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from scipy.special import bdtr, ndtr
from torch import Tensor

from advfeat import inputs
from advfeat.estimates import Estimate


def paired_difference(first: Bool[Tensor, " n"], second: Bool[Tensor, " n"]) -> Estimate:
    """The accuracy of one network minus that of another on the same images, as a plain number in [-1, 1].

    Args:
        first: whether the first network is right on each image, such as the answer of ``robustness.withstands``.
        second: the same of the second network, image by image.

    Returns:
        The mean of the differences of one image with Student's interval, ``Estimate.of_mean``: images on which both are
        right, or both wrong, add nothing to the error.

    Raises:
        ValueError: not as many of one as of the other, or fewer than two images.
    """
    _check_outcomes(first, second, paired=True)
    return Estimate.of_mean(first.cpu().double() - second.cpu().double())


def unpaired_difference(first: Bool[Tensor, " n"], second: Bool[Tensor, " m"]) -> Estimate:
    """The accuracy of one network minus that of another on other images, with Newcombe's interval.

    The interval joins the two Wilson intervals: its half-widths are the roots of the sums of their squared half-widths.

    Raises:
        ValueError: no image on one side.

    Source: Newcombe 1998, method 10.
    """
    _check_outcomes(first, second, paired=False)
    one, other = (Estimate.of_rate(int(right.sum()), len(right)) for right in (first, second))
    gap = one.value - other.value
    below = ((one.value - one.low) ** 2 + (other.high - other.value) ** 2) ** 0.5
    above = ((one.high - one.value) ** 2 + (other.value - other.low) ** 2) ** 0.5
    return Estimate(gap, gap - below, gap + above, min(one.n, other.n), rate=False, within=(-1.0, 1.0))


def mcnemar(first: Bool[Tensor, " n"], second: Bool[Tensor, " n"]) -> float:
    """Two-sided p-value of "both networks are equally often right", from the images on which they disagree.

    If they are, either of them is the one that is right on such an image with probability 1/2: the exact sign test. It
    is 1 where they never disagree.

    Raises:
        ValueError: not as many of one as of the other, or fewer than two images.

    Source: McNemar 1947; Dietterich 1998 for classifiers.
    """
    _check_outcomes(first, second, paired=True)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def two_proportions(first: Bool[Tensor, " n"], second: Bool[Tensor, " m"]) -> float:
    """Two-sided p-value of "both are equally often right" from two groups of images, by the pooled normal test.

    Raises:
        ValueError: no image on one side.
    """
    _check_outcomes(first, second, paired=False)
    one, other = first.double().mean(), second.double().mean()
    pooled = float(torch.cat([first, second.to(first.device)]).double().mean())
    spread = (pooled * (1 - pooled) * (1 / len(first) + 1 / len(second))) ** 0.5
    return 1.0 if spread == 0 else 2 * float(ndtr(-abs(float(one - other)) / spread))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of several comparisons: those at most α may be called differences, at a risk of α in all.

    With probability at least 1 − α no true hypothesis of the family is rejected, whatever the dependence between the
    comparisons. The i-th smallest of m is multiplied by m − i + 1, and is no smaller than the ones before it.
    Bonferroni multiplies each by m, which rejects less.

    Raises:
        TypeError, ValueError: a p-value is no number in [0, 1].

    Source: Holm 1979.
    """
    inputs.instance("p_values", p_values, (list, tuple), "a list of numbers")
    for value in p_values:
        inputs.number("p_values", value, least=0, most=1)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _check_outcomes(first: Tensor, second: Tensor, *, paired: bool) -> None:
    sizes = inputs.tensor("first", first, "n", inputs.BOOL)
    inputs.tensor("second", second, "n", inputs.BOOL, like="first", **(sizes if paired else {}))
    for name, values in (("first", first), ("second", second)):
        if len(values) < (2 if paired else 1):
            raise ValueError(f"{name} must be {'two images' if paired else 'one image'} or more, got {len(values)}")
