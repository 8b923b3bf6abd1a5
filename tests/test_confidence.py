"""Calibration and detection: closed forms, slow references from the definitions, and scikit-learn where it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advfeat.confidence import aupr, auroc, aurra, confidences, fpr_at_tpr, rms_calibration_error
from advfeat.data import Dataset


def scores(count, seed, ties=20):
    """Scores with many ties."""
    drawn = torch.randint(ties, (count,), generator=torch.Generator().manual_seed(seed))
    return drawn.double() / ties


class Logits(torch.nn.Module):
    def forward(self, images):
        return images[:, :, 0, 0] * 10


def test_confidences_are_the_largest_softmax_probabilities():
    images = torch.rand((7, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    found, right = confidences(Logits().eval(), Dataset(images, labels, ("a", "b", "c"), "drawn"), batch_size=3)
    for row in range(7):
        powers = [math.exp(10 * float(value)) for value in images[row, :, 0, 0]]
        assert float(found[row]) == pytest.approx(max(powers) / sum(powers), rel=1e-6)
        assert bool(right[row]) == (powers.index(max(powers)) == int(labels[row]))


def test_rms_calibration_error_by_hand():
    # Two bins: of 0.2 and 0.4 one is right, of 0.6, 0.8 and 1 two are; the last bin takes what is left over.
    confidence = torch.tensor([0.8, 0.2, 1.0, 0.4, 0.6])
    right = torch.tensor([True, False, True, True, False])
    expected = math.sqrt((2 * (0.3 - 0.5) ** 2 + 3 * (0.8 - 2 / 3) ** 2) / 5)
    assert rms_calibration_error(confidence, right, bin_size=2) == pytest.approx(expected, abs=1e-7)
    assert rms_calibration_error(confidence, right) == pytest.approx(abs(0.6 - 0.6), abs=1e-7)  # one bin for all
    assert rms_calibration_error(torch.ones(300), torch.zeros(300, dtype=torch.bool)) == 1


def test_the_last_bin_counts():
    """The code of Hendrycks et al. stops before it: there this network would be calibrated perfectly."""
    confidence = torch.cat([torch.zeros(100), torch.ones(100)])
    right = torch.zeros(200, dtype=torch.bool)
    assert rms_calibration_error(confidence, right) == pytest.approx(math.sqrt(0.5))


def test_aurra_by_hand_and_for_ties():
    confidence, right = torch.tensor([0.9, 0.1, 0.5]), torch.tensor([True, True, False])
    assert aurra(confidence, right) == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)
    # All equally confident: the accuracy at every response rate is the accuracy, whatever the order.
    for order in (torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0])):
        assert aurra(torch.full((3,), 0.5), right[order]) == pytest.approx(2 / 3)


def slow(foreign, familiar, tpr):
    """AUROC over all pairs; AUPR and FPR by trying every threshold."""
    a, b = foreign.tolist(), familiar.tolist()
    area = np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])
    precision_area, before, rate = 0.0, 0.0, None
    for threshold in sorted({*a, *b}, reverse=True):
        found, wrong = sum(x >= threshold for x in a), sum(y >= threshold for y in b)
        precision_area += (found / len(a) - before) * found / (found + wrong)
        before = found / len(a)
        if rate is None and before >= tpr - 1e-12:
            rate = wrong / len(b)
    return area, precision_area, rate


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000), st.sampled_from([0.3, 0.5, 0.95, 1.0]))
@settings(max_examples=60, deadline=None)
def test_detection_is_that_of_a_slow_reference(count, others, seed, tpr):
    foreign, familiar = scores(count, seed) + 0.2, scores(others, seed + 1)
    found = auroc(foreign, familiar), aupr(foreign, familiar), fpr_at_tpr(foreign, familiar, tpr=tpr)
    assert found == pytest.approx(slow(foreign, familiar, tpr), abs=1e-12)


def test_detection_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    foreign, familiar = scores(300, 0, ties=150) + 0.1, scores(500, 1, ties=150)
    truth, both = np.r_[np.ones(300), np.zeros(500)], torch.cat([foreign, familiar]).numpy()
    assert auroc(foreign, familiar) == pytest.approx(metrics.roc_auc_score(truth, both), abs=1e-12)
    assert aupr(foreign, familiar) == pytest.approx(metrics.average_precision_score(truth, both), abs=1e-12)
    wrong, found, _ = metrics.roc_curve(truth, both, drop_intermediate=False)
    assert fpr_at_tpr(foreign, familiar) == pytest.approx(wrong[np.argmax(found >= 0.95)], abs=1e-12)


def test_scores_without_information_give_chance():
    same = torch.full((30,), 0.5)
    assert auroc(same, same) == 0.5
    assert aupr(same[:10], same) == pytest.approx(10 / 40)
    assert fpr_at_tpr(same, same) == 1


@pytest.mark.usefixtures("unchecked_types")
def test_what_is_no_confidence_or_score_is_refused():
    right = torch.tensor([True, False])
    for function in (rms_calibration_error, aurra):
        with pytest.raises(ValueError, match=r"confidence must lie in \[0, 1\], got values from 0.5 to 80"):
            function(torch.tensor([0.5, 80.0]), right)
        with pytest.raises(ValueError, match="right must have shape"):
            function(torch.tensor([0.5]), right)
        with pytest.raises(TypeError, match=r"right must be bool, got torch\.int64"):
            function(torch.tensor([0.5, 0.5]), right.long())
    for function in (auroc, aupr, fpr_at_tpr):
        with pytest.raises(ValueError, match="familiar must hold a score or more, got none"):
            function(torch.ones(3), torch.ones(0))
        with pytest.raises(ValueError, match="foreign must be finite"):
            function(torch.tensor([math.nan]), torch.ones(3))
    with pytest.raises(ValueError, match=r"tpr must be in \(0, 1\], got 95"):
        fpr_at_tpr(torch.ones(3), torch.ones(3), tpr=95)
