"""The toy of superposition, beside toys whose numbers follow from their weights."""

from __future__ import annotations

import math

import pytest
import torch

from advfeat.superposition import ToyModels, train_toys

pytestmark = pytest.mark.numbers


def toy(weights, bias=None):
    weights = torch.as_tensor(weights)[None].float()
    return ToyModels(weights, torch.zeros(1, weights.shape[2]) if bias is None else bias)


def test_a_direction_for_each_feature():
    model = toy(torch.eye(5))
    assert float(model.kept()) == 1
    assert float(model.interference()) == 0
    assert torch.allclose(model.breaking_radius()[0], torch.full((5,), 1 / math.sqrt(2)))


def test_two_features_at_an_angle():
    """WᵀW = [[1, c], [c, 1]]: the interference is c² / (1 + c²), and the border is (1 − c) / (√2 (1 − c)) away."""
    cosine = 0.6
    model = toy([[1.0, cosine], [0.0, math.sqrt(1 - cosine**2)]])
    assert float(model.interference()) == pytest.approx(cosine**2 / (1 + cosine**2))
    assert torch.allclose(model.breaking_radius()[0], torch.full((2,), 1 / math.sqrt(2)))


def test_the_breaking_radius_is_the_least_that_a_search_finds():
    model = train_toys([0.05], [0.0], features=12, units=4, steps=200)
    radius = model.breaking_radius()[0]
    rows = (model.weights[0].square().sum(0) > 0.5).nonzero().flatten()
    gram, bias = model.weights[0].T @ model.weights[0], model.bias[0]
    generator = torch.Generator().manual_seed(0)
    for place, feature in enumerate(rows.tolist()):
        start = torch.eye(12)[feature]
        moves = torch.randn(2000, 12, generator=generator)
        moves = torch.cat([moves, gram[rows] - gram[feature]])
        moves = moves / moves.norm(dim=1, keepdim=True).clamp(min=1e-9)
        for scale, broken in ((0.99, False), (1.01, True)):
            answers = rows[((start + scale * radius[place] * moves) @ gram + bias)[:, rows].argmax(1)]
            assert bool((answers != feature).any()) is broken


def test_sparse_features_share_directions_and_adversarial_training_parts_them():
    """Gorton and Lewis 2025, both ways: more superposition, less robust; trained to be robust, less superposition."""
    sparse = train_toys([0.5, 0.05], [0.0, 0.0], steps=300)
    kept, interference = sparse.kept(), sparse.interference()
    assert kept[1] > kept[0] > 1
    assert interference[1] > interference[0]
    dense_radius, sparse_radius = (radius.mean() for radius in sparse.breaking_radius())
    assert sparse_radius < dense_radius < 1 / math.sqrt(2)
    trained = train_toys([0.05, 0.05], [0.0, 0.4], steps=300)
    assert trained.interference()[1] < trained.interference()[0]
    assert trained.breaking_radius()[1].mean() > 1.3 * trained.breaking_radius()[0].mean()


def test_toys_differ_in_nothing_but_their_settings():
    first, second = train_toys([0.1, 0.1], [0.0, 0.0], features=6, units=2, steps=5).weights
    assert torch.equal(first, second)


def test_presence_and_radii_belong_together():
    with pytest.raises(ValueError, match="radii must be as many as presence"):
        train_toys([0.1], [0.0, 0.1])
