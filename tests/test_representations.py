"""Paths, excited units and matched units, on networks whose answer is known."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from advfeat.attacks import gray_noise
from advfeat.models import Classifier, build_model
from advfeat.representations import detour, excite, interpolate, match_distance, matched_units, relative_distance

pytestmark = pytest.mark.numbers

SIZE = 4
COUNT = 3 * SIZE * SIZE


class Square(nn.Module):
    """Each value squared: invertible on positive values, and not linear."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.square()


def network(*layers: nn.Module) -> Classifier:
    """A network without a scale of its own: its representation is that of the pixels themselves."""
    model = Classifier(nn.Sequential(nn.Flatten(), *layers), nn.Linear(COUNT, 2)).eval().requires_grad_(False)
    model.mean.zero_()
    model.std.fill_(1.0)
    return model


def pictures(n: int, seed: int = 0) -> Tensor:
    return 0.2 + 0.6 * torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


# Interpolation


def test_in_a_linear_representation_the_path_is_the_mixture():
    """The start is the answer, so nothing moves. Fails for fractions that run the other way, for mixed-up pairs."""
    left, right = pictures(3, 1), pictures(3, 2)
    path = interpolate(network(), left, right, points=5, steps=4, step_size=0.01)
    assert torch.equal(path[0], left)
    assert torch.equal(path[-1], right)
    for index in range(5):
        # The search may leave by a step or two where rounding makes a gradient out of nothing.
        assert (path[index] - torch.lerp(left, right, index / 4)).flatten(1).norm(dim=1).max() <= 0.02


def test_the_path_is_straight_in_the_representation_not_in_the_pixels():
    """Squares half-way between those of two values belong to their root mean square, not to their mean."""
    left, right = pictures(2, 1), pictures(2, 2)
    path = interpolate(network(Square()), left, right, points=3, steps=400, step_size=0.002)
    expected = ((left.square() + right.square()) / 2).sqrt()
    # Steps of fixed length end within about one step of the goal.
    assert (path[1] - expected).flatten(1).norm(dim=1).max() < 0.01
    assert ((left + right) / 2 - expected).flatten(1).norm(dim=1).min() > 0.1


def test_two_points_are_the_two_images():
    left, right = pictures(2, 1), pictures(2, 2)
    assert torch.equal(
        interpolate(network(), left, right, points=2, steps=5, step_size=0.1), torch.stack([left, right])
    )
    with pytest.raises(ValueError, match="points must be 2 or more, got 1"):
        interpolate(network(), left, right, points=1, steps=5, step_size=0.1)


def test_a_network_in_training_mode_is_refused_before_it_sees_an_image():
    model = build_model("cnn4", width=8, seed=0).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    ends = torch.rand((2, 3, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="training mode"):
        interpolate(model, *ends, points=2, steps=1, step_size=0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_strays_and_strides_of_known_paths():
    straight = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
    bent = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 2.0], [3.0, 2.0], [4.0, 0.0]])
    late = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [4.0, 0.0]])
    straying, stride = detour(torch.stack([straight, bent, late], dim=1))
    # bent: every inner point is 2 off, of a span of 4. late: 1, 2 and 3 off, then one jump over the whole span.
    assert straying.tolist() == pytest.approx([0.0, 0.5, 0.5])
    assert stride.tolist() == pytest.approx([0.25, 5**0.5 / 4, 1.0])
    again = detour(7 + 3 * torch.stack([straight, bent, late], dim=1))
    assert torch.allclose(again[0], straying, atol=1e-6)
    assert torch.allclose(again[1], stride, atol=1e-6)


def test_paths_without_an_inside_or_a_span_are_refused():
    with pytest.raises(ValueError, match="three points or more, got 2"):
        detour(torch.rand(2, 1, 3))
    with pytest.raises(ValueError, match="the ends of 1 of 2 paths coincide"):
        detour(torch.stack([torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([[0.0] * 3, [1.0] * 3])]))


# Excitation


def linear_units() -> tuple[Classifier, Tensor]:
    layer = nn.Linear(COUNT, 5, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(5, COUNT, generator=torch.Generator().manual_seed(3)))
    return network(layer), layer.weight.detach()


def test_each_image_moves_along_the_filter_of_its_own_unit():
    """Fails for a descent, for one unit for all images, for steps that depend on the size of the gradient."""
    model, weights = linear_units()
    start, units = pictures(3), torch.tensor([4, 0, 2])
    found = excite(model, start, units, steps=6, step_size=0.02)
    way = weights[units] / weights[units].norm(dim=1, keepdim=True)
    # 0.12 along a unit vector moves no pixel by 0.2, so none reaches the edge.
    assert ((found - start).flatten(1) - 0.12 * way).abs().max() < 1e-6


def test_a_unit_stops_at_its_ceiling_and_one_above_it_does_not_move():
    model, weights = linear_units()
    start, units = pictures(4), torch.tensor([0, 1, 2, 3])
    now = model.representation(start).gather(1, units[:, None])[:, 0]
    length = weights[units].norm(dim=1)
    ceiling = now + torch.tensor([-1.0, 0.03, 0.05, 100.0]) * length
    assert torch.equal(excite(model, start, units, steps=1, step_size=0.02, ceiling=now), start), "at it already"
    found = excite(model, start, units, steps=8, step_size=0.02, ceiling=ceiling)
    moved = (found - start).flatten(1).norm(dim=1)
    # Two steps pass 0.03, three pass 0.05; a hundred is never reached.
    assert torch.equal(found[0], start[0])
    assert moved[1:].tolist() == pytest.approx([0.04, 0.06, 0.16], abs=1e-5)


def test_pixels_stay_in_the_box_and_the_start_is_left_alone():
    model, _ = linear_units()
    start = pictures(2)
    before = start.clone()
    found = excite(model, start, torch.tensor([0, 1]), steps=50, step_size=0.5)
    assert found.min() == 0
    assert found.max() == 1
    assert torch.equal(start, before)


def test_bad_searches_are_refused():
    model, _ = linear_units()
    units = torch.tensor([0])
    for steps, step_size, named in ((-1, 0.1, "steps must .*got -1"), (1, 0.0, "step_size must .*got 0.0")):
        with pytest.raises(ValueError, match=named):
            excite(model, pictures(1), units, steps=steps, step_size=step_size)
    with pytest.raises(ValueError, match="training mode"):
        excite(model.train(), pictures(1), units, steps=1, step_size=0.1)


# Judges


def test_units_find_their_twins_whatever_order_scale_and_sign():
    """Fails for covariance in place of correlation, and where the strongest *negative* twin is taken."""
    draw = torch.Generator().manual_seed(1)
    first = torch.randn(300, 4, generator=draw)
    noise = 0.1 * torch.randn(300, 4, generator=draw)
    order = torch.tensor([2, 0, 3, 1])
    twins = (first + noise)[:, order] * torch.tensor([0.01, 5.0, 1.0, 100.0]) + 3
    second = torch.cat([-first, twins, torch.full((300, 1), 7.0)], dim=1)
    index, correlation = matched_units(first, second)
    assert index.tolist() == (4 + order.argsort()).tolist()
    assert correlation.min() > 0.98
    assert correlation.max() <= 1


def test_a_silent_unit_correlates_with_nothing():
    _, correlation = matched_units(torch.zeros(10, 2), torch.rand(10, 3, generator=torch.Generator().manual_seed(0)))
    assert correlation.tolist() == [0, 0]


def test_relative_distance_is_per_row_and_relative_to_the_target():
    found, target = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 5.0]])
    assert relative_distance(found, target).tolist() == pytest.approx([4 / 3, 1.0])
    assert relative_distance(found, torch.zeros(2, 2)).tolist() == pytest.approx([5.0, 0.0]), "to nothing: as it is"


def test_match_distance_is_that_of_the_representations_whatever_the_batch():
    model = build_model("cnn4", width=8, seed=0).eval()
    found, target = torch.rand((2, 5, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = relative_distance(model.representation(found), model.representation(target))
    assert float(expected.min()) > 0.01
    for batch_size in (2, 500):
        distance = match_distance(model, found, target, batch_size=batch_size)
        assert torch.allclose(distance, expected, rtol=1e-4)
    assert not match_distance(model, target, target).any()
    with pytest.raises((ValueError, TypeCheckError)):  # the second where shapes are checked, as in these tests
        match_distance(model, found[:1], target)


def test_gray_noise_is_gray_with_a_little_noise():
    noise = gray_noise((50, 3, 32, 32), torch.Generator().manual_seed(0))
    count = noise.numel()
    # Clamping is ten standard deviations away.
    assert abs(noise.double().mean() - 0.5) < 5 * 0.05 / count**0.5
    assert abs(noise.double().std() - 0.05) < 5 * 0.05 / (2 * count) ** 0.5
    assert torch.equal(noise, gray_noise((50, 3, 32, 32), torch.Generator().manual_seed(0)))
