"""Comparisons of networks: exact tests by hand, intervals that hold as often as they say, and families that do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from advfeat.comparisons import holm, mcnemar, paired_difference, two_proportions, unpaired_difference

pytestmark = pytest.mark.numbers


def outcomes(*counts: int) -> tuple[Tensor, Tensor]:
    """Both right, only the first, only the second, neither: so many images of each."""
    kinds = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    return (kinds < 2), (kinds == 0) | (kinds == 2)


def test_mcnemar_is_the_sign_test_of_the_images_that_differ():
    # One of eight: twice the probability of at most one head in eight tosses.
    assert mcnemar(*outcomes(50, 1, 7, 20)) == pytest.approx(2 * 9 / 2**8, rel=1e-12)
    assert mcnemar(*outcomes(5, 1, 7, 2000)) == mcnemar(*outcomes(50, 1, 7, 20)), "what agrees says nothing"
    assert mcnemar(*outcomes(50, 0, 0, 20)) == 1
    assert mcnemar(*outcomes(0, 4, 4, 0)) == 1, "not above one"


def test_pairing_narrows_the_interval_by_what_is_common():
    first, second = outcomes(500, 30, 10, 460)
    paired, unpaired = paired_difference(first, second), unpaired_difference(first, second)
    assert paired.value == pytest.approx(0.02)
    assert unpaired.value == pytest.approx(0.02)
    assert paired.low > 0 > unpaired.low
    # By hand: variance of a difference that is 1 for 30 and −1 for 10 of 1,000 images.
    half = 1.9623414611334487 * math.sqrt((0.04 - 0.02**2) / 999)
    assert paired.high - paired.value == pytest.approx(half, rel=1e-9)


def test_two_groups_by_the_pooled_normal_test():
    first, second = torch.arange(100) < 60, torch.arange(100) < 45
    z = 0.15 / math.sqrt(0.525 * 0.475 * 2 / 100)
    assert two_proportions(first, second) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-9)
    assert two_proportions(first, first) == 1
    assert two_proportions(first[:0] | True if len(first[:0]) else first[:1], first[:1]) == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    # At least Bonferroni's power: never above it.
    values = torch.rand(50, generator=torch.Generator().manual_seed(0)).tolist()
    assert all(adjusted <= min(1, 50 * value) for adjusted, value in zip(holm(values), values, strict=True))


def test_the_family_keeps_its_level_and_single_tests_do_not():
    draw = torch.Generator().manual_seed(0)
    single = adjusted = 0
    for _ in range(300):
        right = torch.rand(400, generator=draw) < 0.6
        halves = [right[torch.randperm(400, generator=draw)] for _ in range(20)]
        p_values = [two_proportions(half[:200], half[200:]) for half in halves]
        single += min(p_values) < 0.05
        adjusted += min(holm(p_values)) < 0.05
    assert single > 120, "twenty tests of nothing: about 64 %"
    assert adjusted <= 27, "5 % of 300, and three standard deviations"
