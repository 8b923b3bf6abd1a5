"""Attacks on models whose worst image is known, and the same images whatever their neighbours in the batch are."""

from __future__ import annotations

import math

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from advfeat.attacks import fgsm, match_representation, pgd
from advfeat.models import Classifier, FrozenClassifier, build_model, freeze
from advfeat.threats import L2, Linf, usual_step_size

pytestmark = pytest.mark.numbers

U = 2.0**-24


class Linear(nn.Module):
    """Logits (0, weight · image + bias): the cross-entropy of a label is monotone along ``weight``."""

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = bias
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        second = (images * self.weight).flatten(1).sum(1) + self.bias
        return torch.stack([torch.zeros_like(second), second], dim=1)


class Watched(L2):
    """The ℓ2 threat, which keeps the gradients that it is given."""

    def step(self, adv, origin, gradient, step_size, **place):
        seen = self.__dict__.setdefault("gradients", [])
        seen.append(gradient.clone())
        return super().step(adv, origin, gradient, step_size, **place)


def weights(size: int = 6, seed: int = 0) -> Tensor:
    return torch.randn((3, size, size), generator=torch.Generator().manual_seed(seed))


def images_between(low: float, high: float, n: int, size: int = 6, seed: int = 1) -> Tensor:
    values = torch.rand((n, 3, size, size), generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * values


def worst(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("label", [0, 1])
def test_l2_pgd_on_a_linear_model_ends_at_the_optimum(targeted, label):
    weight, images = weights(), images_between(0.3, 0.7, n=5)
    bias = -float((images * weight).flatten(1).sum(1).mean())
    eps = 0.2  # no pixel reaches the edge of [0, 1], so the optimum is x ± eps w / ||w||
    labels = torch.full((5,), label)
    adv = pgd(Linear(weight, bias), images, labels, L2(eps), steps=7, step_size=0.07, targeted=targeted)
    # Label 1 gains along +w. Untargeted runs away from the label, targeted towards it.
    sign = 1.0 if (label == 1) == targeted else -1.0
    direction = weight.double() / weight.double().norm()
    # Seven steps, each with the 48 U of one step (test_kernels) on pixels and lengths below 1.
    assert worst(adv, images.double() + sign * eps * direction) <= 7 * 48 * U


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("label", [0, 1])
def test_linf_pgd_on_a_linear_model_ends_at_the_optimum(targeted, label):
    # Pixels near 0 and 1: with a sign step the clamp acts per pixel and the optimum stays in closed form.
    weight, images = weights(), images_between(0.0, 1.0, n=5)
    bias = -float((images * weight).flatten(1).sum(1).mean())
    eps = 0.1
    labels = torch.full((5,), label)
    adv = pgd(Linear(weight, bias), images, labels, Linf(eps), steps=6, step_size=0.02, targeted=targeted)
    sign = 1.0 if (label == 1) == targeted else -1.0
    # Six sums of pixels below 1 and the rounding of eps.
    assert worst(adv, (images.double() + sign * eps * weight.double().sign()).clamp(0, 1)) <= 8 * U


def test_pixels_at_the_edge_are_clamped():
    weight = weights()
    images = (weights(seed=3) > 0).float()[None]  # zeros and ones only
    eps = 0.5
    adv = pgd(Linear(weight), images, torch.tensor([0]), L2(eps), steps=1, step_size=eps)
    expected = (images.double() + eps * weight.double() / weight.double().norm()).clamp(0, 1)
    assert worst(adv, expected) <= 48 * U


def test_a_step_shorter_than_the_radius_has_its_length():
    weight, images = weights(), images_between(0.4, 0.6, n=3)
    adv = pgd(Linear(weight), images, torch.tensor([0, 1, 0]), L2(1.0), steps=3, step_size=0.05)
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64).view(3, 1, 1, 1)
    assert worst(adv, images.double() + sign * 0.15 * weight.double() / weight.double().norm()) <= 3 * 48 * U


def test_confident_images_with_tiny_gradients_move_all_the_way():
    # The model gives label 0 a probability of 1 - exp(-70); squares of such gradients are zero in float32.
    weight, images = weights(), torch.full((2, 3, 6, 6), 0.5)
    bias = -70.0 - float(0.5 * weight.sum())
    adv = pgd(Linear(weight, bias), images, torch.tensor([0, 0]), L2(0.5), steps=1, step_size=0.5)
    assert worst(adv, images.double() + 0.5 * weight.double() / weight.double().norm()) <= 48 * U


@pytest.mark.parametrize("beside", [0, 1, 499])
def test_gradients_are_those_of_the_summed_loss(beside):
    weight, images = weights(), images_between(0.2, 0.8, n=1 + beside)
    labels = torch.randint(2, (1 + beside,), generator=torch.Generator().manual_seed(0))
    threat = Watched(0.5)
    pgd(Linear(weight), images, labels, threat, steps=1, step_size=0.1)
    probability = torch.sigmoid((images.double() * weight.double()).flatten(1).sum(1))
    expected = (probability - labels.double()).view(-1, 1, 1, 1) * weight.double()
    # The logit sums 108 products below 3 in size; its error of 108 * 3 U passes the sigmoid with slope 1/4 and is
    # multiplied by a weight below 4. A mean over the batch would be off by a factor of its size.
    (gradient,) = threat.gradients
    assert worst(gradient, expected) <= 108 * 3 * U


def test_an_image_at_the_end_of_float32_moves_alike_alone_and_in_a_batch():
    # exp(-100) is among the smallest numbers of float32: divided by a batch size it would be zero, and the image
    # would stay where it is.
    weight = weights().sign()
    images = torch.full((500, 3, 6, 6), 0.5)
    model = Linear(weight, bias=-100.0 - float(0.5 * weight.sum()))
    labels = torch.zeros(500, dtype=torch.int64)
    whole = pgd(model, images, labels, L2(0.5), steps=1, step_size=0.5)
    alone = pgd(model, images[:1], labels[:1], L2(0.5), steps=1, step_size=0.5)
    expected = images[:1].double() + 0.5 * weight.double() / weight.double().norm()
    assert worst(alone, expected) <= 48 * U
    assert worst(whole, expected.expand(500, -1, -1, -1)) <= 48 * U


def smooth_network() -> Classifier:
    """A convolutional network without maxima: rounding moves its gradient continuously."""
    torch.manual_seed(0)
    features = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.GELU(), nn.Conv2d(12, 12, 3, stride=2), nn.GELU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    return Classifier(features, nn.Linear(12, 10)).eval()


@pytest.mark.parametrize("kind", ["smooth", "resnet9"])
@pytest.mark.parametrize("threat", [L2(0.5), L2(0.05)], ids=str)
def test_an_image_alone_and_in_a_batch_of_500_gives_the_same_adversarial_image(kind, threat):
    model = smooth_network() if kind == "smooth" else build_model("resnet9", width=4, seed=0)
    model = freeze(model, dtype=torch.float32)
    generator = torch.Generator().manual_seed(4)
    images = torch.rand((500, 3, 12, 12), generator=generator)
    labels = torch.randint(10, (500,), generator=generator)
    steps, step_size = 4, threat.eps / 3
    whole = pgd(model, images, labels, threat, steps=steps, step_size=step_size, targeted=True)
    rows = [0, 1, 17, 250, 499]
    alone = torch.cat(
        [
            pgd(model, images[r : r + 1], labels[r : r + 1], threat, steps=steps, step_size=step_size, targeted=True)
            for r in rows
        ]
    )
    # Two batch sizes take two orders of summation. Forward and backward pass at most 18 layers, whose sums of at most
    # 300 products are off by sqrt(300) U each (roundings are as often up as down): a gradient is off by 312 U of
    # its length, two differ by twice that, and so do two normalised steps, relative to their length. Over the steps
    # the errors add, and curvature may double them. Pixels themselves are rounded by U per operation.
    assert worst(alone, whole[rows]) <= 2 * steps * step_size * 2 * 312 * U + 4 * steps * U


def test_bfloat16_network_gives_float32_images_inside_the_ball():
    model = freeze(build_model("resnet9", width=4, seed=0), dtype=torch.bfloat16)
    images, labels = images_between(0, 1, n=6, size=12), torch.arange(6)
    adv = pgd(model, images, labels, L2(0.5), steps=3, step_size=0.3)
    assert adv.dtype == torch.float32
    assert float((adv.double() - images.double()).flatten(1).norm(dim=1).max()) <= 0.5 * (1 + 1e-5)
    assert float(adv.min()) >= 0
    assert float(adv.max()) <= 1


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(0, 2**31), st.sampled_from([L2(0.4), Linf(0.05)]), st.booleans())
def test_permuting_and_splitting_the_batch(count, seed, threat, targeted):
    generator = torch.Generator().manual_seed(seed)
    model = Linear(weights())
    images = torch.rand((count, 3, 6, 6), generator=generator)
    labels = torch.randint(2, (count,), generator=generator)
    order = torch.randperm(count, generator=generator)
    cut = int(torch.randint(count + 1, (), generator=generator))
    numbers = {"steps": 3, "step_size": threat.eps / 2, "targeted": targeted}
    whole = pgd(model, images, labels, threat, **numbers)
    # The model multiplies and sums each image on its own, so nothing but the batch could make a difference: the
    # gradients agree up to the summation of 108 products, the images to the bound of a step.
    bound = 3 * 48 * U
    assert worst(pgd(model, images[order], labels[order], threat, **numbers), whole[order]) <= bound
    pieces = [pgd(model, images[rows], labels[rows], threat, **numbers) for rows in (slice(cut), slice(cut, None))]
    assert worst(torch.cat(pieces), whole) <= bound
    assert torch.equal(pgd(model, images, labels, threat, **numbers), whole)


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.1)], ids=str)
def test_attacked_images_stay_in_ball_and_box(threat):
    model = freeze(build_model("resnet9", width=4, seed=2), dtype=torch.float32)
    images = images_between(0, 1, n=8, size=12)
    start = torch.Generator().manual_seed(0)
    adv = pgd(model, images, torch.arange(8), threat, steps=5, step_size=threat.eps, generator=start)
    exact = (adv.double() - images.double()).flatten(1)
    distance = exact.norm(dim=1) if isinstance(threat, L2) else exact.abs().amax(1)
    assert float(distance.max()) <= threat.eps * (1 + 1e-5)
    assert worst(threat.distance(adv, images), distance) <= 1e-5 * threat.eps
    assert float(adv.min()) >= 0
    assert float(adv.max()) <= 1


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.1)], ids=str)
def test_random_start_is_inside_the_ball_and_reproducible(threat):
    images = images_between(0, 1, n=50)
    draws = [threat.random_start(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert float(threat.distance(draws[0].double(), images.double()).max()) <= threat.eps * (1 + 1e-5)
    assert float(draws[0].min()) >= 0
    assert float(draws[0].max()) <= 1
    model = Linear(weights())
    labels = torch.zeros(50, dtype=torch.int64)
    runs = [
        pgd(model, images, labels, threat, steps=2, step_size=0.01, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    no_step = pgd(model, images, labels, threat, steps=0, step_size=0.01, generator=torch.Generator().manual_seed(0))
    assert torch.equal(no_step, draws[0])


@pytest.mark.parametrize("threat", [L2(0.3), Linf(0.3)], ids=str)
def test_random_start_is_uniform_in_the_ball(threat):
    count, dimensions = 2000, 12
    images = torch.full((count, 3, 2, 2), 0.5)
    offset = (threat.random_start(images, torch.Generator().manual_seed(0)) - 0.5).double().flatten(1)
    if isinstance(threat, L2):
        # A ball of radius r holds the share (r / eps)**d of the volume, so that share is uniform on [0, 1].
        share = (offset.norm(dim=1) / threat.eps) ** dimensions
    else:
        share = (offset / threat.eps / 2 + 0.5).flatten()
    expected = (torch.arange(len(share)) + 0.5) / len(share)
    # Kolmogorov and Smirnov: the largest gap exceeds 1.95 / sqrt(n) for one sample in a thousand.
    assert float((share.sort().values - expected).abs().max()) < 1.95 / math.sqrt(len(share))


@pytest.mark.parametrize("threat", [L2(0.2), Linf(0.03)], ids=str)
def test_an_attack_in_two_pieces_is_the_attack(threat):
    # Catches a ball drawn around the start instead of the image: the second piece would leave the first one's ball.
    model, images = freeze(build_model("cnn4", width=8, seed=3), dtype=torch.float32), images_between(0, 1, 6, size=32)
    labels, size = torch.arange(6), 0.6 * threat.eps
    whole = pgd(model, images, labels, threat, steps=5, step_size=size)
    half = pgd(model, images, labels, threat, steps=2, step_size=size)
    before = half.clone()
    assert torch.equal(pgd(model, images, labels, threat, steps=3, step_size=size, start=half), whole)
    assert torch.equal(half, before), "the start must stay as it was"


def test_two_places_to_begin_are_refused():
    images = images_between(0, 1, 2)
    arguments = {"generator": torch.Generator(), "start": images}
    with pytest.raises(ValueError, match="generator and start"):
        pgd(Linear(weights()), images, torch.zeros(2).long(), L2(0.1), steps=1, step_size=0.1, **arguments)


@pytest.mark.parametrize("threat", [L2(0.4), Linf(0.1)], ids=str)
def test_fgsm_is_one_step_of_the_full_radius(threat):
    model = freeze(build_model("resnet9", width=4, seed=1), dtype=torch.float32)
    images, labels = images_between(0, 1, n=4, size=12), torch.arange(4)
    one = pgd(model, images, labels, threat, steps=1, step_size=threat.eps)
    assert torch.equal(fgsm(model, images, labels, threat), one)


def test_fgsm_of_a_linear_model_is_in_closed_form():
    weight, images = weights(), images_between(0, 1, n=3)
    adv = fgsm(Linear(weight), images, torch.tensor([0, 0, 1]), Linf(0.1))
    sign = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64).view(3, 1, 1, 1)
    assert worst(adv, (images.double() + sign * 0.1 * weight.double().sign()).clamp(0, 1)) <= 4 * U


@pytest.mark.parametrize("threat", [L2(0.0), Linf(0.0)], ids=str)
def test_radius_zero_returns_a_copy_of_the_images(threat):
    images, labels = images_between(0, 1, n=3), torch.tensor([0, 0, 1])
    for adv in (
        fgsm(Linear(weights()), images, labels, threat),
        pgd(Linear(weights()), images, labels, threat, steps=2, step_size=0.1),
        pgd(Linear(torch.zeros(3, 6, 6)), images, labels, threat, steps=2, step_size=0.1),  # and without a gradient
    ):
        assert torch.equal(adv, images)
        assert adv.data_ptr() != images.data_ptr()


def test_the_attack_leaves_model_and_images_as_they_were():
    model = Linear(weights())
    images, labels = images_between(0, 1, n=3), torch.tensor([0, 0, 1])
    before = images.clone()
    with torch.no_grad():  # measurements often run in such a block
        adv = pgd(model, images, labels, L2(0.5), steps=2, step_size=0.2)
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert not adv.requires_grad
    assert not torch.equal(adv, images)
    assert model.weight.grad is None
    assert model.weight.requires_grad


def test_training_mode_is_refused():
    model = build_model("resnet9", width=4).train()
    with pytest.raises(ValueError, match="training mode"):
        pgd(model, images_between(0, 1, n=2, size=12), torch.tensor([0, 1]), L2(0.5), steps=1, step_size=0.1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": -1}, "steps must be 0 or more, got -1"),
        ({"step_size": 0.0}, "step_size must be positive, got 0.0"),
        ({"step_size": -0.1}, "step_size must be positive, got -0.1"),
        ({"step_size": math.nan}, "step_size must be positive, got nan"),
    ],
)
def test_bad_arguments_are_named(changes, named):
    numbers = {"steps": 1, "step_size": 0.1} | changes
    with pytest.raises(ValueError, match=named):
        pgd(Linear(weights()), images_between(0, 1, n=2), torch.tensor([0, 1]), L2(0.5), **numbers)


def test_images_and_labels_must_have_one_length():
    # Outside of the tests nobody checks the annotations, so the library has to.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match="2 images but 1 labels"):
            pgd(Linear(weights()), images_between(0, 1, n=2), torch.tensor([0]), L2(0.5), steps=1, step_size=0.1)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("kind", [L2, Linf])
@pytest.mark.parametrize("eps", [-0.1, math.nan])
def test_threats_refuse_a_bad_radius(kind, eps):
    with pytest.raises(ValueError, match="at most 1, the whole range of a pixel, got 8"):
        Linf(8)
    with pytest.raises(ValueError, match="eps must be 0 or more"):
        kind(eps)


def test_threats_say_what_they_are():
    assert str(L2(0.5)) == "l2 eps=0.5"
    assert str(Linf(0.03)) == "linf eps=0.03"
    assert L2(0.5) == L2(0.5) != Linf(0.5)


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.1)], ids=str)
@pytest.mark.parametrize("steps", [1, 3])
def test_a_gradient_that_is_not_finite_raises(threat, steps):
    class Broken(Linear):
        def forward(self, images):
            spoiled = torch.where(images.mean((1, 2, 3), keepdim=True) > 0.9, math.nan, 1.0)
            return super().forward(images * spoiled)

    images = torch.cat([images_between(0, 0.5, n=3), torch.ones(1, 3, 6, 6)])
    with pytest.raises(FloatingPointError, match="1 of 4 images"):
        pgd(Broken(weights()), images, torch.zeros(4, dtype=torch.int64), threat, steps=steps, step_size=0.01)


class Unmarked(FrozenClassifier):
    """A subclass, which the loop does not know, so that it goes in through the images."""


@pytest.mark.parametrize("name", ["cnn4", "resnet9"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("attack", ["l2", "linf", "match"])
def test_entering_behind_the_normalisation_gives_the_bits_of_entering_through_it(name, dtype, attack):
    frozen = freeze(build_model(name, width=4, seed=1), dtype=dtype)
    whole = Unmarked(frozen.features, frozen.head, logit_scale=frozen.logit_scale).eval()
    images = images_between(0, 1, n=5, size=16)
    for model in (frozen, whole):
        # Whoever leaves the chain rule out, or normalises images that are a step old, ends elsewhere.
        model.std.copy_(torch.tensor([0.05, 0.25, 0.5]).view(1, 3, 1, 1))
    results = []
    for model in (frozen, whole):
        if attack == "match":
            target = model.representation(images.flip(0)).detach()
            results.append(match_representation(model, images, target, steps=3, step_size=0.3))
        else:
            threat = L2(0.4) if attack == "l2" else Linf(0.05)
            results.append(pgd(model, images, torch.arange(5), threat, steps=3, step_size=threat.eps / 2))
    assert torch.equal(*results)
    assert not torch.equal(results[0], images)


def test_a_target_that_belongs_to_a_graph_leaves_no_graph_behind():
    model = build_model("resnet9", width=4).eval()
    images = images_between(0, 1, n=2, size=12)
    target = model.representation(images.flip(0))
    assert target.requires_grad
    assert not match_representation(model, images, target, steps=2, step_size=0.1).requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_result_lies_in_memory_as_the_images_do():
    frozen = freeze(build_model("resnet9", width=4), dtype=torch.float32)
    images = images_between(0, 1, n=2, size=12)
    for order in (torch.contiguous_format, torch.channels_last):
        given = images.contiguous(memory_format=order)
        adv = pgd(frozen, given, torch.arange(2), L2(0.5), steps=2, step_size=0.3)
        assert adv.stride() == given.stride()


class Projection(Classifier):
    """The representation W · image, with orthonormal rows in W; asking for logits fails."""

    def __init__(self, rows: int = 4, size: int = 6) -> None:
        super().__init__(nn.Identity(), nn.Linear(1, 1))
        draw = torch.randn((3 * size * size, rows), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.matrix = torch.linalg.qr(draw).Q.T.contiguous()
        self.eval()

    def representation(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.matrix.float().T

    def forward(self, _: Tensor) -> Tensor:
        pytest.fail("matching needs no logits")


def test_matching_a_linear_representation_walks_straight_at_it():
    model, start = Projection(), images_between(0.4, 0.6, n=3)
    # Targets at distances 1, 2 and 3; steps of 0.05 that do not reach them. The gradient of the distance is W'u with u
    # the unit vector to the target: its length is 1 at any distance and for any length of the target.
    unit = nn.functional.normalize(torch.randn((3, 4), generator=torch.Generator().manual_seed(5)), dim=1).double()
    here = start.double().flatten(1) @ model.matrix.T
    target = here + unit * torch.tensor([[1.0], [2.0], [3.0]])
    found = match_representation(model, start, target.float(), steps=6, step_size=0.05)
    expected = start.double() + 0.3 * (unit @ model.matrix).view_as(start)
    # A representation sums 108 products below 1 and is compared with targets below 4, one step after the other; the
    # direction is off by that error over a distance of at least 0.7, in each of six steps of 0.05.
    assert worst(found, expected) <= 6 * (0.05 * (108 + 4) * U / 0.7 + 4 * U)
    assert found.dtype == torch.float32


def test_a_matched_image_stays_in_the_box_and_no_ball_holds_it():
    model = Projection()
    start = images_between(0, 1, n=2)
    target = model.representation(start) + 100
    found = match_representation(model, start, target, steps=30, step_size=0.5)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert float((found - start).flatten(1).norm(dim=1).min()) > 1
    # Where the box stops nothing, a single step has its length however long it is.
    inside = torch.full((1, 3, 6, 6), 0.5)
    far = match_representation(model, inside, model.representation(inside) + 1, steps=1, step_size=0.4)
    assert abs(float((far - inside).double().norm()) - 0.4) <= 48 * U


def test_an_image_that_is_there_already_and_a_zero_target_are_matched():
    model = Projection()
    start = images_between(0.3, 0.7, n=2)
    arrived = match_representation(model, start, model.representation(start), steps=3, step_size=0.1)
    assert torch.equal(arrived, start)
    # Divided by the norm of a target that is zero, the distance would be infinite.
    before = model.representation(start).norm(dim=1)
    after = model.representation(match_representation(model, start, torch.zeros(2, 4), steps=2, step_size=0.05)).norm(
        dim=1
    )
    assert worst(after, before - 0.1) <= 2 * (108 + 48) * U


def test_matching_leaves_its_inputs_alone_and_starts_from_where_it_is_told():
    model = Projection()
    start, target = images_between(0, 1, n=2), torch.ones(2, 4)
    copies = start.clone(), target.clone()
    with torch.no_grad():
        assert torch.equal(match_representation(model, start, target, steps=0, step_size=0.1), start)
        found = match_representation(model, start, target, steps=2, step_size=0.1)
    assert torch.equal(start, copies[0])
    assert torch.equal(target, copies[1])
    assert not found.requires_grad
    again = match_representation(model, match_representation(model, start, target, steps=1, step_size=0.1), target,
                                 steps=1, step_size=0.1)  # fmt: skip
    assert torch.equal(again, found)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": -1}, "steps must be 0 or more, got -1"),
        ({"step_size": 0.0}, "step_size must be positive, got 0.0"),
    ],
)
def test_bad_arguments_of_matching_are_named(changes, named):
    numbers = {"steps": 1, "step_size": 0.1} | changes
    with pytest.raises(ValueError, match=named):
        match_representation(Projection(), images_between(0, 1, n=2), torch.zeros(2, 4), **numbers)


def test_matching_refuses_training_mode_and_missing_targets():
    with pytest.raises(ValueError, match="training mode"):
        match_representation(Projection().train(), images_between(0, 1, n=2), torch.zeros(2, 4), steps=1, step_size=0.1)
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match="2 images but 1 targets"):
            match_representation(Projection(), images_between(0, 1, n=2), torch.zeros(1, 4), steps=1, step_size=0.1)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_a_target_that_is_not_finite_raises():
    target = torch.zeros(3, 4)
    target[1, 2] = math.nan
    with pytest.raises(FloatingPointError, match="1 of 3 images"):
        match_representation(Projection(), images_between(0, 1, n=3), target, steps=2, step_size=0.1)


def test_the_usual_step_size_needs_a_step():
    assert usual_step_size(L2(0.5), 5) == 0.25
    for steps in (0, -1):
        with pytest.raises(ValueError, match=f"steps must be 1 or more, got {steps}"):
            usual_step_size(L2(0.5), steps)
