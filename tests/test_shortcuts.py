"""The location toy holds the features that its truth names, and the shape bias is the published share."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from advfeat.features import linear_responses, usefulness
from advfeat.shortcuts import CUES, corners, location_template, shape_bias, shape_response, texture_template
from advfeat.threats import L2

pytestmark = pytest.mark.numbers


def read_off(dataset):
    """What each feature says of each image, as the class 0 or 1."""
    flat = dataset.images.flatten(1)
    return {
        "location": (flat @ location_template().flatten() < 0).long(),
        "shape": (shape_response(dataset.images)[:, 0] < 0).long(),
        "texture": (flat @ texture_template().flatten() < 0).long(),
    }


@pytest.mark.parametrize("telling", [(), *itertools.combinations(CUES, 1), *itertools.combinations(CUES, 2), CUES])
def test_what_tells_the_class_does_and_nothing_else(telling):
    """Catches corners mixed up, a shape drawn at the other's place, and features that leak what they should not."""
    dataset = corners(400, seed=3, telling=telling, texture_norm=0.3)
    found = read_off(dataset)
    for name in CUES:
        assert (found[name] == dataset.truth[name]).double().mean() > 0.98, name
        agreeing = float((dataset.truth[name] == dataset.labels).double().mean())
        if name in telling:
            assert agreeing == 1
        else:
            assert abs(agreeing - 0.5) < 4.5 * math.sqrt(0.25 / 400)
    counts = torch.bincount(dataset.labels, minlength=2)
    assert (counts[0] - counts[1]).abs() <= 1


def test_stars_lie_top_right_and_bottom_left():
    dataset = corners(300, seed=0, telling=("location",))
    dark = 0.8 - dataset.images.mean(1)
    top_right_or_bottom_left = dark[:, :16, 16:].sum((1, 2)) + dark[:, 16:, :16].sum((1, 2))
    other = dark[:, :16, :16].sum((1, 2)) + dark[:, 16:, 16:].sum((1, 2))
    assert torch.equal(top_right_or_bottom_left < other, dataset.labels == 1)
    # Each corner about as often.
    right = dark[:, :, 16:].sum((1, 2)) > dark[:, :, :16].sum((1, 2))
    for label in (0, 1):
        assert abs(float(right[dataset.labels == label].double().mean()) - 0.5) < 0.17


def test_datasets_of_one_seed_differ_in_what_is_asked_only():
    plain, textured = corners(50, seed=1), corners(50, seed=1, texture_norm=0.3)
    assert torch.equal(plain.labels, textured.labels)
    added = (textured.images - plain.images).flatten(1).norm(dim=1)
    assert (added - 0.3).abs().max() < 1e-3
    assert corners(50, seed=1).fingerprint() == plain.fingerprint() != corners(50, seed=2).fingerprint()


def test_only_the_texture_is_within_reach_of_a_small_perturbation():
    """What makes texture the shortcut that an adversary finds: γ < 0 for it alone."""
    dataset = corners(400, seed=5, telling=CUES, texture_norm=0.3)
    weights = torch.cat([location_template(), texture_template()])
    responses = linear_responses(weights, dataset.images, L2(0.5))
    location, texture = usefulness(responses.clean, dataset.labels == 0)
    assert min(location.value, texture.value) > 0.9
    worst = torch.where((dataset.labels == 0)[:, None], responses.lowest, -responses.highest)
    middle = responses.clean.mean(0)
    margin = torch.where((dataset.labels == 0)[:, None], worst - middle, worst + middle).mean(0)
    assert margin[0] > 0 > margin[1]


def test_shape_bias_by_hand():
    shape, texture = torch.tensor([0, 0, 1, 2, 3, 3]), torch.tensor([1, 1, 1, 0, 0, 1])
    #                    shape, texture, (agree), texture, neither, shape
    answers = torch.tensor([0, 1, 1, 0, 2, 3])
    found = shape_bias(answers, shape, texture)
    assert (found.value, found.n) == (2 / 4, 4)


@pytest.mark.parametrize(
    ("answers", "shape", "texture", "named"),
    [
        (torch.tensor([2]), torch.tensor([0]), torch.tensor([1]), "answers"),
        (torch.tensor([0]), torch.tensor([0]), torch.tensor([0]), "answers"),
        (torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([1]), "answers"),
        (torch.tensor([0]), torch.tensor([0]), torch.tensor([1, 1]), "texture"),
        (torch.tensor([0]), torch.tensor([0.0]), torch.tensor([1]), "shape"),
        (torch.tensor([-1]), torch.tensor([0]), torch.tensor([1]), "answers"),
    ],
)
def test_shape_bias_refuses_bad_input(unchecked_types, answers, shape, texture, named):
    with pytest.raises((TypeError, ValueError), match=f"^{named}"):
        shape_bias(answers, shape, texture)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"telling": "shape"}, "telling"),
        ({"telling": ["colour"]}, "telling"),
        ({"texture_norm": -1.0}, "texture_norm"),
        ({"seed": -1}, "seed"),
    ],
)
def test_corners_refuse_bad_input(unchecked_types, changes, named):
    with pytest.raises((TypeError, ValueError), match=f"^{named}"):
        corners(4, **{"seed": 0} | changes)
