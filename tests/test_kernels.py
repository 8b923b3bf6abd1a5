"""One attack step against a float64 twin that is written here, image by image, and against its invariants."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from advfeat.kernels import fast_dtype, l2_step, linf_step

# Unit roundoff of float32: one operation is off by at most this share of its result.
U = 2.0**-24

SHAPES = [(1, 3, 32, 32), (7, 3, 32, 32), (3, 3, 5, 7), (2, 1, 1, 1), (4, 13), (5, 3, 31, 33)]


def l2_twin(adv: Tensor, origin: Tensor, gradient: Tensor, *, eps: float, step_size: float) -> Tensor:
    """The step as the paper states it, one image at a time in float64."""
    rows = []
    for x, x0, g in zip(adv.double(), origin.double(), gradient.double(), strict=True):
        length = math.sqrt(math.fsum((g * g).flatten().tolist()))
        delta = x - x0 + (step_size * g / length if length > 0 else 0)
        distance = math.sqrt(math.fsum((delta * delta).flatten().tolist()))
        if distance > eps:
            delta = delta * (eps / distance)
        rows.append((x0 + delta).clamp(0, 1))
    return torch.stack(rows)


def linf_twin(adv: Tensor, origin: Tensor, gradient: Tensor, *, eps: float, step_size: float) -> Tensor:
    """The same for the cube: per pixel, a step by sign, a cut to origin ± eps, a cut to [0, 1]."""
    moved = adv.double() + step_size * gradient.double().sign()
    return torch.clamp(origin.double() + (moved - origin.double()).clamp(-eps, eps), 0, 1)


def l2_bound(adv: Tensor, origin: Tensor, step_size: float) -> float:
    """How far float32 may be from the twin at any pixel.

    A norm is summed in blocks, so its relative error is below 16 U for the few thousand entries of an image; the step
    uses two norms, and some ten further roundings. Nothing is larger than the distance so far, the step, or a pixel.
    """
    return 48 * U * (1 + float((adv - origin).abs().max()) + step_size)


def draw(shape: tuple[int, ...], seed: int, eps: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """An origin with pixels on both ends of [0, 1], a point near it, and a gradient."""
    generator = torch.Generator().manual_seed(seed)
    origin = (torch.rand(shape, generator=generator) * 1.5 - 0.25).clamp(0, 1)
    offset = torch.randn(shape, generator=generator) * eps / math.sqrt(math.prod(shape[1:]))
    return (origin + offset).clamp(0, 1), origin, torch.randn(shape, generator=generator)


def norms(delta: Tensor) -> Tensor:
    return delta.double().flatten(1).norm(dim=1)


def worst(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("eps", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("step_size", [0.01, 0.2, 10.0])
def test_l2_step_equals_its_float64_twin(shape, eps, step_size):
    adv, origin, gradient = draw(shape, seed=len(shape) + shape[0], eps=eps)
    ours = l2_step(adv, origin, gradient, eps=eps, step_size=step_size)
    expected = l2_twin(adv, origin, gradient, eps=eps, step_size=step_size)
    assert ours.dtype == torch.float32
    assert ours.shape == shape
    assert worst(ours, expected) <= l2_bound(adv, origin, step_size)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("eps", [0.0, 8 / 255, 0.5])
@pytest.mark.parametrize("step_size", [2 / 255, 0.3])
def test_linf_step_equals_its_float64_twin(shape, eps, step_size):
    adv, origin, gradient = draw(shape, seed=shape[0], eps=0.5)
    ours = linf_step(adv, origin, gradient, eps=eps, step_size=step_size)
    # eps and step_size are rounded to float32, and so are one sum for the step and one for the edge of the cube; all
    # are below 2.
    assert worst(ours, linf_twin(adv, origin, gradient, eps=eps, step_size=step_size)) <= 8 * U


def test_linf_step_takes_the_sign_of_the_smallest_gradients():
    # The smallest positive number that float32 holds has a sign; a zero entry has none and its pixel stays.
    gradient = torch.tensor([[1e-45, -1e-45, 0.0, -0.0, 3e38]])
    origin = torch.full((1, 5), 0.5)
    moved = linf_step(origin, origin, gradient, eps=0.25, step_size=0.125)
    assert torch.equal(moved, torch.tensor([[0.625, 0.375, 0.5, 0.5, 0.625]]))


@pytest.mark.parametrize("eps", [0.25, 0.5, 1.0, 2.0])
def test_l2_step_stays_in_ball_and_box(eps):
    adv, origin, gradient = draw((64, 3, 32, 32), seed=3, eps=eps)
    for _ in range(5):
        adv = l2_step(adv, origin, gradient, eps=eps, step_size=eps)
        # Rounding a pixel moves it by at most 2**-25, so an image of 3072 by 1.7e-6: below 1e-5 of these radii.
        assert float(norms(adv.double() - origin.double()).max()) <= eps * (1 + 1e-5)
        assert float(adv.min()) >= 0
        assert float(adv.max()) <= 1


def test_l2_step_reaches_the_radius_and_not_its_square():
    origin = torch.full((3, 3, 8, 8), 0.5)
    gradient = torch.randn(origin.shape, generator=torch.Generator().manual_seed(0))
    for eps in (0.1, 0.3, 0.9):
        moved = l2_step(origin, origin, gradient, eps=eps, step_size=2.0)
        # 192 pixels rounded by 2**-25 each: sqrt(192) * 2**-25 = 4e-7.
        assert torch.allclose(norms(moved - origin), torch.full((3,), eps, dtype=torch.float64), atol=1e-6, rtol=0)


def test_l2_step_leaves_a_point_inside_and_on_the_boundary_where_it_is():
    origin = torch.full((1, 3, 4, 4), 0.5)
    inside, boundary = origin.clone(), origin.clone()
    inside[0, 0, 0, 0] += 0.125
    boundary[0, 0, 0, 0] += 0.25
    for adv in (origin, inside, boundary):
        stay = l2_step(adv, origin, torch.zeros_like(adv), eps=0.25, step_size=0.1)
        assert torch.equal(stay, adv)


def test_l2_step_clamps_pixels_at_both_ends():
    # Two pixels, a gradient of (3, 4)/5 against a wall: one is already at 1, the other at 0.
    origin = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    gradient = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    moved = l2_step(origin, origin, gradient, eps=1.0, step_size=0.5)
    expected = torch.tensor([[1.0, 0.4], [0.3, 1.0]])
    assert worst(moved, expected) <= 4 * U


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-20, 1.0, 1e20, 1e38])
def test_l2_step_does_not_depend_on_the_length_of_the_gradient(scale):
    adv, origin, _ = draw((2, 3, 8, 8), seed=11)
    # Signs and zeros only, so that scaling is exact even where float32 has one digit left.
    signs = torch.randint(-1, 2, adv.shape, generator=torch.Generator().manual_seed(1)).float()
    ours = l2_step(adv, origin, signs * scale, eps=0.5, step_size=0.25)
    assert worst(ours, l2_twin(adv, origin, signs, eps=0.5, step_size=0.25)) <= l2_bound(adv, origin, 0.25)


def test_l2_step_keeps_images_with_zero_gradient_beside_others():
    adv, origin, gradient = draw((4, 3, 6, 6), seed=5, eps=0.2)
    gradient[1] = 0
    gradient[3] = 0
    ours = l2_step(adv, origin, gradient, eps=0.5, step_size=0.1)
    expected = l2_twin(adv, origin, gradient, eps=0.5, step_size=0.1)
    assert worst(ours, expected) <= l2_bound(adv, origin, 0.1)
    # origin + (adv - origin) is adv but for two roundings.
    assert worst(ours[[1, 3]], adv[[1, 3]]) <= 2 * U


@pytest.mark.parametrize("zero_gradient", [True, False])
def test_l2_step_with_radius_zero_returns_the_origin(zero_gradient):
    origin = draw((3, 3, 4, 4), seed=2)[1]
    gradient = torch.zeros_like(origin) if zero_gradient else torch.ones_like(origin)
    assert torch.equal(l2_step(origin, origin, gradient, eps=0.0, step_size=0.1), origin)


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
def test_l2_step_turns_a_broken_gradient_into_nan_in_that_image_only(fault):
    adv, origin, gradient = draw((3, 3, 4, 4), seed=2)
    gradient[1, 2, 0, 3] = fault
    ours = l2_step(adv, origin, gradient, eps=0.5, step_size=0.1)
    assert bool(ours[1].isnan().all())
    assert torch.equal(ours[[0, 2]], l2_step(adv[[0, 2]], origin[[0, 2]], gradient[[0, 2]], eps=0.5, step_size=0.1))


def test_linf_step_turns_a_nan_gradient_into_a_nan_pixel():
    adv, origin, gradient = draw((3, 3, 4, 4), seed=2)
    gradient[1, 2, 0, 3] = math.nan
    ours = linf_step(adv, origin, gradient, eps=0.1, step_size=0.05)
    assert bool(ours[1, 2, 0, 3].isnan())
    assert int(ours.isnan().sum()) == 1


@pytest.mark.parametrize("step", [l2_step, linf_step])
def test_memory_layout_does_not_matter_and_inputs_are_not_changed(step):
    wide = draw((4, 3, 12, 10), seed=8)
    layouts = {
        "every second column": [tensor[..., ::2] for tensor in wide],
        "channels last": [tensor[..., :5].contiguous(memory_format=torch.channels_last) for tensor in wide],
        "transposed": [tensor.transpose(2, 3) for tensor in wide],
        "one row for all": [wide[0], wide[1][:1].expand(4, -1, -1, -1), wide[2]],
    }
    for name, tensors in layouts.items():
        before = [tensor.clone() for tensor in tensors]
        plain = [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]
        ours = step(*tensors, eps=0.4, step_size=0.1)
        # Another order of summation: the bound against the twin holds for both, so twice the bound holds between them.
        expected = step(*plain, eps=0.4, step_size=0.1)
        assert worst(ours, expected) <= 2 * l2_bound(tensors[0], tensors[1], 0.1), name
        for tensor, copy in zip(tensors, before, strict=True):
            assert torch.equal(tensor, copy), name


cases = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 6), st.just(3), st.integers(1, 9), st.integers(1, 9)),
        "seed": st.integers(0, 2**31),
        "eps": st.floats(0.01, 3.0),
        "step_size": st.floats(1e-3, 5.0),
    }
)


@settings(deadline=None, max_examples=60)
@given(cases)
def test_projection_is_feasible_and_idempotent(case):
    eps = case["eps"]
    adv, origin, gradient = draw(case["shape"], case["seed"], eps)
    pixels = math.sqrt(math.prod(case["shape"][1:]))
    # A pixel in [0, 1] is rounded by at most 2**-25, an image by sqrt(pixels) times that, the norm itself by 16 U.
    slack = 16 * U * eps + pixels * 2**-25
    there = l2_step(adv, origin, gradient, eps=eps, step_size=case["step_size"])
    assert float(norms(there.double() - origin.double()).max()) <= eps + slack
    assert 0 <= float(there.min()) <= float(there.max()) <= 1
    # Projected once more it may shrink by what it exceeded eps, and each pixel is rounded twice.
    again = l2_step(there, origin, torch.zeros_like(there), eps=eps, step_size=1.0)
    assert worst(again, there) <= slack + 4 * U

    cube = linf_step(adv, origin, gradient, eps=eps, step_size=case["step_size"])
    assert worst(cube, origin) <= eps + 4 * U * max(1, eps)
    assert 0 <= float(cube.min()) <= float(cube.max()) <= 1
    assert torch.equal(linf_step(cube, origin, torch.zeros_like(cube), eps=eps, step_size=1.0), cube)


@settings(deadline=None, max_examples=40)
@given(cases, st.randoms(use_true_random=False))
def test_permuting_and_splitting_a_batch_permutes_and_splits_the_result(case, random):
    tensors = draw(case["shape"], case["seed"], case["eps"])
    count = case["shape"][0]
    order = torch.tensor(random.sample(range(count), count))
    cut = random.randint(0, count)
    for step in (l2_step, linf_step):
        numbers = {"eps": case["eps"], "step_size": case["step_size"]}
        whole = step(*tensors, **numbers)
        assert torch.equal(step(*(tensor[order] for tensor in tensors), **numbers), whole[order])
        pieces = [step(*(tensor[rows] for tensor in tensors), **numbers) for rows in (slice(cut), slice(cut, None))]
        assert torch.equal(torch.cat(pieces), whole)


def test_given_gradients_one_image_gets_the_same_bits_alone_and_in_a_batch_of_500():
    tensors = draw((500, 3, 32, 32), seed=21)
    for step in (l2_step, linf_step):
        whole = step(*tensors, eps=0.5, step_size=0.1)
        for row in (0, 1, 250, 499):
            alone = step(*(tensor[row : row + 1] for tensor in tensors), eps=0.5, step_size=0.1)
            assert torch.equal(alone[0], whole[row])


def test_fast_dtype_is_one_that_the_hardware_gains_from():
    assert fast_dtype("cuda") == torch.bfloat16
    assert fast_dtype("cpu") in (torch.bfloat16, torch.float32)
    assert fast_dtype("meta") == torch.float32
