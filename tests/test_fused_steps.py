"""One attack step against a float64 twin that is written here, image by image, and against its invariants.

Everything is asked of both implementations: the lines of PyTorch, and the Triton kernels, which are compiled where
there is a GPU and interpreted on the CPU elsewhere.
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from advfeat.engine import fused_steps
from advfeat.engine.fused_steps import NetworkInput, fast_dtype

# Unit roundoff of float32: one operation is off by at most this share of its result.
U = 2.0**-24

SHAPES = [(1, 3, 32, 32), (7, 3, 32, 32), (3, 3, 5, 7), (2, 1, 1, 1), (4, 13), (5, 3, 31, 33), (2, 3, 53, 55)]

# NumPy, with which Triton's interpreter computes, warns of the infinities and NaNs that are meant here.
pytestmark = pytest.mark.filterwarnings("ignore:(divide by zero|invalid value) encountered:RuntimeWarning")

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed; it does not exist for every platform"
)


class Torch:
    """The twins, wherever the tensors are."""

    interpreted = False
    l2_step = staticmethod(fused_steps.l2_step)
    linf_step = staticmethod(fused_steps.linf_step)
    augment_step = staticmethod(fused_steps.augment_step)


class Triton:
    """The Triton kernels on the GPU, or interpreted; the result is on the CPU."""

    device = "cuda" if torch.cuda.is_available() else "cpu"
    interpreted = device == "cpu"

    def _step(self, name, tensors, eps, step_size, out, network):
        from advfeat.engine import triton_steps

        adv, origin, gradient = (tensor.to(self.device) for tensor in tensors)
        place = None if out is None else adv if out is tensors[0] else out.to(self.device)
        parts = (None, None, None)
        if network is not None:
            parts = tuple(part.to(self.device) for part in (network.values, network.mean, network.std))
        result = getattr(triton_steps, name)(adv, origin, gradient, eps, step_size, place, parts)
        if network is not None:
            network.values.copy_(parts[0])
        return result.cpu() if out is None else out.copy_(result)

    def l2_step(self, *tensors, eps, step_size, out=None, network=None):
        return self._step("l2_step", tensors, eps, step_size, out, network)

    def linf_step(self, *tensors, eps, step_size, out=None, network=None):
        return self._step("linf_step", tensors, eps, step_size, out, network)

    def augment_step(self, images, offsets, mirrored, *, shift):
        from advfeat.engine import triton_steps

        tensors = (tensor.to(self.device) for tensor in (images, offsets, mirrored))
        return triton_steps.augment_step(*tensors, shift).cpu()


@pytest.fixture(params=[Torch, pytest.param(Triton, marks=needs_triton)], ids=["torch", "triton"], scope="module")
def steps(request):
    """One implementation after the other."""
    return request.param()


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

    A norm is summed in blocks, so its relative error is below 16 U for some thousand entries of an image, and below one
    U more for every 4096 further ones, as many as a lane adds up by itself. The step uses two norms, and some ten
    further roundings. Nothing is larger than the distance so far, the step, or a pixel.
    """
    size = adv[0].numel()
    return (48 + 2 * size / 4096) * U * (1 + float((adv - origin).abs().max()) + step_size)


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
def test_l2_step_equals_its_float64_twin(steps, shape, eps, step_size):
    adv, origin, gradient = draw(shape, seed=len(shape) + shape[0], eps=eps)
    ours = steps.l2_step(adv, origin, gradient, eps=eps, step_size=step_size)
    expected = l2_twin(adv, origin, gradient, eps=eps, step_size=step_size)
    assert ours.dtype == torch.float32
    assert ours.shape == shape
    assert worst(ours, expected) <= l2_bound(adv, origin, step_size)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("eps", [0.0, 8 / 255, 0.5])
@pytest.mark.parametrize("step_size", [2 / 255, 0.3])
def test_linf_step_equals_its_float64_twin(steps, shape, eps, step_size):
    adv, origin, gradient = draw(shape, seed=shape[0], eps=0.5)
    ours = steps.linf_step(adv, origin, gradient, eps=eps, step_size=step_size)
    # eps and step_size are rounded to float32, and so are one sum for the step and one for the edge of the cube; all
    # are below 2.
    assert worst(ours, linf_twin(adv, origin, gradient, eps=eps, step_size=step_size)) <= 8 * U


def test_linf_step_takes_the_sign_of_the_smallest_gradients(steps):
    # The smallest positive number that float32 holds has a sign; a zero entry has none and its pixel stays.
    gradient = torch.tensor([[1e-45, -1e-45, 0.0, -0.0, 3e38]])
    origin = torch.full((1, 5), 0.5)
    moved = steps.linf_step(origin, origin, gradient, eps=0.25, step_size=0.125)
    assert torch.equal(moved, torch.tensor([[0.625, 0.375, 0.5, 0.5, 0.625]]))


@pytest.mark.parametrize("eps", [0.25, 0.5, 1.0, 2.0])
def test_l2_step_stays_in_ball_and_box(steps, eps):
    adv, origin, gradient = draw((6 if steps.interpreted else 64, 3, 32, 32), seed=3, eps=eps)
    for _ in range(5):
        adv = steps.l2_step(adv, origin, gradient, eps=eps, step_size=eps)
        # Rounding a pixel moves it by at most 2**-25, so an image of 3072 by 1.7e-6: below 1e-5 of these radii.
        assert float(norms(adv.double() - origin.double()).max()) <= eps * (1 + 1e-5)
        assert float(adv.min()) >= 0
        assert float(adv.max()) <= 1


def test_l2_step_reaches_the_radius_and_not_its_square(steps):
    origin = torch.full((3, 3, 8, 8), 0.5)
    gradient = torch.randn(origin.shape, generator=torch.Generator().manual_seed(0))
    for eps in (0.1, 0.3, 0.9):
        moved = steps.l2_step(origin, origin, gradient, eps=eps, step_size=2.0)
        # 192 pixels rounded by 2**-25 each: sqrt(192) * 2**-25 = 4e-7.
        assert torch.allclose(norms(moved - origin), torch.full((3,), eps, dtype=torch.float64), atol=1e-6, rtol=0)


def test_l2_step_leaves_a_point_inside_and_on_the_boundary_where_it_is(steps):
    origin = torch.full((1, 3, 4, 4), 0.5)
    inside, boundary = origin.clone(), origin.clone()
    inside[0, 0, 0, 0] += 0.125
    boundary[0, 0, 0, 0] += 0.25
    for adv in (origin, inside, boundary):
        stay = steps.l2_step(adv, origin, torch.zeros_like(adv), eps=0.25, step_size=0.1)
        assert torch.equal(stay, adv)


def test_l2_step_clamps_pixels_at_both_ends(steps):
    # Two pixels, a gradient of (3, 4)/5 against a wall: one is already at 1, the other at 0.
    origin = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    gradient = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    moved = steps.l2_step(origin, origin, gradient, eps=1.0, step_size=0.5)
    expected = torch.tensor([[1.0, 0.4], [0.3, 1.0]])
    assert worst(moved, expected) <= 4 * U


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-20, 1.0, 1e20, 1e38])
def test_l2_step_does_not_depend_on_the_length_of_the_gradient(steps, scale):
    adv, origin, _ = draw((2, 3, 8, 8), seed=11)
    # Signs and zeros only, so that scaling is exact even where float32 has one digit left.
    signs = torch.randint(-1, 2, adv.shape, generator=torch.Generator().manual_seed(1)).float()
    ours = steps.l2_step(adv, origin, signs * scale, eps=0.5, step_size=0.25)
    assert worst(ours, l2_twin(adv, origin, signs, eps=0.5, step_size=0.25)) <= l2_bound(adv, origin, 0.25)


def test_l2_step_keeps_images_with_zero_gradient_beside_others(steps):
    adv, origin, gradient = draw((4, 3, 6, 6), seed=5, eps=0.2)
    gradient[1] = 0
    gradient[3] = 0
    ours = steps.l2_step(adv, origin, gradient, eps=0.5, step_size=0.1)
    expected = l2_twin(adv, origin, gradient, eps=0.5, step_size=0.1)
    assert worst(ours, expected) <= l2_bound(adv, origin, 0.1)
    # origin + (adv - origin) is adv but for two roundings.
    assert worst(ours[[1, 3]], adv[[1, 3]]) <= 2 * U


@pytest.mark.parametrize("zero_gradient", [True, False])
def test_l2_step_with_radius_zero_returns_the_origin(steps, zero_gradient):
    origin = draw((3, 3, 4, 4), seed=2)[1]
    gradient = torch.zeros_like(origin) if zero_gradient else torch.ones_like(origin)
    assert torch.equal(steps.l2_step(origin, origin, gradient, eps=0.0, step_size=0.1), origin)


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
def test_l2_step_turns_a_broken_gradient_into_nan_in_that_image_only(steps, fault):
    adv, origin, gradient = draw((3, 3, 4, 4), seed=2)
    gradient[1, 2, 0, 3] = fault
    ours = steps.l2_step(adv, origin, gradient, eps=0.5, step_size=0.1)
    assert bool(ours[1].isnan().all())
    assert torch.equal(
        ours[[0, 2]], steps.l2_step(adv[[0, 2]], origin[[0, 2]], gradient[[0, 2]], eps=0.5, step_size=0.1)
    )


def test_linf_step_turns_a_nan_gradient_into_a_nan_pixel(steps):
    adv, origin, gradient = draw((3, 3, 4, 4), seed=2)
    gradient[1, 2, 0, 3] = math.nan
    ours = steps.linf_step(adv, origin, gradient, eps=0.1, step_size=0.05)
    assert bool(ours[1, 2, 0, 3].isnan())
    assert int(ours.isnan().sum()) == 1


def test_memory_layout_does_not_matter_and_inputs_are_not_changed(steps):
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
        # Another order of summation: the bound against the twin holds for both, so twice the bound holds between them.
        for step in (steps.l2_step, steps.linf_step):
            ours, expected = step(*tensors, eps=0.4, step_size=0.1), step(*plain, eps=0.4, step_size=0.1)
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


@settings(deadline=None, max_examples=25)
@given(cases)
def test_projection_is_feasible_and_idempotent(steps, case):
    eps = case["eps"]
    adv, origin, gradient = draw(case["shape"], case["seed"], eps)
    pixels = math.sqrt(math.prod(case["shape"][1:]))
    # A pixel in [0, 1] is rounded by at most 2**-25, an image by sqrt(pixels) times that, the norm itself by 16 U.
    slack = 16 * U * eps + pixels * 2**-25
    there = steps.l2_step(adv, origin, gradient, eps=eps, step_size=case["step_size"])
    assert float(norms(there.double() - origin.double()).max()) <= eps + slack
    assert 0 <= float(there.min()) <= float(there.max()) <= 1
    # Projected once more it may shrink by its excess over eps, and each pixel is rounded twice.
    again = steps.l2_step(there, origin, torch.zeros_like(there), eps=eps, step_size=1.0)
    assert worst(again, there) <= slack + 4 * U

    cube = steps.linf_step(adv, origin, gradient, eps=eps, step_size=case["step_size"])
    assert worst(cube, origin) <= eps + 4 * U * max(1, eps)
    assert 0 <= float(cube.min()) <= float(cube.max()) <= 1
    assert torch.equal(steps.linf_step(cube, origin, torch.zeros_like(cube), eps=eps, step_size=1.0), cube)


@settings(deadline=None, max_examples=15)
@given(cases, st.randoms(use_true_random=False))
def test_permuting_and_splitting_a_batch_permutes_and_splits_the_result(steps, case, random):
    tensors = draw(case["shape"], case["seed"], case["eps"])
    count = case["shape"][0]
    order = torch.tensor(random.sample(range(count), count))
    cut = random.randint(0, count)
    for step in (steps.l2_step, steps.linf_step):
        numbers = {"eps": case["eps"], "step_size": case["step_size"]}
        whole = step(*tensors, **numbers)
        assert torch.equal(step(*(tensor[order] for tensor in tensors), **numbers), whole[order])
        pieces = [step(*(tensor[rows] for tensor in tensors), **numbers) for rows in (slice(cut), slice(cut, None))]
        assert torch.equal(torch.cat(pieces), whole)


def test_given_gradients_one_image_gets_the_same_bits_alone_and_in_a_large_batch(steps):
    count = 30 if steps.interpreted else 500  # the interpreter is slow
    tensors = draw((count, 3, 32, 32), seed=21)
    for step in (steps.l2_step, steps.linf_step):
        whole = step(*tensors, eps=0.5, step_size=0.1)
        for row in (0, 1, count // 2, count - 1):
            alone = step(*(tensor[row : row + 1] for tensor in tensors), eps=0.5, step_size=0.1)
            assert torch.equal(alone[0], whole[row])


@pytest.mark.parametrize("size", [1, 8191, 8193, 300_001])
def test_images_of_any_size(steps, size):
    # A constant gradient: added up one by one, equal squares are all rounded the same way, and a norm over 300,000 of
    # them is off by far more than this bound.
    size = min(size, 20_001) if steps.interpreted else size
    adv, origin, gradient = draw((2, size), seed=3)
    gradient[0] = 0.3
    for eps in (0.5, math.inf):
        ours = steps.l2_step(adv, origin, gradient, eps=eps, step_size=0.25)
        expected = l2_twin(adv, origin, gradient, eps=eps, step_size=0.25)
        assert worst(ours, expected) <= l2_bound(adv, origin, 0.25)
    cube = steps.linf_step(adv, origin, gradient, eps=0.1, step_size=0.25)
    assert worst(cube, linf_twin(adv, origin, gradient, eps=0.1, step_size=0.25)) <= 8 * U


def test_a_norm_over_millions_of_entries_keeps_its_digits():
    origin = torch.full((1, 3_000_000), 0.5)
    moved = fused_steps.l2_step(origin, origin, torch.full_like(origin, 0.3), eps=math.inf, step_size=300.0)
    # Every entry moves by 300 / sqrt(3,000,000); a sum of squares one after the other would be off by a percent.
    assert worst(moved, torch.full_like(origin, 0.5, dtype=torch.float64) + 300 / math.sqrt(3e6)) <= 64 * U


def test_a_ball_of_infinite_radius_leaves_only_the_box(steps):
    adv, origin, gradient = draw((3, 3, 5, 5), seed=4)
    far = steps.l2_step(adv, origin, gradient, eps=math.inf, step_size=0.5)
    expected = l2_twin(adv, origin, gradient, eps=math.inf, step_size=0.5)
    assert worst(far, expected) <= l2_bound(adv, origin, 0.5)
    assert torch.equal(steps.l2_step(adv, adv * math.nan, gradient, eps=math.inf, step_size=0.5), far)


@pytest.mark.parametrize("name", ["l2_step", "linf_step"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
def test_the_result_goes_where_it_is_told(steps, name, order):
    tensors = [tensor.contiguous(memory_format=order) for tensor in draw((3, 3, 5, 7), seed=6)]
    step = getattr(steps, name)
    expected = step(*tensors, eps=0.3, step_size=0.2)
    # Filled with NaN: every value is written. In either order of memory, and in place.
    for place_order in (torch.contiguous_format, torch.channels_last):
        place = torch.full((3, 3, 5, 7), math.nan).contiguous(memory_format=place_order)
        assert step(*tensors, eps=0.3, step_size=0.2, out=place) is place
        # In another order of memory the norm is summed in another order.
        bound = 0 if place_order == order else 2 * l2_bound(tensors[0], tensors[1], 0.2)
        assert worst(place, expected) <= bound
    adv = tensors[0].clone()
    step(adv, *tensors[1:], eps=0.3, step_size=0.2, out=adv)
    assert torch.equal(adv, expected)


@pytest.mark.parametrize("name", ["l2_step", "linf_step"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 6, 6), (2, 3, 60, 60), (3, 1, 7, 9), (2, 4, 20, 20), (2, 5, 20, 20)], ids=str)
def test_a_step_through_the_network_s_own_input(steps, name, dtype, shape):
    adv, origin, gradient = draw(shape, seed=9)
    gradient = gradient.to(dtype).contiguous(memory_format=torch.channels_last)
    channels = shape[1]
    mean = torch.tensor([0.49, 0.48, 0.45, 0.1, 0.9])[:channels].view(1, channels, 1, 1)
    # Far apart: without the chain rule, or with another channel's, ℓ2 moves elsewhere.
    std = torch.tensor([0.25, 0.05, 0.5, 1.0, 0.1])[:channels].view(1, channels, 1, 1)
    values = torch.full(adv.shape, math.nan, dtype=dtype).contiguous(memory_format=torch.channels_last)
    network = NetworkInput(values, mean, std)
    ours = getattr(steps, name)(adv, origin, gradient, eps=0.3, step_size=0.2, network=network)
    twin = {"l2_step": l2_twin, "linf_step": linf_twin}[name]
    expected = twin(adv, origin, gradient.double() / std.double(), eps=0.3, step_size=0.2)
    assert worst(ours, expected) <= l2_bound(adv, origin, 0.2)
    # The network's next input belongs to the images that were returned: rounded once to its dtype (bfloat16 by
    # 2**-8, or 2**-7 where the interpreter cuts digits off), and by three operations in float32 before that.
    read = (ours.double() - mean.double()) / std.double()
    coarse = 2.0**-7 if steps.interpreted else 2.0**-8
    share = (coarse if dtype == torch.bfloat16 else 0) + 8 * U
    assert float(((values.double() - read).abs() - share * (read.abs() + 1)).max()) <= 0
    assert not torch.equal(values.float(), ours)


def test_a_broken_gradient_reaches_the_network_s_input_as_nan(steps):
    adv, origin, gradient = (x.contiguous(memory_format=torch.channels_last) for x in draw((3, 3, 4, 4), seed=2))
    gradient[1, 2, 0, 3] = math.nan
    mean, std = torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25)
    values = torch.zeros_like(adv)
    steps.l2_step(adv, origin, gradient, eps=0.5, step_size=0.1, network=NetworkInput(values, mean, std))
    assert bool(values[1].isnan().all())
    assert int(values.isnan().sum()) == values[1].numel()
    steps.linf_step(adv, origin, gradient, eps=0.5, step_size=0.1, network=NetworkInput(values, mean, std))
    assert int(values.isnan().sum()) == 1


@pytest.mark.parametrize("name", ["l2_step", "linf_step"])
def test_no_image_gives_no_image(steps, name):
    none = torch.zeros(0, 3, 4, 4)
    assert getattr(steps, name)(none, none, none, eps=0.5, step_size=0.1).shape == none.shape


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (3, 1, 5, 9), (2, 4, 1, 3), (1, 3, 40, 33)], ids=str)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
def test_crop_and_flip_is_a_crop_of_the_reflected_image(steps, shape, order):
    count, _, height, width = shape
    generator = torch.Generator().manual_seed(count)
    images = torch.rand(shape, generator=generator).contiguous(memory_format=order)
    for shift in {0, min(height, width, 3) - 1}:
        offsets = torch.randint(0, 2 * shift + 1, (2, count), generator=generator)
        mirrored = torch.rand(count, generator=generator) < 0.5
        moved = steps.augment_step(images, offsets, mirrored, shift=shift)
        padded = torch.nn.functional.pad(images, (shift,) * 4, mode="reflect")
        for image, source, row, column, flipped in zip(moved, padded, *offsets.tolist(), mirrored, strict=True):
            crop = source[:, row : row + height, column : column + width]
            assert torch.equal(image, crop.flip(2) if flipped else crop)


@needs_triton
def test_what_the_network_reads_has_to_be_channels_last():
    adv, origin, gradient = draw((2, 3, 4, 4), seed=0)
    network = NetworkInput(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    with pytest.raises(ValueError, match="channels last, got strides"):
        Triton().l2_step(adv, origin, gradient, eps=0.5, step_size=0.1, network=network)


def test_fast_dtype_is_one_that_the_hardware_gains_from():
    assert fast_dtype("cuda") == torch.bfloat16
    assert fast_dtype("cpu") in (torch.bfloat16, torch.float32)
    assert fast_dtype("meta") == torch.float32


def test_fast_dtype_is_that_of_the_processor_that_is_imitated():
    """With bfloat16 emulated, a trial of an ordinary processor would take three times as long, and be none."""
    code = "from advfeat.engine.fused_steps import fast_dtype; print(fast_dtype('cpu'))"
    restricted = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    said = subprocess.run([sys.executable, "-c", code], env=restricted, capture_output=True, text=True, check=True)
    assert said.stdout == "torch.float32\n"
