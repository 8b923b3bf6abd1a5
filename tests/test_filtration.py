"""Images that all networks miss, and their number by chance, against counts by hand and simulated networks."""

from __future__ import annotations

import pytest
import torch

from advfeat.filtration import filtered, judged

LABELS = torch.tensor([0, 0, 0, 0, 1, 1])


def test_by_hand():
    """Class 0: error rates 1/2 and 1/4; class 1: 1 and 1/2. Catches error rates over all classes, and a sum."""
    answers = {"a": torch.tensor([1, 1, 0, 0, 0, 0]), "b": torch.tensor([1, 0, 0, 0, 1, 0])}
    found = filtered(answers, LABELS)
    assert found.missed.tolist() == [True, False, False, False, False, True]
    assert (found.rate.value, found.rate.n) == (2 / 6, 6)
    assert found.chance == pytest.approx(4 / 6 * (1 / 2 * 1 / 4) + 2 / 6 * (1 * 1 / 2))
    judge = judged(torch.tensor([0, 0, 0, 1, 1, 2]), LABELS, found.missed)
    assert (judge.accuracy.value, judge.accuracy.n) == (1 / 2, 2)
    assert judge.chance == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_independent_mistakes_give_what_chance_gives():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40_000) % 4
    rates = torch.tensor([0.1, 0.3, 0.5, 0.7])

    def network():
        wrong = torch.rand(len(labels), generator=generator) < rates[labels]
        return torch.where(wrong, (labels + 1) % 4, labels)

    found = filtered({name: network() for name in "abc"}, labels)
    # The truth is the mean of the cubes; the rates over all classes alike would give 0.064.
    assert found.rate.low < float((rates**3).mean()) < found.rate.high
    assert found.rate.low < found.chance < found.rate.high
    judge = judged(network(), labels, found.missed)
    assert judge.accuracy.low < judge.chance < judge.accuracy.high


def test_one_network_misses_what_it_misses():
    answers = torch.tensor([1, 0, 0, 1, 0, 1])
    found = filtered({"only": answers}, LABELS)
    assert torch.equal(found.missed, answers != LABELS)
    assert found.chance == pytest.approx(found.rate.value)


@pytest.mark.parametrize(
    ("answers", "labels", "named"),
    [
        ({}, LABELS, "answers"),
        ([LABELS], LABELS, "answers"),
        ({"a": LABELS[:3]}, LABELS, r"answers\['a'\]"),
        ({"a": LABELS.float()}, LABELS, r"answers\['a'\]"),
        ({"a": LABELS - 1}, LABELS, r"answers\['a'\]"),
        ({"a": LABELS[:0]}, LABELS[:0], "labels"),
        ({"a": LABELS}, LABELS - 1, "labels"),
        ({"a": LABELS}, LABELS.float(), "labels"),
    ],
)
def test_bad_input_is_refused_by_name(unchecked_types, answers, labels, named):
    with pytest.raises((TypeError, ValueError), match=f"^{named}"):
        filtered(answers, labels)


def test_a_judge_needs_images():
    with pytest.raises(ValueError, match=r"^missed must hold one image or more"):
        judged(LABELS, LABELS, torch.zeros(6, dtype=torch.bool))
