"""Nearest adversarial images: on linear models their distance is known, and everywhere they are what they say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from advfeat.attacks import pgd
from advfeat.data import Dataset
from advfeat.estimates import Estimate
from advfeat.hyperparameters import TrainConfig
from advfeat.minimum_norm import minimum_distances, minimum_norm
from advfeat.models import Classifier, build_model, freeze
from advfeat.planted import PlantedWorld, planted
from advfeat.threats import L2, Linf, Threat
from advfeat.train import train

pytestmark = pytest.mark.numbers

SIZE = 6
NORMS = [(L2(math.inf), 2), (Linf(1.0), 1)]
each_norm = pytest.mark.parametrize(("threat", "dual"), NORMS, ids=["L2", "Linf"])


class Linear(nn.Module):
    """Logits W (x − 1/2), W drawn once."""

    def __init__(self, classes: int = 5, scale: float = 1.0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(scale * torch.randn(classes, 3 * SIZE * SIZE, generator=draw))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.weight.T


def greys(n: int = 12, spread: float = 0.03) -> Tensor:
    """Near grey, so that the nearest adversarial image lies far from the edges of [0, 1]."""
    return 0.5 + spread * torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def closed_form(model: Linear, images: Tensor, labels: Tensor, dual: int) -> Tensor:
    """min over k ≠ y of (z_y − z_k) / ‖w_y − w_k‖ in the dual norm, in float64."""
    weight = model.weight.detach().double()
    logits = (images.double() - 0.5).flatten(1) @ weight.T
    between = (weight[labels][:, None] - weight).norm(p=dual, dim=2)
    ratio = (logits.gather(1, labels[:, None]) - logits) / between
    return ratio.scatter(1, labels[:, None], math.inf).amin(1)


@pytest.fixture(scope="module")
def network() -> tuple[Classifier, Dataset]:
    """A small network trained on the planted world, frozen, and test images."""
    world = PlantedWorld()
    model = build_model("cnn4", width=16, seed=0)
    train(model, planted(world, 1500, seed=1), TrainConfig(epochs=3, batch_size=50, lr=0.1), seed=0)
    return freeze(model, dtype=torch.float32), planted(world, 60, seed=2)


@each_norm
@pytest.mark.parametrize("scale", [1.0, 1e5], ids=["plain", "saturated"])
def test_a_linear_model_is_fooled_at_its_distance(threat, dual, scale):
    # Catches a radius in other units, an objective that saturates, and a radius that stops short of the boundary.
    model, images = Linear(scale=scale), greys()
    labels = model(images).argmax(1)
    expected = closed_form(model, images, labels, dual)
    found = minimum_norm(model, images, labels, threat, steps=100, tolerance=0)
    ratio = found.distances.double() / expected
    assert float(ratio.min()) >= 1 - 1e-5, "nearer than the boundary"
    assert float(ratio.median()) <= 1.002
    assert float(ratio.max()) <= 1.05, "a wrong class that is hardly farther is no miss"


@each_norm
def test_a_target_is_reached_at_its_distance(threat, dual):
    model, images = Linear(), greys()
    labels = model(images).argmax(1)
    targets = (labels + 1) % 5
    found = minimum_norm(model, images, targets, threat, steps=100, targeted=True)
    assert torch.equal(model(found.images).argmax(1), targets)
    already = minimum_norm(model, images, labels, threat, steps=5, targeted=True)
    assert float(already.distances.max()) == 0
    # With two classes a target is the only other class.
    two = Linear(classes=2)
    own = two(images).argmax(1)
    reached = minimum_norm(two, images, 1 - own, threat, steps=100, targeted=True, tolerance=0)
    ratio = reached.distances.double() / closed_form(two, images, own, dual)
    assert 1 - 1e-5 <= float(ratio.min()) <= float(ratio.max()) <= 1.01


@each_norm
def test_images_are_what_they_are_said_to_be(network, threat, dual):
    model, data = network
    found = minimum_norm(model, data.images, data.labels, threat, steps=30)
    wrong = model(data.images).argmax(1) != data.labels
    assert bool(wrong.any())
    assert torch.equal(found.distances == 0, wrong)
    assert torch.equal(found.images[wrong], data.images[wrong])
    assert bool((found.distances < math.inf).all())
    assert bool((model(found.images).argmax(1) != data.labels).all()), "adversarial in the whole batch"
    assert torch.equal(found.distances, threat.distance(found.images, data.images))
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1
    assert int(found.passes[wrong].max()) <= 2, "what is wrong already is not attacked"
    assert int(found.passes.max()) <= 33


@each_norm
def test_what_pgd_fools_within_a_radius_is_no_farther(network, threat, dual):
    # A search that is no stronger than PGD at each radius would not be worth its name.
    model, data = network
    distances = minimum_distances(model, data, threat, steps=50)
    for eps in distances.quantile(torch.tensor([0.3, 0.5, 0.7])).tolist():
        ball = type(threat)(eps)
        adv = pgd(model, data.images, data.labels, ball, steps=50, step_size=eps / 20)
        stands = model(adv).argmax(1) == data.labels
        assert float((stands & (distances <= eps)).float().mean()) >= float(
            (~stands & (distances > eps)).float().mean()
        )


def test_an_image_comes_out_alike_alone_and_in_any_batch(network):
    model, data = network
    threat = L2(math.inf)
    whole = minimum_distances(model, data, threat, steps=20)
    pieces = minimum_distances(model, data, threat, steps=20, batch_size=7)
    alone = minimum_norm(model, data.images[3:4], data.labels[3:4], threat, steps=20)
    if model.engine != "torch":  # the compiled convolutions give an image the same bits in any batch
        assert torch.equal(whole, pieces)
        assert torch.equal(alone.distances, whole[3:4])
    assert torch.allclose(whole, pieces, rtol=0.05)
    assert torch.equal(whole, minimum_distances(model, data, threat, steps=20)), "nothing is drawn"


def test_an_early_end_costs_little_and_saves_passes(network):
    model, data = network
    full, early = (
        minimum_norm(model, data.images, data.labels, L2(math.inf), steps=60, tolerance=tolerance)
        for tolerance in (0.0, 0.01)
    )
    assert float(early.passes.float().mean()) < 0.9 * float(full.passes.float().mean())
    right = full.distances > 0
    assert float((early.distances[right] / full.distances[right]).median()) <= 1.01


def test_nothing_is_found_beyond_the_radius_of_interest(network):
    model, data = network
    free = minimum_distances(model, data, L2(math.inf), steps=40)
    bound = L2(float(free.median()))
    found = minimum_norm(model, data.images, data.labels, bound, steps=40)
    missed = found.distances == math.inf
    assert 0.2 < float(missed.float().mean()) < 0.8
    assert torch.equal(found.images[missed], data.images[missed])
    assert float(found.distances[~missed].max()) <= bound.eps * (1 + 1e-5) + 4e-6
    # The search itself has the whole box: one that is kept inside the ball from the start finds fewer.
    assert torch.equal(~missed, free <= bound.eps)


def test_without_a_gradient_nothing_is_found_and_no_time_is_lost():
    class Stairs(Linear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(torch.round(images * 8) / 8)

    model, images = Stairs(), greys(spread=0.3).clamp(0, 1)
    labels = model(images).argmax(1)
    found = minimum_norm(model, images, labels, L2(math.inf), steps=50)
    assert bool((found.distances == math.inf).all())
    assert torch.equal(found.images, images)
    assert int(found.passes.max()) == 1


def test_nan_is_refused_and_never_an_answer():
    class Broken(Linear):
        def __init__(self, where: str) -> None:
            super().__init__()
            self.where = where

        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            if self.where == "logits":
                return logits * math.nan
            # The root has an infinite slope at 0, which times 0 is NaN.
            return logits + (images * 0).sum((1, 2, 3))[:, None].abs().sqrt() * 0

    images, labels = greys(3), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="its logits are not finite for 3 of 3"):
        minimum_norm(Broken("logits"), images, labels, L2(math.inf), steps=3)
    with pytest.raises(FloatingPointError, match="gradient was not finite for 3 of 3"):
        minimum_norm(Broken("gradient"), images, labels, L2(math.inf), steps=3)


def test_no_images_and_no_steps():
    model = Linear()
    none = minimum_norm(model, greys(0), torch.zeros(0, dtype=torch.int64), L2(math.inf), steps=3)
    assert (len(none.images), len(none.distances)) == (0, 0)
    images = greys(2)
    labels = model(images).argmax(1)
    still = minimum_norm(model, images, torch.stack([labels[0], (labels[1] + 1) % 5]), L2(1.0), steps=0)
    assert still.distances.tolist() == [math.inf, 0]


@each_norm
def test_it_is_no_worse_than_adv_lib(network, threat: Threat, dual):
    """No median of the other library's attacks of as many steps, on the same network, is 1 % below ours."""
    attacks = pytest.importorskip("adv_lib.attacks", reason="adv-lib is not installed")
    model, data = network

    def median(found: Tensor) -> float:
        away = threat.distance(found, data.images)
        fooled = model(found).argmax(1) != data.labels
        return Estimate.of_median(torch.where(fooled, away, math.inf)).value

    norm = 2 if dual == 2 else math.inf
    theirs = [median(attacks.fmn(model, data.images, data.labels, norm=norm, steps=100))]
    if norm == 2:
        theirs.append(median(attacks.ddn(model, data.images, data.labels, steps=100, levels=None)))
    ours = median(minimum_norm(model, data.images, data.labels, threat, steps=100).images)
    assert ours <= 1.01 * min(theirs)
