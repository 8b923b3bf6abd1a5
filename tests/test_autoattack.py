"""AutoAttack on linear classifiers: the smallest perturbation that fools them is known in closed form."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from advfeat import robustness
from advfeat.autoattack import autoattack, autoattacked_dataset, installed
from advfeat.data import Dataset
from advfeat.measures import accuracy
from advfeat.models import Classifier
from advfeat.robustness import robust_accuracy, withstands
from advfeat.threats import L2, Linf

pytestmark = pytest.mark.numbers

SIZE = 5  # the smallest that Square takes


@pytest.fixture
def package(monkeypatch):
    """The package itself, with 60 queries of Square instead of 5,000: seconds instead of minutes."""
    package = pytest.importorskip("pyautoattack", reason="the extra autoattack is not installed")

    class Quick(package.AutoAttack):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            self.square.n_queries = 60
            Quick.last = self

    monkeypatch.setattr(package, "AutoAttack", Quick)
    return package


def linear(classes: int) -> Classifier:
    """Logits W (x − 1/2), W drawn once: the weights undo the network's normalisation."""
    model = Classifier(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, classes))
    weight = torch.randn(classes, 3 * SIZE * SIZE, generator=torch.Generator().manual_seed(0))
    per_pixel = model.std.expand(1, 3, SIZE, SIZE).flatten()
    mean = model.mean.expand(1, 3, SIZE, SIZE).flatten()
    with torch.no_grad():
        model.head.weight.copy_(weight * per_pixel)
        model.head.bias.copy_(weight @ (mean - 0.5))
    return model.eval()


def greys(model: Classifier, n: int) -> Dataset:
    """Images near grey, so that no perturbation meets the edge of [0, 1]; the label is the model's own answer."""
    noise = torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    images = 0.5 + 0.03 * noise
    with torch.no_grad():
        labels = model(images).argmax(1)
    names = tuple(f"class {k}" for k in range(model.head.out_features))
    return Dataset(images, labels, names, "greys")


def distances(model: Classifier, data: Dataset, dual: float) -> Tensor:
    """min over classes k ≠ y of (z_y − z_k) / ‖w_y − w_k‖ in the dual norm, in float64."""
    weight = (model.head.weight / model.std.expand(1, 3, SIZE, SIZE).flatten()).double().detach()
    logits = (data.images.double() - 0.5).flatten(1) @ weight.T
    own = logits.gather(1, data.labels[:, None])
    between = (weight[data.labels][:, None] - weight).norm(p=dual, dim=2)
    ratio = (own - logits) / between
    return ratio.scatter(1, data.labels[:, None], torch.inf).amin(1)


@pytest.mark.parametrize(("kind", "dual"), [(L2, 2.0), (Linf, 1.0)])
def test_it_fools_exactly_the_images_that_can_be_fooled(package, kind, dual):
    # Catches a radius in other than pixel units, ℓ2 taken for ℓ∞, and too few steps or targets.
    model = linear(6)
    data = greys(model, 8)
    radius = distances(model, data, dual)
    ordered = radius.sort().values
    # A radius in the widest gap near the middle: nobody is within 2 % of it.
    gap = int((ordered[3:6] / ordered[2:5]).argmax()) + 2
    eps = float((ordered[gap] * ordered[gap + 1]).sqrt())
    assert float((radius / eps - 1).abs().min()) > 0.02
    found = autoattack(model, data.images, data.labels, kind(eps))
    stands = model(found).argmax(1) == data.labels
    assert torch.equal(stands, radius > eps)
    assert torch.equal(found[stands], data.images[stands])
    # The rounding of a norm, and of a pixel below 1.
    assert float(kind(eps).distance(found, data.images).max()) <= eps * (1 + 1e-5) + 2**-24
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_it_is_the_standard_version_with_as_many_targets_as_there_are(package):
    model = linear(5)
    data = greys(model, 4)
    autoattack(model, data.images, data.labels, L2(10.0))
    used = package.AutoAttack.last
    assert used.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert (used.apgd.n_iter, used.apgd_targeted.n_iter, used.fab.n_iter) == (100, 100, 100)
    assert (used.apgd_targeted.n_target_classes, used.fab.n_target_classes) == (4, 4)


def test_it_leaves_generators_debuggers_and_parameters_alone(package):
    model = linear(4)
    data = greys(model, 4)
    before = torch.random.get_rng_state()

    def tracer(frame, event, argument):
        return None

    was = sys.gettrace()
    sys.settrace(tracer)
    try:
        autoattack(model, data.images, data.labels, L2(10.0))
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(was)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_robust_accuracy_counts_what_the_attack_leaves(monkeypatch):
    # Eight images: two mislabelled, which no attack may set right, and three that the attack changes for the worse.
    model = linear(4)
    data = greys(model, 8)
    wrong = data.replace(labels=torch.cat([(data.labels[:2] + 1) % 4, data.labels[2:]]))
    asked = []

    def attack(judge, images, labels, threat, **named):
        asked.append((judge.training, judge.dtype, threat, named["seed"]))
        return torch.cat([images[:5] * 0.0 + 1.0 - images[:5], images[5:]])

    monkeypatch.setattr(robustness, "autoattack", attack)
    turned = model(1 - data.images[:5]).argmax(1) != data.labels[:5]
    assert turned.all(), "an image turned inside out has all its logits' signs turned"
    stands = withstands(model, wrong, L2(0.1), attack="autoattack", seed=5)
    assert stands.tolist() == [False] * 5 + [True] * 3
    assert asked == [(False, torch.float32, L2(0.1), 5)]
    assert robust_accuracy(model, wrong, L2(0.0), attack="autoattack").value == 6 / 8
    assert len(asked) == 1


def test_the_images_it_leaves_are_right_as_often_as_it_is_withstood(package):
    # Catches an attack on other images or labels, and pieces that come back in another order.
    model = linear(6)
    data = greys(model, 8)
    eps = float(distances(model, data, 2.0).median())
    found = autoattacked_dataset(model, data, L2(eps), batch_size=3)
    assert float(L2(eps).distance(found.images, data.images).max()) <= eps + 1e-5
    assert accuracy(model, found) == robust_accuracy(model, data, L2(eps), attack="autoattack", batch_size=3)
    assert 0 < accuracy(model, found).value < 1


def test_what_it_cannot_do_is_refused(package):
    model = linear(3)
    data = greys(model, 2)
    with pytest.raises(ValueError, match="4 classes or more, the model has 3"):
        autoattack(model, data.images, data.labels, L2(0.1))
    with pytest.raises(ValueError, match="radius must be positive"):
        autoattack(model, data.images, data.labels, L2(0.0))
    with pytest.raises(ValueError, match="training mode"):
        autoattack(model.train(), data.images, data.labels, L2(0.1))


def test_images_too_small_for_square_are_refused(package):
    with pytest.raises(ValueError, match="5 pixels or more, got 4 × 5"):
        autoattack(linear(4), torch.rand(1, 3, 4, 5), torch.tensor([0]), L2(0.1))


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    assert not installed()
    model = linear(4)
    data = greys(model, 2)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .advfeat\[autoattack\]"):
        autoattack(model, data.images, data.labels, L2(0.1))


def test_pgd_settings_are_refused_for_autoattack():
    model = linear(4)
    with pytest.raises(ValueError, match="AutoAttack fixes its steps and restarts, got steps=20"):
        robust_accuracy(model, greys(model, 2), L2(0.1), attack="autoattack", steps=20)
    with pytest.raises(ValueError, match="attack must be 'pgd' or 'autoattack', got 'cw'"):
        robust_accuracy(model, greys(model, 2), L2(0.1), attack="cw", steps=20)
