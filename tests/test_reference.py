"""The gate lets the engine pass and stops every way of being wrong that has a name."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from advfeat.attacks import pgd
from advfeat.bench.convolutions import check_convolutions
from advfeat.bench.gate import GateFailed, U, Verdict, require_all
from advfeat.bench.reference import STEPS, ReferenceNetwork, cases, check_engine
from advfeat.engine import convolution_code, fused_steps

pytestmark = pytest.mark.numbers

SMALL = (3, 7, 5)


@pytest.mark.parametrize("shape", [SMALL, (3, 32, 32)], ids=str)
def test_the_engine_passes(shape):
    verdicts = check_engine(shape=shape)
    assert len(verdicts) == 16
    require_all(verdicts)


def test_the_cases_hold_what_they_promise():
    network = ReferenceNetwork(SMALL).eval()
    for case in cases(SMALL):
        images = case.images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(network(images), case.labels, reduction="sum")
        size = torch.autograd.grad(loss, images)[0].flatten(1).abs().amax(1)  # a norm would underflow
        assert (size[2::3] == 0).all()
        assert ((size[1::3] > 0) & (size[1::3] < 1e-20)).all()
        assert (size[::3] > 1e-2).all()
        assert set(case.labels.tolist()) == {0, 1}
        if case.start is not None:
            inside = case.threat.distance(case.start, case.images)
            assert (inside <= case.threat.eps * (1 + 1e-5)).all()
            assert (inside[:3] >= case.threat.eps * (1 - 1e-5)).all(), "on the edge where no pixel is clamped"
        adv = pgd(network, case.images, case.labels, case.threat, steps=STEPS, step_size=2.5 * case.threat.eps / STEPS)
        moved = case.threat.distance(adv, case.images)
        assert (moved[2::3] == 0).all()
        assert (moved[:2] >= case.threat.eps * (1 - 1e-5)).all(), "the radius should bind"


def sign_flipped(pgd):
    return lambda *args, **named: pgd(*args, **{**named, "targeted": not named["targeted"]})


def one_step_short(pgd):
    return lambda *args, **named: pgd(*args, **{**named, "steps": named["steps"] - 1})


def start_ignored(pgd):
    return lambda *args, **named: pgd(*args, **{**named, "start": None})


def nothing_done(pgd):
    return lambda _, images, *__, **___: images


def not_a_number(pgd):
    return lambda *args, **named: pgd(*args, **named) * math.nan


@pytest.mark.parametrize("fault", [sign_flipped, one_step_short, start_ignored, nothing_done, not_a_number])
def test_a_wrong_loop_is_stopped(fault):
    with pytest.raises(GateFailed, match="no time is measured"):
        require_all(check_engine(fault(pgd), shape=SMALL))


def placed(moved, out, network):
    """Put a result where the engine looks for it."""
    if out is not None:
        moved = out.copy_(moved)
    if network is not None:
        network.set_from(moved)
    return moved


def l2_without_clamp(adv, origin, gradient, *, eps, step_size, out=None, network=None):
    gradient = gradient if network is None else network.pixel_gradient(gradient)
    gradient = gradient / gradient.flatten(1).abs().amax(1).clamp(min=1e-38).view(-1, 1, 1, 1)
    moved = adv - origin + step_size * gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-9).view(-1, 1, 1, 1)
    shrink = (eps / moved.flatten(1).norm(dim=1).clamp(min=1e-9)).clamp(max=1).view(-1, 1, 1, 1)
    return placed(origin + moved * shrink, out, network)


def l2_with_squared_radius(adv, origin, gradient, *, eps, **named):
    return REAL_L2(adv, origin, gradient, eps=eps**2, **named)


def l2_with_a_floor_under_the_norm(adv, origin, gradient, *, step_size, **named):
    share = gradient.flatten(1).norm(dim=1).double().clamp(max=1e-12) / 1e-12
    rows = [
        REAL_L2(a[None], o[None], g[None], step_size=step_size * float(part), eps=named["eps"]) if part > 0 else a[None]
        for a, o, g, part in zip(adv, origin, gradient, share, strict=True)
    ]
    return placed(torch.cat(rows), named.get("out"), named.get("network"))


def l2_of_the_whole_batch(adv, origin, gradient, *, eps, step_size, out=None, network=None):
    gradient = gradient if network is None else network.pixel_gradient(gradient)
    whole = (tensor.contiguous().flatten()[None] for tensor in (adv, origin, gradient))
    return placed(REAL_L2(*whole, eps=eps, step_size=step_size).view(adv.shape), out, network)


def l2_that_forgets_the_network(adv, origin, gradient, *, network=None, **named):
    gradient = gradient if network is None else network.pixel_gradient(gradient)
    return REAL_L2(adv, origin, gradient, **named)


def l2_without_the_chain_rule(adv, origin, gradient, *, network=None, **named):
    moved = REAL_L2(adv, origin, gradient, **named)
    return placed(moved, None, network)


def linf_without_projection(adv, origin, gradient, *, eps, step_size, out=None, network=None):
    return placed((adv + step_size * gradient.sign()).clamp(0, 1), out, network)


def linf_with_the_gradient_for_its_sign(adv, origin, gradient, *, step_size, **named):
    return REAL_LINF(adv, origin, gradient, step_size=step_size * float(gradient.abs().max()), **named)


REAL_L2, REAL_LINF = fused_steps.l2_step, fused_steps.linf_step


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("l2_step", l2_without_clamp),
        ("l2_step", l2_with_squared_radius),
        ("l2_step", l2_with_a_floor_under_the_norm),
        ("l2_step", l2_of_the_whole_batch),
        ("l2_step", l2_that_forgets_the_network),
        ("l2_step", l2_without_the_chain_rule),
        ("linf_step", linf_without_projection),
        ("linf_step", linf_with_the_gradient_for_its_sign),
    ],
)
def test_a_broken_step_is_stopped(monkeypatch, name, broken):
    monkeypatch.setattr(fused_steps, name, broken)
    with pytest.raises(GateFailed, match="FAIL"):
        require_all(check_engine(shape=SMALL))


def test_verdicts_say_what_they_found():
    good = Verdict("L2", 1e-7, 1e-6)
    assert good.passed
    assert str(good) == f"ok   {'L2':36s} error 1.0e-07, bound 1.0e-06"
    for error in (2e-6, math.nan, math.inf):
        bad = dataclasses.replace(good, error=error)
        assert not bad.passed
        with pytest.raises(GateFailed, match="FAIL L2"):
            require_all([good, bad])
    with pytest.raises(GateFailed):
        require_all([])
    assert all(verdict.bound < 2e3 * U for verdict in check_engine(shape=SMALL)), "far below the effect of a fault"


def test_the_convolutions_pass():
    verdicts = check_convolutions()
    assert len(verdicts) == 18
    require_all(verdicts)


def test_the_convolutions_pass_without_a_compiler(monkeypatch):
    monkeypatch.setattr(convolution_code, "engine", lambda: convolution_code.Engine("torch", "hidden"))
    require_all(check_convolutions())


WRONG = {
    "kernel not turned": ("of->turned ? 8 - 3 * r - s", "of->turned ? 3 * r + s"),
    "halo forgotten": ("&of->x, image, down - of->padding, across - of->padding", "&of->x, image, down, across"),
    "channels swapped": (
        "(first + k) * of->of_output + c * of->of_input",
        "c * of->of_output + (first + k) * of->of_input",
    ),
    "residues on top of each other": ("of->from_row + i * of->apart", "i * of->apart"),
    "the gradient's transform": ("(1.0f / 24) * (even2 - odd2)", "(1.0f / 24) * (even2 + odd2)"),
    "not a number": (
        "vec value = line[j] + bias;",
        'vec value = (line[j] + bias) * __builtin_nanf("");',
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_convolutions_are_stopped(name, tmp_path, monkeypatch):
    if convolution_code.engine().name != "winograd":
        pytest.skip(convolution_code.engine().why)
    text = convolution_code.SOURCE.read_text()
    assert text.count(WRONG[name][0]) == 1
    wrong = tmp_path / "winograd.c"
    wrong.write_text(text.replace(*WRONG[name]))
    monkeypatch.setattr(convolution_code, "SOURCE", wrong)
    convolution_code._library.cache_clear()
    try:
        verdicts = check_convolutions()
    finally:
        convolution_code._library.cache_clear()
    with pytest.raises(GateFailed, match=r"FAIL .×."):
        require_all(verdicts)
