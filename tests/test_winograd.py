"""Winograd's convolutions against float64 with a derived bound, and against faults on the way there.

**The bound.** The engine computes y = Aᵀ[Σ_c (G w Gᵀ) ⊙ (Bᵀ d B)]A for each tile. With u = 2⁻²⁴ and
γ_k = k u / (1 − k u), a number that went through k roundings on its way into a sum is in it with a relative error of at
most γ_k (Higham, *Accuracy and Stability of Numerical Algorithms*, lemma 3.1), whether products and sums are contracted
or not. Counted in the code:

- Bᵀ d B: at most 3 roundings a term and direction (4 d₀ − 5 d₂ + d₄; factors 2, 4 and 8 are exact), so 6;
- G w Gᵀ: computed in float64 and rounded once; 2 covers the rounding of float64;
- the sum over C channels of products: at most C + 1 for a term;
- Aᵀ M A: at most 3 a direction (m₁ ± m₂, + m₀, + the second sum), so 6; bias and residual sum: 2 more.

So |ŷ − y| ≤ γ_{C+17} (|Aᵀ| [Σ_c (|G||w||Gᵀ|) ⊙ (|Bᵀ||d||B|)] |A| + |bias| + |residual|), element by element. Its size
is that of the transforms' norms: the rows of |Bᵀ|, |G| and |Aᵀ| sum to at most 10, 1 and 19. The gradient with respect
to the images is such a convolution. That with respect to the weights has 6 roundings for d, 8 for the gradient (a sum
of two pairs, times a rounded sixth or 24th: 4 a direction), T + T/96 + 2 for the sum over T tiles in pieces of 96, and
6 for the last transform.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from advfeat.engine import compiled, convolution_code, winograd
from advfeat.engine.winograd import Kernel, conv2d

B = torch.tensor(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
     [0, 4, 0, -5, 0, 1]], dtype=torch.float64
)  # fmt: skip
G = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
) / 24  # fmt: skip
A = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
G4 = torch.tensor(
    [[6, 0, 0, 0], [-4, -4, -4, -4], [-4, 4, -4, 4], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 24]], dtype=torch.float64
) / 24  # fmt: skip
A3 = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 1]], dtype=torch.float64)
G[0, 0] = G4[0, 0] = 1 / 4

CHANNELS = st.one_of(st.integers(1, 20), st.sampled_from([32, 47, 64, 65]))
SHAPES = st.tuples(st.integers(1, 3), CHANNELS, CHANNELS, st.integers(3, 14), st.integers(3, 14), st.integers(0, 1))

pytestmark = [pytest.mark.numbers, pytest.mark.usefixtures("compiled_convolutions", "restored_threads")]


@pytest.fixture
def anew(tmp_path, monkeypatch):
    """An empty cache, a compiler in a hurry, and an engine that has not been looked for."""
    monkeypatch.setenv("ADVFEAT_COMPILED", str(tmp_path / "cache"))
    monkeypatch.setattr(compiled, "FLAGS", tuple("-O0" if flag == "-O3" else flag for flag in compiled.FLAGS))
    convolution_code._library.cache_clear()
    yield tmp_path / "cache"
    convolution_code._library.cache_clear()


def gamma(roundings):
    unit = 2.0**-24
    return roundings * unit / (1 - roundings * unit)


def tiles(images, padding, side, height, width):
    """|images| cut into windows of ``side``, four apart, as float64 (n, c, down, across, side, side)."""
    down, across = math.ceil(height / 4), math.ceil(width / 4)
    size = [4 * (down - 1) + side, 4 * (across - 1) + side]
    padded = F.pad(
        images.detach().double().abs(),
        (padding, size[1] - images.shape[3] - padding, padding, size[0] - images.shape[2] - padding),
    )
    return padded.unfold(2, side, 4).unfold(3, side, 4)


def through(matrix, values):
    """|matrix| values |matrix|ᵀ in the last two dimensions."""
    return matrix.abs() @ values @ matrix.abs().T


def bound(images, weight, padding, *added):
    """How far each output may be from float64, see above."""
    _, channels, height, width = images.shape
    height, width = height + 2 * padding - 2, width + 2 * padding - 2
    u, v = through(G, weight.detach().double().abs()), through(B, tiles(images, padding, 6, height, width))
    y = through(A, torch.einsum("ncdaij,kcij->nkdaij", v, u))
    total = y.permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
    return gamma(channels + 17) * (total + sum(values.double().abs() for values in added)) + 1e-38


def weight_bound(images, gradient, padding):
    height, width = gradient.shape[2:]
    v = through(B, tiles(images, padding, 6, height, width))
    g = through(G4, tiles(gradient, 0, 4, height, width))
    count = v.shape[0] * v.shape[2] * v.shape[3]
    return gamma(count + count // 96 + 22) * through(A3, torch.einsum("ncdaij,nkdaij->kcij", v, g)) + 1e-38


def drawn(shape, seed=0):
    n, c, k, height, width, padding = shape
    source = torch.Generator().manual_seed(seed)
    images = torch.randn((n, c, height, width), generator=source)
    weight = torch.randn((k, c, 3, 3), generator=source)
    gradient = torch.randn((n, k, height + 2 * padding - 2, width + 2 * padding - 2), generator=source)
    return images, weight, gradient


def within(found, exact, limit):
    assert found.shape == exact.shape
    excess = (found.double() - exact).abs() - limit
    assert excess.max() <= 0, f"an error of {(found.double() - exact).abs().max():.3g} where less was derived"


def check_forward(shape, seed=0):
    images, weight, _ = drawn(shape, seed)
    padding = shape[-1]
    exact = F.conv2d(images.double(), weight.double(), padding=padding)
    within(conv2d(images, weight, padding=padding), exact, bound(images, weight, padding))


def check_image_gradient(shape, seed=0):
    images, weight, gradient = drawn(shape, seed)
    padding = shape[-1]
    found = torch.autograd.grad(conv2d(images.requires_grad_(), weight, padding=padding), images, gradient)[0]
    exact = torch.nn.grad.conv2d_input(images.shape, weight.double(), gradient.double(), padding=padding)
    turned = weight.flip(2, 3).transpose(0, 1)
    within(found, exact, bound(gradient, turned, 2 - padding))


def check_weight_gradient(shape, seed=0):
    images, weight, gradient = drawn(shape, seed)
    padding = shape[-1]
    found = torch.autograd.grad(conv2d(images, weight.requires_grad_(), padding=padding), weight, gradient)[0]
    exact = torch.nn.grad.conv2d_weight(images.double(), weight.shape, gradient.double(), padding=padding)
    within(found, exact, weight_bound(images, gradient, padding))


EXAMPLES = [
    (1, 1, 1, 3, 3, 0),  # one output
    (1, 1, 1, 1, 1, 1),  # one pixel
    (2, 16, 16, 8, 8, 1),
    (3, 17, 133, 7, 9, 1),
    (1, 130, 70, 4, 5, 1),
    (6, 5, 6, 16, 17, 1),  # more tiles than are summed at a time
]


@settings(max_examples=15, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**31))
@example(shape=EXAMPLES[0], seed=0)
@example(shape=EXAMPLES[1], seed=0)
@example(shape=EXAMPLES[2], seed=0)
@example(shape=EXAMPLES[3], seed=0)
@example(shape=EXAMPLES[4], seed=0)
@example(shape=EXAMPLES[5], seed=0)
def test_outputs_and_gradients_are_as_near_to_float64_as_derived(shape, seed):
    check_forward(shape, seed)
    check_image_gradient(shape, seed)
    check_weight_gradient(shape, seed)


def test_matrices_of_the_bound_are_those_of_the_algorithm():
    """Else the bound would belong to something else: the transforms compute a correlation exactly, in float64."""
    source = torch.Generator().manual_seed(1)
    d, w, g = (torch.randn(k, generator=source, dtype=torch.float64) for k in (6, 3, 4))
    assert torch.allclose(A @ ((G @ w) * (B @ d)), torch.stack([d[i : i + 3] @ w for i in range(4)]), atol=1e-12)
    assert torch.allclose(A3 @ ((G4 @ g) * (B @ d)), torch.stack([d[i : i + 4] @ g for i in range(3)]), atol=1e-12)


@pytest.mark.parametrize("level", ["plain", "avx2", "avx512", "neon"])
def test_every_vector_width_that_this_processor_has(level, anew, monkeypatch):
    here = compiled.instructions()
    widths = ["plain", "avx2", "avx512"] if here != "neon" else ["neon"]
    if level not in widths or widths.index(level) > widths.index(here):
        pytest.skip(f"a processor with {here}")
    monkeypatch.setattr(compiled, "instructions", lambda: level)
    monkeypatch.setattr(convolution_code, "instructions", lambda: level)
    assert convolution_code.engine().why.endswith(level)
    assert convolution_code.compiled_code().winograd_width() == {"plain": 4, "avx2": 8, "avx512": 16, "neon": 4}[level]
    for shape in EXAMPLES:
        check_forward(shape)
        check_image_gradient(shape)
        check_weight_gradient(shape)


WRONG = {
    "kernel not turned": ("of->turned ? 8 - 3 * r - s", "of->turned ? 3 * r + s", check_image_gradient),
    "halo forgotten": (
        "&of->x, image, down - of->padding, across - of->padding",
        "&of->x, image, down, across",
        check_forward,
    ),
    "halo forgotten in the weight gradient": (
        "&x, image, down - of->padding, across - of->padding",
        "&x, image, down, across",
        check_weight_gradient,
    ),
    "channels swapped": (
        "(first + k) * of->of_output + c * of->of_input",
        "c * of->of_output + (first + k) * of->of_input",
        check_forward,
    ),
    "only the last tiles summed": ("store(at, load(at) + sum[i][j])", "store(at, sum[i][j])", check_weight_gradient),
    "a sign in B": ("(d4 - d2) - 2.0f * (d3 - d1)", "(d4 - d2) + 2.0f * (d3 - d1)", check_forward),
}  # fmt: skip


def mutate(old, new, tmp_path, monkeypatch):
    text = convolution_code.SOURCE.read_text()
    assert text.count(old) == 1
    wrong = tmp_path / "winograd.c"
    wrong.write_text(text.replace(old, new))
    monkeypatch.setattr(convolution_code, "SOURCE", wrong)
    convolution_code._library.cache_clear()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_version_is_outside_the_bound(name, anew, tmp_path, monkeypatch):
    old, new, check = WRONG[name]
    shape = (7, 8, 8, 16, 17, 1)
    mutate(old, new, tmp_path, monkeypatch)
    with pytest.raises(AssertionError, match="less was derived"):
        check(shape)


@settings(max_examples=10, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**31))
def test_gradients_are_finite_differences(shape, seed):
    """The convolution is linear in each argument, so a step of 1 is exact up to rounding: both are bounded above."""
    images, weight, gradient = drawn(shape, seed)
    padding, size = shape[-1], gradient.double().abs()
    other_images, other_weight, _ = drawn(shape, seed + 1)
    images.requires_grad_()
    weight.requires_grad_()
    of_images, of_weight = torch.autograd.grad(conv2d(images, weight, padding=padding), (images, weight), gradient)
    with torch.no_grad():
        base = conv2d(images, weight, padding=padding).double()
        moved = conv2d(images + other_images, weight, padding=padding).double() - base
        turned = conv2d(images, weight + other_weight, padding=padding).double() - base
        slack = 6 * bound(images.abs() + other_images.abs(), weight.abs() + other_weight.abs(), padding)
    allowed = (slack * size).sum()
    flip = weight.flip(2, 3).transpose(0, 1)
    rounded = (bound(gradient, flip, 2 - padding) * other_images.double().abs()).sum()
    found = (of_images.double() * other_images.double()).sum()
    assert abs((moved * gradient.double()).sum() - found) <= allowed + rounded
    rounded = (weight_bound(images, gradient, padding) * other_weight.double().abs()).sum()
    found = (of_weight.double() * other_weight.double()).sum()
    assert abs((turned * gradient.double()).sum() - found) <= allowed + rounded


@pytest.mark.parametrize("shape", [*EXAMPLES, (5, 20, 140, 8, 8, 1), (4, 64, 64, 9, 9, 0)])
def test_same_bits_alone_in_a_batch_and_with_any_threads(shape, monkeypatch):
    images, weight, gradient = drawn(shape)
    kernel, padding = Kernel(weight.requires_grad_()), shape[-1]

    def found(threads, part=slice(None)):
        torch.set_num_threads(threads)
        some = images[part].clone().requires_grad_()
        outputs = conv2d(some, kernel, padding=padding, relu=True)
        return outputs.detach(), *torch.autograd.grad(outputs, (some, weight), gradient[part])

    alone = found(1)
    for threads in (2, 3):
        assert all(map(torch.equal, found(threads), alone))
    for threads in (1, 2):
        for i in range(len(images)):
            outputs, of_images, _ = found(threads, slice(i, i + 1))
            assert torch.equal(outputs, alone[0][i : i + 1])
            assert torch.equal(of_images, alone[1][i : i + 1])
    monkeypatch.setattr(winograd, "team", lambda: None)  # threads of the C code, where OpenMP is not found
    assert all(map(torch.equal, found(2), alone))


@pytest.mark.parametrize("padding", [0, 1])
def test_bias_residual_and_relu_with_all_gradients(padding):
    """Whole numbers and a bias of a half: no output lies so near to 0 that rounding could open or close a ReLU."""
    source = torch.Generator().manual_seed(0)
    images, weight = (torch.randint(-3, 4, s, generator=source).float() for s in ((3, 18, 9, 6), (21, 18, 3, 3)))
    bias = torch.randint(-3, 3, (21,), generator=source) + 0.5
    residual = torch.randint(-9, 9, (3, 21, 7 + 2 * padding, 4 + 2 * padding), generator=source).float()
    gradient = torch.randn(residual.shape, generator=source)

    def both(dtype):
        given = [values.to(dtype).requires_grad_() for values in (images, weight, bias, residual)]
        outputs = conv2d(given[0], given[1], given[2], padding=padding, residual=given[3], relu=True)
        still = [values.detach() for values in given]
        only = conv2d(given[0], still[1], still[2], padding=padding, residual=still[3], relu=True)
        (alone,) = torch.autograd.grad(only, given[0], gradient.to(dtype))
        return outputs, *torch.autograd.grad(outputs, given, gradient.to(dtype)), alone

    found, exact = both(torch.float32), both(torch.float64)
    open_gradient = gradient * (exact[0] > 0)
    turned = weight.flip(2, 3).transpose(0, 1)
    within(found[0], exact[0], bound(images, weight, padding, bias.view(-1, 1, 1), residual))
    within(found[1], exact[1], bound(open_gradient, turned, 2 - padding))
    within(found[2], exact[2], weight_bound(images, open_gradient, padding))
    within(found[3], exact[3], gamma(gradient.numel()) * open_gradient.abs().sum((0, 2, 3)))
    assert torch.equal(found[4], open_gradient.float())
    within(found[5], exact[5], bound(open_gradient, turned, 2 - padding))  # the gate inside the C code, and outside


def test_a_closed_relu_has_no_gradient(anew, tmp_path, monkeypatch):
    def check():
        images = torch.ones(1, 1, 4, 4, requires_grad=True)
        outputs = conv2d(images, torch.zeros(2, 1, 3, 3) - 1, relu=True)
        assert torch.equal(outputs, torch.zeros(1, 2, 4, 4))
        assert torch.equal(torch.autograd.grad(outputs.sum(), images)[0], torch.zeros(1, 1, 4, 4))

    check()
    mutate("where(open <= 0.0f,", "where(open < 0.0f,", tmp_path, monkeypatch)
    with pytest.raises(AssertionError):
        check()


def check_not_finite():
    images, weight, gradient = drawn((3, 6, 10, 11, 10, 1))
    clean = conv2d(images, weight, relu=True)
    for value in (math.nan, math.inf, -math.inf):
        for row, column in ((0, 0), (3, 4), (10, 9), (6, 8)):
            spoilt = images.clone()
            spoilt[1, 5, row, column] = value
            large = torch.nan_to_num(spoilt, nan=1e30, posinf=1e30, neginf=1e30)
            reached = F.conv2d(large - images, weight.abs(), padding=1)
            for relu in (False, True):
                found = conv2d(spoilt, weight, relu=relu)
                assert not found[reached > 1e20].isfinite().any()
            assert torch.equal(conv2d(spoilt, weight, relu=True)[[0, 2]], clean[[0, 2]])
            spoilt = gradient.clone()
            spoilt[1, 7, row, column] = value
            leaf = images.clone().requires_grad_()
            of_weight = weight.clone().requires_grad_()
            of = torch.autograd.grad(conv2d(leaf, of_weight), (leaf, of_weight), spoilt)
            near = of[0][1, :, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            assert not near.isfinite().any()
            assert of[0][[0, 2]].isfinite().all()
            assert not of[1][7].isfinite().any()
    wrong = weight.clone()
    wrong[4, 2, 1, 1] = math.nan
    assert conv2d(images, wrong, relu=True)[:, 4].isnan().all()
    assert torch.equal(conv2d(images, wrong, relu=True)[:, :4], clean[:, :4])


def test_nan_and_infinity_never_become_numbers(anew, tmp_path, monkeypatch):
    check_not_finite()
    mutate("0.0f * value + 0.0f", "(vec){0}", tmp_path, monkeypatch)
    with pytest.raises(AssertionError):
        check_not_finite()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_layouts_and_modes_change_no_bit(mode):
    images, weight, _ = drawn((2, 12, 20, 9, 10, 1))
    expected = conv2d(images, weight)
    with mode():
        last = torch.channels_last
        other = images.contiguous(memory_format=last), weight.contiguous(memory_format=last)
        assert torch.equal(conv2d(*other), expected)
        assert torch.equal(conv2d(images.repeat_interleave(2, dim=3)[..., ::2], weight), expected)
        assert torch.equal(conv2d(images, weight.transpose(0, 1).contiguous().transpose(0, 1)), expected)
        assert conv2d(images, weight).is_contiguous(memory_format=last)
        constant = conv2d(images[:1, :1].expand(2, 12, 9, 10), weight)
        assert torch.equal(constant, conv2d(images[:1, :1].expand(2, 12, 9, 10).contiguous(), weight))


def test_weights_changed_in_place_are_transformed_again():
    images, weight, gradient = drawn((1, 4, 4, 6, 6, 1))
    kernel = Kernel(weight)
    before, kept = conv2d(images, kernel), kernel.transformed()
    assert kernel.transformed() is kept
    weight.mul_(2)
    assert torch.equal(conv2d(images, kernel), 2 * before)
    outputs = conv2d(images.requires_grad_(), kernel)
    weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.backward(gradient)


def test_large_transforms_for_many_images_are_not_kept_and_give_the_same_bits(monkeypatch):
    monkeypatch.setattr(winograd, "LARGE", 36 * 20 * 12)
    images, weight, gradient = drawn((150, 12, 20, 4, 4, 1))
    images.requires_grad_()

    def found(kernel, some):
        outputs = conv2d(images[some], kernel)
        return outputs.detach(), torch.autograd.grad(outputs, images, gradient[some])[0][some]

    many, few = Kernel(weight), Kernel(weight)
    whole, alone = found(many, slice(None)), found(few, slice(0, 1))
    assert [many._kept.holds(turned) for turned in (False, True)] == [False, False]
    assert [few._kept.holds(turned) for turned in (False, True)] == [True, True]
    assert all(torch.equal(part[:1], one) for part, one in zip(whole, alone, strict=True))
    assert all(map(torch.equal, found(few, slice(None)), whole))  # the kept one is used


def test_second_gradients_are_those_of_pytorch():
    images, weight, gradient = drawn((2, 4, 5, 6, 7, 1))
    leaves = [images.requires_grad_(), weight.requires_grad_(), torch.ones(5, requires_grad=True)]

    def second(function):
        outputs = function(*leaves, padding=1)
        first = torch.autograd.grad(outputs, leaves, gradient, create_graph=True)
        return torch.autograd.grad(sum((part**2).sum() for part in first), leaves[:2])

    # Whole gradients are sums of 5·9 and 4·9 products, their squares' gradients of as many again.
    for found, exact in zip(second(conv2d), second(F.conv2d), strict=True):
        assert torch.allclose(found, exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))


@pytest.mark.usefixtures("unchecked_types")
def test_wrong_arguments_are_named():
    images, weight, _ = drawn((2, 4, 5, 6, 6, 1))
    with pytest.raises(ValueError, match="images must have shape"):
        conv2d(images[:, :3], weight)
    with pytest.raises(TypeError, match="images must be float32"):
        conv2d(images.double(), weight)
    with pytest.raises(ValueError, match="weight must have shape"):
        conv2d(images, weight[..., :2])
    with pytest.raises(ValueError, match="padding must be 1 or less, got 2"):
        conv2d(images, weight, padding=2)
    with pytest.raises(ValueError, match="at least 3 pixels"):
        conv2d(images[..., :2], weight, padding=0)
    with pytest.raises(ValueError, match="bias must have shape"):
        conv2d(images, weight, torch.zeros(4))
    with pytest.raises(ValueError, match="residual must have shape"):
        conv2d(images, weight, residual=torch.zeros(2, 5, 6, 5))
    with pytest.raises(TypeError, match="relu must be True or False"):
        conv2d(images, weight, relu=1)


@pytest.mark.parametrize(
    ("layer", "gradient", "batch", "expected"),
    [
        ((64, 64, 32, 32), "images", 1, True),
        ((512, 512, 4, 4), "images", 1, False),  # one tile for 38 MB of transformed weights
        ((512, 512, 4, 4), "images", 8, True),
        ((512, 512, 4, 4), "weight", 8, False),
        ((512, 512, 4, 4), "weight", 64, True),
        ((3, 64, 32, 32), "images", 128, False),
        ((64, 8, 32, 32), "weight", 128, False),
    ],
)
def test_where_it_pays(layer, gradient, batch, expected):
    assert winograd.pays(*layer, gradient=gradient, batch=batch) == expected


# ---- How the library comes to be


def test_without_a_compiler_pytorch_computes(anew, tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    name, why = convolution_code.engine()
    assert not winograd.pays(64, 64, 32, 32)
    assert (name, why) == ("torch", "no C compiler: no cc, gcc or clang is on the path")
    images, weight, gradient = drawn((2, 12, 20, 9, 10, 1))
    bias, residual = torch.ones(20), gradient.clone()
    for values in (images, weight, bias, residual):
        values.requires_grad_()
    found = conv2d(images, Kernel(weight), bias, residual=residual, relu=True)
    expected = (F.conv2d(images, weight, bias, padding=1) + residual).relu()
    assert torch.equal(found, expected)
    of = [torch.autograd.grad(outputs, (images, weight, bias, residual), gradient) for outputs in (found, expected)]
    assert all(map(torch.equal, *of))


def test_a_compiler_that_fails_is_a_reason(anew, tmp_path, monkeypatch):
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho no licence >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert convolution_code.engine() == ("torch", f"{broken} failed on winograd.c: no licence")
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    convolution_code._library.cache_clear()
    assert convolution_code.engine() == ("torch", "no C compiler: CC names 'no-such-compiler', which cannot be run")
    monkeypatch.setenv("CC", "cc 'half a quotation")
    convolution_code._library.cache_clear()
    assert convolution_code.engine().why.startswith("winograd.c could not be compiled: No closing quotation")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="a system without owners of files")
def test_no_code_is_taken_from_where_others_can_write(anew, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("ADVFEAT_COMPILED", str(shared))
    assert convolution_code.engine() == ("torch", f"others can write to {shared}, so no code is taken from it")
    shared.chmod(0o700)
    convolution_code._library.cache_clear()
    if convolution_code.engine().name == "winograd":
        (library,) = shared.glob("*.so")
        library.chmod(0o666)
        before = library.stat().st_ino
        convolution_code._library.cache_clear()
        assert convolution_code.engine().name == "winograd"
        (library,) = shared.glob("*.so")
        assert (library.stat().st_mode & 0o777, library.stat().st_ino == before) == (0o600, False), "made anew"


def test_a_cache_that_cannot_be_written_is_a_reason(anew, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADVFEAT_COMPILED", str(tmp_path / "file" / "cache"))
    assert compiled.folder() == tmp_path / "file" / "cache"
    with pytest.raises(compiled.UnavailableError, match=r"tiny\.c could not be compiled"):
        compiled.load(tiny(tmp_path))


@pytest.mark.parametrize("given", ["AVX2", "AVX2_VNNI", "AVX512_CORE", "SSE41", ""])
def test_an_imitated_processor_gets_its_own_code(given, monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    here = compiled.instructions()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", given)
    order = ["plain", "avx2", "avx512"]
    most = {"AVX2": "avx2", "AVX2_VNNI": "avx2", "SSE41": "plain"}.get(given, "avx512")
    assert compiled.instructions() == (here if here == "neon" else min(here, most, key=order.index))


def tiny(folder, answer=42):
    source = folder / "tiny.c"
    source.write_text(f"const char *tiny_key(void) {{ return KEY; }}\nint tiny_answer(void) {{ return {answer}; }}\n")
    return source


def test_a_library_is_compiled_once(anew, tmp_path, monkeypatch):
    source = tiny(tmp_path)
    assert compiled.load(source).tiny_answer() == 42
    (kept,) = anew.iterdir()
    monkeypatch.setattr(compiled, "_compiled", lambda *_: pytest.fail("compiled again"))
    assert compiled.load(source).tiny_answer() == 42
    assert [*anew.iterdir()] == [kept]


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_damaged_library_is_compiled_again(length, anew, tmp_path):
    source = tiny(tmp_path)
    compiled.load(source)
    (kept,) = anew.iterdir()
    whole = kept.read_bytes()
    kept.unlink()
    kept.write_bytes(whole[:length])
    assert compiled.load(source).tiny_answer() == 42
    (again,) = anew.iterdir()
    assert again.read_bytes() == whole or compiled._hash(again.read_bytes()) in again.name


@pytest.mark.parametrize("changed", ["processor", "compiler", "flags", "source", "instructions"])
def test_a_library_made_for_something_else_is_not_loaded(changed, anew, tmp_path, monkeypatch):
    """Neither under its own name nor under the one that is looked for."""
    source = tiny(tmp_path, 41)
    compiled.load(source)
    (old,) = anew.iterdir()
    if changed == "processor":
        monkeypatch.setattr(compiled, "_processor", lambda: ("another",))
    elif changed == "compiler":
        monkeypatch.setattr(compiled, "_version", lambda _: "gcc 99")
    elif changed == "flags":
        monkeypatch.setattr(compiled, "FLAGS", (*compiled.FLAGS, "-DOTHER"))
    elif changed == "instructions":
        monkeypatch.setitem(compiled.INSTRUCTIONS, compiled.instructions(), ("-DOTHER",))
    else:
        tiny(tmp_path, 42)
    library = compiled.load(source)
    (new,) = set(anew.iterdir()) - {old}
    assert library.tiny_answer() == (42 if changed == "source" else 41)
    assert new.name.split("-")[1] != old.name.split("-")[1]
    disguised = new.with_name(f"tiny-{new.name.split('-')[1]}-{compiled._hash(old.read_bytes())}.so")
    disguised.write_bytes(old.read_bytes())
    new.unlink()
    compiled.load(source)
    assert not disguised.exists()
    assert new.exists()


def test_two_processes_at_once(anew, tmp_path):
    source = tiny(tmp_path)
    code = "import sys, pathlib, advfeat.engine.compiled as c; print(c.load(pathlib.Path(sys.argv[1])).tiny_answer())"
    command = [sys.executable, "-c", code, str(source)]
    root = Path(__file__).parent.parent
    both = [
        subprocess.Popen(command, cwd=root, env=dict(os.environ), stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate()[0] for process in both] == ["42\n", "42\n"]
    assert not [path for path in anew.iterdir() if path.suffix != ".so"]
    assert compiled.load(source).tiny_answer() == 42
