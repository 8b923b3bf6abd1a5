"""Every norm keeps its promises, and one that a module does not know is refused by name or treated as itself."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from advfeat import autoattack, gradient_masking, robustness
from advfeat.attacks import pgd
from advfeat.bench import reference
from advfeat.bench.scaling import plain_pgd
from advfeat.data import Dataset
from advfeat.engine.fused_steps import NetworkInput
from advfeat.experiments.recipes import plain
from advfeat.features import linear_responses, searched_responses
from advfeat.hyperparameters import TrainConfig
from advfeat.models import Classifier
from advfeat.threats import L2, Linf, Threat

pytestmark = pytest.mark.numbers

SIZE = 5


class Taxicab(Threat):
    """A third norm, ℓ1 under a name that no module knows, as somebody outside of this package may write it."""

    norm = "Taxicab"

    def random_start(self, images, generator):
        noise = torch.rand(images.shape, generator=generator) * 2 - 1
        return (images + self.eps / images[0].numel() * noise).clamp(0, 1)

    def step(self, adv, origin, gradient, step_size, *, out: Tensor | None = None, network: NetworkInput | None = None):
        """Along the largest entry of the gradient, then back along the straight line: feasible, if no projection."""
        gradient = gradient if network is None else network.pixel_gradient(gradient)
        flat = gradient.flatten(1)
        at = flat.abs().argmax(1, keepdim=True)
        ahead = torch.zeros_like(flat).scatter(1, at, step_size * flat.gather(1, at).sign())
        delta = (adv - origin).flatten(1) + ahead
        delta = delta * (self.eps / delta.abs().sum(1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
        moved = (origin + delta.view_as(origin)).clamp(0, 1)
        moved = moved if out is None else out.copy_(moved)
        if network is not None:
            network.set_from(moved)
        return moved

    def distance(self, adv, origin):
        return (adv - origin).flatten(1).abs().sum(1)

    def dual_norm(self, rows):
        return rows.abs().amax(1)

    def reach(self, size, room):
        """The largest entries first, each as far as there is room, until the radius is spent."""
        order = size.argsort(descending=True)
        room = room[:, order]
        before = room.cumsum(1) - room
        return torch.minimum(room, (self.eps - before).clamp(min=0)) @ size[order]

    def whole_box(self, images):
        return type(self)(float(images[0].numel()))


def pictures(n: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def linear(scale: float = 1.0, classes: int = 4) -> Classifier:
    head = nn.Linear(3 * SIZE * SIZE, classes, bias=False)
    with torch.no_grad():
        head.weight.copy_(scale * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0)))
    return Classifier(nn.Flatten(), head).eval()


def noise(model: Classifier, n: int = 20) -> Dataset:
    images = pictures(n, seed=1)
    with torch.no_grad():
        labels = model(images).argmax(1)
    return Dataset(images, labels, tuple("abcd"), "noise")


@pytest.mark.parametrize("threat", [L2(0.4), Linf(0.05), Taxicab(0.4)], ids=str)
def test_a_norm_keeps_its_promises(threat):
    images, gradient = pictures(), torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    adv = images
    for _ in range(5):
        adv = threat.step(adv, images, gradient, threat.eps / 2)
    start = threat.random_start(images, torch.Generator().manual_seed(0))
    for inside in (adv, start):
        assert 0 < float(threat.distance(inside, images).max()) <= threat.eps * (1 + 1e-5)
        assert 0 <= float(inside.min()) <= float(inside.max()) <= 1
    # The dual norm is the most that a perturbation of length 1 does, so it is the reach where there is room.
    rows = gradient.flatten(1).double()
    reach = torch.cat([threat.reach(row.abs(), torch.ones(1, rows.shape[1]).double()) for row in rows])
    assert torch.allclose(reach, threat.eps * threat.dual_norm(rows), rtol=1e-12)
    assert float(reach.max()) > 0
    corners = torch.ones(1, 3, SIZE, SIZE)
    assert threat.whole_box(corners).eps == pytest.approx(float(threat.distance(corners, 0 * corners)), rel=1e-6)
    assert type(threat.whole_box(corners)) is type(threat)
    assert str(threat).startswith(f"{threat.norm.lower()} eps=")


def test_a_norm_without_one_of_its_answers_cannot_be_made():
    class Silent(Taxicab):
        dual_norm = Threat.dual_norm

    with pytest.raises(TypeError, match=r"Silent .*dual_norm"):
        Silent(1.0)


def test_autoattack_refuses_a_third_norm_by_name():
    pytest.importorskip("pyautoattack", reason="the extra autoattack is not installed")
    data = noise(linear())
    with pytest.raises(ValueError, match=r"threat must be of the norm L2 or Linf for AutoAttack, got taxicab eps=0\.3"):
        autoattack.autoattack(linear(), data.images, data.labels, Taxicab(0.3))
    with pytest.raises(ValueError, match=r"got taxicab eps=0\.3"):
        robustness.robust_accuracy(linear(), data, Taxicab(0.3), attack="autoattack")


def test_features_move_as_far_as_the_third_norm_lets_them():
    """Not by ε‖w‖₁, as if the threat were ℓ∞, nor by ε‖w‖₂."""
    weights = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    images, threat = 0.3 + 0.4 * pictures(), Taxicab(0.25)
    reach = 0.25 * weights.flatten(1).double().abs().amax(1)
    for box in (False, True):  # no pixel has less room than the radius, so the box holds nothing
        found = linear_responses(weights, images, threat, box=box)
        assert torch.allclose(found.highest - found.clean, reach.expand(6, 3), rtol=1e-6)
        assert torch.allclose(found.clean - found.lowest, reach.expand(6, 3), rtol=1e-6)
    searched = searched_responses(
        lambda x: x.flatten(1) @ weights.flatten(1).T, images, threat, steps=2, step_size=0.25
    )
    assert torch.allclose(searched.highest.double(), found.highest, atol=1e-5)


def test_masking_is_judged_in_the_third_norm():
    model = linear(scale=4.0)
    found = {
        check.rule: check
        for check in gradient_masking.check_gradient_masking(model, noise(model), Taxicab(0.3), steps=5, pairs=5)
    }
    # The box's diameter in ℓ1 is the number of its pixels; in ℓ∞ it would be 1, in ℓ2 the root.
    assert found["the whole box is fatal"].found.startswith(f"with taxicab eps={3 * SIZE * SIZE} PGD-5 leaves ")


def test_the_gate_refuses_a_third_norm_by_name():
    case = dataclasses.replace(next(reference.cases((3, SIZE, SIZE))), threat=Taxicab(0.3))
    network = reference.ReferenceNetwork((3, SIZE, SIZE)).eval()
    with pytest.raises(ValueError, match=r"the reference knows threats of the norms L2, Linf, got taxicab eps=0\.3"):
        reference.reference_pgd(network, case, steps=2, step_size=0.1)


def test_the_plain_loop_takes_nothing_else_for_l2(unchecked_types):
    with pytest.raises(TypeError, match="threat must be an L2"):
        plain_pgd(linear(), pictures(), torch.zeros(6).long(), Taxicab(0.3), steps=1, step_size=0.1)


def test_the_third_norm_is_in_the_key_of_what_is_stored():
    config = TrainConfig(epochs=1, batch_size=4, lr=0.1, attack_step_size=0.1)
    trained = [dataclasses.replace(config, threat=kind(0.3)) for kind in (Taxicab, L2, Linf)]
    assert [plain(each)["threat"] for each in trained] == ["taxicab eps=0.3", "l2 eps=0.3", "linf eps=0.3"]
    assert Taxicab(0.1 + 0.2).key == "taxicab eps=0.30000000000000004"


def test_the_loop_climbs_in_the_third_norm():
    # One pixel, that of the largest weight, carries the whole perturbation.
    model, images = linear(), 0.3 + 0.4 * pictures()
    labels = torch.zeros(6).long()
    adv = pgd(model, images, labels, Taxicab(0.2), steps=4, step_size=0.05)
    assert torch.allclose((adv - images).flatten(1).abs().sum(1), torch.full((6,), 0.2), atol=1e-5)
    assert not torch.allclose(adv, pgd(model, images, labels, L2(0.2), steps=4, step_size=0.05), atol=1e-2)


def test_what_is_no_threat_is_refused_wherever_a_norm_is_asked_for(unchecked_types):
    @dataclasses.dataclass(frozen=True)
    class Foreign:
        """It has a radius and no norm."""

        eps: float

    model, data = linear(), noise(linear())
    words = r"threat must be a threats\.Threat, such as L2\(0\.5\) or Linf\(8/255\), got a Foreign"
    for call in (
        lambda: pgd(model, data.images, data.labels, Foreign(0.3), steps=1, step_size=0.1),
        lambda: linear_responses(pictures(2), data.images, Foreign(0.3)),
        lambda: gradient_masking.check_gradient_masking(model, data, Foreign(0.3), steps=1),
        lambda: TrainConfig(epochs=1, batch_size=4, lr=0.1, threat=Foreign(0.3)),
    ):
        with pytest.raises(TypeError, match=words):
            call()
