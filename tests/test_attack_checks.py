"""Wrong attacks under which accuracy falls: each breaks the rule about its mistake, and right ones break none."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from advfeat.attack_checks import LinearModel, check_attack_function
from advfeat.attacks import fgsm, pgd
from advfeat.models import build_model, freeze
from advfeat.threats import L2, Linf

pytestmark = pytest.mark.numbers
IMAGES = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.9


def search(model, images, labels, threat, *, mistake=""):
    """Five steps of PGD, written out, with one mistake."""
    adv = images.clone()
    if mistake == "labels":
        labels = labels.roll(1)
    for _ in range(5):
        adv.requires_grad_()
        loss = F.cross_entropy(model(adv), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adv)
        if mistake == "sign":
            gradient[:, 0] *= -1
        adv = adv.detach()
        unit = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        if mistake == "batch":
            unit = len(adv) ** 0.5 * gradient / gradient.norm()
        adv = adv + threat.eps / 2 * unit
        if mistake != "projection":
            delta = (adv - images).flatten(1)
            adv = images + (delta * (threat.eps / delta.norm(dim=1, keepdim=True)).clamp(max=1)).view_as(images)
        if mistake != "clamp":
            adv = adv.clamp(0, 1)
    return adv


def broken(attack, threat):
    model = freeze(build_model("cnn4", width=8, seed=0).eval(), dtype=torch.float32)
    images = IMAGES.clone()
    images[:, :, :4] = 0.0  # some pixels at the edge
    labels = torch.arange(8)
    return {check.rule for check in check_attack_function(attack, model, images, labels, threat) if not check.passed}


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.02)], ids=str)
@pytest.mark.parametrize("attack", [fgsm, partial(pgd, steps=5, step_size=0.01)], ids=["fgsm", "pgd"])
def test_a_right_attack_breaks_no_rule(attack, threat):
    if attack is not fgsm:
        attack = partial(pgd, steps=5, step_size=threat.eps / 2)
    assert not broken(attack, threat)


@pytest.mark.parametrize(
    ("mistake", "rule"),
    [
        ("projection", "it stays in the ball"),
        ("clamp", "it stays in the box"),
        ("batch", "an image alone comes out the same"),
        ("labels", "it climbs"),
        ("sign", "it is the optimum on a linear model"),
    ],
)
def test_a_mistake_breaks_its_rule(mistake, rule):
    assert rule in broken(partial(search, mistake=mistake), L2(0.5))
    assert not broken(search, L2(0.5)), "and without it none"


def test_the_linear_model_rises_as_much_as_it_says():
    model = LinearModel((3, 4, 4))
    grey = torch.full((1, 3, 4, 4), 0.5)
    for threat in (L2(0.3), Linf(0.1)):
        adv = fgsm(model, grey, torch.tensor([0]), threat)
        assert float(model(adv)[0, 1].detach()) == pytest.approx(model.rise(threat), rel=1e-5)
