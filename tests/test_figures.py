"""Figures of single chapters show the numbers they were given."""

from __future__ import annotations

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.container import ErrorbarContainer

from advfeat.bench import convolutions
from advfeat.estimates import Estimate
from advfeat.experiments.record_writing import save_record
from advfeat.experiments.records import load_record
from advfeat.gaussian import Gaussians, alignment, multiplier, robust_mle, worst_alignment
from advfeat.pages import (
    engine_figures,
    feature_figures,
    fourier_figures,
    gaussian_figures,
    pictures,
    plots,
    relaxation_figures,
    representation_figures,
    training_figures,
)

pytestmark = pytest.mark.usefixtures("figures_in_style")


def rate(value):
    return Estimate(value, value - 0.05, value + 0.05, 100)


def drawn(axis):
    """Label → values of every labelled line."""
    return {line.get_label(): list(map(float, line.get_ydata())) for line in axis.lines}


def test_curves_stand_where_they_were_measured_and_diamonds_where_others_published():
    _, axis = plt.subplots()
    curves = {"a": {0.5: rate(0.9), 1: rate(0.4)}, "b": {0.5: rate(0.2)}}
    plots.accuracy_curves(axis, curves, published={"a": {1: 0.45}}, logarithmic=True, xlabel="steps")
    assert drawn(axis)["a"] == [0.9, 0.4]
    assert drawn(axis)["b"] == [0.2]
    diamonds = [line for line in axis.lines if line.get_marker() == "D"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in diamonds] == [([1], [0.45]), ([], [])]
    assert diamonds[0].get_color() == axis.lines[0].get_color()
    assert (axis.get_xscale(), axis.get_xlabel()) == ("log", "steps")
    assert list(axis.get_xticks()) == [0.5, 1]


def test_textures_and_their_correlations():
    textures, correlation = torch.rand(10, 3, 4, 4) / 20, torch.rand(10, 10) * 2 - 1
    figure = feature_figures.texture_correlation(textures, correlation, list("abcdefghij"))
    drawn_pictures = [axis for axis in figure.axes if axis.images]
    assert torch.allclose(torch.as_tensor(drawn_pictures[-1].images[0].get_array()).float(), correlation)
    assert [axis.get_title() for axis in drawn_pictures[:10]] == list("abcdefghij")
    second = torch.as_tensor(drawn_pictures[1].images[0].get_array())
    assert torch.allclose(second, pictures.amplified(textures[1], factor=12).permute(1, 2, 0))


def test_recorded_photographs_stand_above_both_answers(tmp_path, monkeypatch):
    # The answers of the other column, or those after the attack alone, would tell another story.
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path))
    about = {"values": {}, "seconds": {}, "config": {}, "provenance": {"commit": "c0ffee", "device": "a processor"}}
    answers = [{"before": "cat\n98%", "after": "dog\n70%"}, {"before": "owl\n60%", "after": "cat\n99%"}]
    save_record("01-chapter", "bare", seed=0, **about)
    assert feature_figures.attacked_sheet(load_record("01-chapter", "bare")) is None
    sheets, tables = {"attacked": torch.rand(3, 2, 3, 8, 8)}, {"attacked": answers}
    save_record("01-chapter", "small", seed=0, sheets=sheets, tables=tables, **about)
    (axis,) = feature_figures.attacked_sheet(load_record("01-chapter", "small")).axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cat\n98%\n↓\ndog\n70%", "owl\n60%\n↓\ncat\n99%"]
    assert len(axis.get_yticklabels()) == 3


def test_a_caption_of_two_lines_gets_their_room():
    images = torch.rand(1, 2, 3, 4, 4)
    one, two = (pictures.image_grid(images, captions=[[text, "a"]]).get_figheight() for text in ("a", "a\nb"))
    assert two > one > pictures.image_grid(images).get_figheight()


def test_the_reach_of_an_adversary_is_drawn_in_standard_deviations():
    values, positive = torch.tensor([3.0, 5.0, -1.0, -3.0]), torch.tensor([True, True, False, False])
    feature = {"ring": (torch.zeros(3, 4, 4), values)}
    figure = feature_figures.feature_histograms(feature, positive, eps=0.5, names=("yes", "no"), factors=(9,))
    (reach,) = figure.axes[1].lines
    # The middle is 1; the classes lie 2, 4, 2 and 4 from it, so the variance about it is 10.
    assert list(reach.get_xdata()) == pytest.approx([0, -0.5 / 10**0.5], abs=1e-6)


def test_measured_and_true_places_are_joined():
    rows = [(0.8, -2.0, rate(0.7), rate(0.6))]
    figure = feature_figures.truth_plane({"shapes": (rows, (0, 1)), "textures": (rows, (-2.5, 1))})
    for axis in figure.axes:
        joined = [line for line in axis.lines if list(line.get_xdata()) == [0.7, 0.8]]
        assert [list(line.get_ydata()) for line in joined] == [[0.6, -2.0]]
    assert [axis.get_title() for axis in figure.axes] == ["shapes", "textures"]


def test_weights_are_drawn_as_paths_and_as_shares():
    path = torch.tensor([[0.3, 0.3], [0.6, 0.8]])
    figure = feature_figures.weight_paths({0.5: path}, [0.0, 0.5], torch.tensor([[0.6, 0.8], [1.0, 0.0]]))
    left, right = figure.axes
    assert drawn(left)["ε = 0.5"] == pytest.approx([0.3, 0.8])
    assert drawn(right)["texture"] == pytest.approx([0.64, 0.0])
    assert drawn(right)["shape"] == pytest.approx([0.36, 1.0])


@pytest.mark.parametrize("follows", [{}, {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([1.0, 0.5])}])
def test_units_have_a_point_each_and_a_colour_where_it_is_known(follows):
    plane = [torch.tensor([0.5, 0.6]), torch.tensor([0.1, -0.2])]
    figure = feature_figures.unit_planes({"a": plane, "b": plane}, follows)
    points = [axis.collections[-1] for axis in figure.axes[:2]]
    assert points[0].get_offsets().ravel().tolist() == pytest.approx([0.5, 0.1, 0.6, -0.2])
    assert len(figure.axes) == (3 if follows else 2)
    if follows:
        assert list(points[1].get_array()) == [1.0, 0.5]


def test_every_class_has_its_panel_and_what_lies_too_low_is_drawn_at_the_edge():
    rho, gamma = torch.arange(20.0).view(10, 2) / 20, torch.full((10, 2), -9.0)
    planes = {"standard": (rho, gamma), "robust": (rho, -gamma)}
    figure = feature_figures.class_planes(planes, list("abcdefghij"), title="t")
    third = figure.axes[2]
    assert third.get_title() == "c"
    assert third.collections[0].get_offsets().ravel().tolist() == pytest.approx([0.2, -4, 0.25, -4])


def test_each_judge_has_its_own_rates():
    found = {"from noise": {"robust": [rate(0.1), rate(0.9)], "standard": [rate(0.3), rate(0.4)]}}
    figure = representation_figures.recognised_by({**found, "other": found["from noise"]}, ["start", "end"])
    bars = [item for item in figure.axes[0].containers if isinstance(item, ErrorbarContainer)]
    assert [list(bar[0].get_ydata()) for bar in bars] == [[0.1, 0.9], [0.3, 0.4]]


def test_trainings_have_a_line_by_epoch_and_a_gap_where_nobody_looked():
    # An epoch whose accuracy under attack was not measured keeps its place: the next one must not move up.
    rows = [
        {"accuracy": 0.1, "test_accuracy": 0.2},
        {"accuracy": 0.3, "test_accuracy": 0.4, "robust_test_accuracy": 0.9},
    ]
    figure = training_figures.accuracy_by_epoch({"standard": rows, "robust": rows[::-1]})
    ordinary, attacked = map(drawn, figure.axes)
    assert ordinary == {"standard": [0.2, 0.4], "robust": [0.4, 0.2]}
    assert attacked["standard"] == pytest.approx([float("nan"), 0.9], nan_ok=True)
    assert attacked["robust"] == pytest.approx([0.9, float("nan")], nan_ok=True)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim() == (-0.02, 1.02)

    axis = training_figures.overfitting(rows, rows[::-1], best=2).axes[0]
    lines = drawn(axis)
    assert lines["attacked training images"] == [0.1, 0.3]
    assert lines["control, ordinary test images"] == [0.4, 0.2]
    assert list(axis.lines[-1].get_xdata()) == [2, 2]


def test_recorded_trainings_have_a_panel_each_of_their_own_series():
    keys = ("accuracy", "test_accuracy", "robust_test_accuracy")
    series = {f"{name}/{key}": [10 * k + j] for k, name in enumerate("ba") for j, key in enumerate(keys)}
    figure = training_figures.recorded_trainings(series, title="t")
    assert [axis.get_title() for axis in figure.axes] == ["b (t)", "a (t)"]
    assert list(drawn(figure.axes[0]).values()) == [[0], [1], [2]]
    assert drawn(figure.axes[1])["attacked test images"] == [12]
    assert [axis.get_ylabel() for axis in figure.axes] == ["accuracy", ""]


def test_a_curve_ends_where_the_record_does_and_its_checkpoint_has_its_colour():
    # Ids come sorted as text, which puts eps0.5 before clean and eps10 before eps2: the curve must follow the radii.
    names = ("eps10", "eps2", "clean")
    found = {f"training/eps0.5/{at}": rate(value) for at, value in zip(names, (0.1, 0.4, 0.9), strict=True)}
    found |= {"training/standard/clean": rate(0.95), "price/eps0.5": rate(0.05)}
    published = {"training/standard/clean": 0.96, "training/standard/eps2": 0.25, "training/eps1/clean": 0.5}
    axis = training_figures.beside_checkpoints(found, published, ["standard", "eps0.5"], title="t").axes[0]
    assert drawn(axis)["standard"] == [0.95]
    assert drawn(axis)["trained at ε = 0.5"] == [0.9, 0.4, 0.1]
    first, theirs, second, none = axis.lines[:4]
    assert list(second.get_xdata()) == [0, 2, 10]
    assert (list(theirs.get_xdata()), list(theirs.get_ydata())) == ([0, 2], [0.96, 0.25])
    assert list(none.get_xdata()) == []
    assert theirs.get_color() == first.get_color() != second.get_color()


def test_the_planted_features_are_drawn_apart_from_what_all_shapes_share():
    # A shape as it is would be too bright for its grey, and all of them would look alike.
    shapes, textures = torch.rand(3, 3, 4, 4), (torch.rand(3, 3, 4, 4) - 0.5) / 10
    figure = feature_figures.planted_features(shapes, textures, list("abc"))
    drawn_pictures = [torch.as_tensor(axis.images[0].get_array()) for axis in figure.axes]
    expected = (0.5 + shapes[1] - shapes.mean(0)).clamp(0, 1).permute(1, 2, 0)
    assert torch.allclose(drawn_pictures[1], expected, atol=1e-6)
    assert torch.allclose(drawn_pictures[3], (0.5 + textures[0]).permute(1, 2, 0), atol=1e-6)


def test_speeds_are_drawn_as_measured():
    row = {"contender": "art", "network": "resnet18", "ratio": 1.5, "pairs": 5, "lower": 1.2, "upper": 1.9}
    figure = engine_figures.contest({"user": [row, {**row, "pairs": 3}], "engine": []})
    shown = [list(line.get_xdata()) for line in figure.axes[0].lines]
    assert shown == [[1.2, 1.9], [1.5], [1.5], [1, 1]]  # quartiles only from five pairs on, and the dashed line

    series = {"steps": [10, 20], "images": [1, 2], "time_by_steps": [1, 2.1], "time_by_images": [1, 1.9]}
    figure = engine_figures.growth({**series, "memory_by_images": [1, 1]})
    assert drawn(figure.axes[0])["time"] == [1, 2.1]
    assert drawn(figure.axes[1])["memory"] == [1, 1]
    assert drawn(engine_figures.roofline([2, 0.9, 0.1, 0.05, 0.6]).axes[0])["update of the images"] == [0.05]

    figure = engine_figures.gate_errors({"first": (0.0, 1e-5), "second": (1e-7, 1e-6)})
    assert list(figure.axes[0].lines[0].get_xdata()) == [1e-9, 1e-7]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [1e-5, 1e-6]
    bars = engine_figures.parts_of_step({"a": 0.7, "b": -0.1, "c": 0.3}).axes[0].patches
    assert [bar.get_x() for bar in bars] == pytest.approx([0, 0.7, 0.7])
    assert [bar.get_width() for bar in bars] == pytest.approx([0.7, 0, 0.3])
    assert list(engine_figures.still_right([1.0, 0.5]).axes[0].lines[0].get_ydata()) == [1.0, 0.5]
    figure = engine_figures.steps_taken(torch.arange(2.0), {"r": torch.tensor([1.0, 0.25])})
    assert drawn(figure.axes[0])["r"] == [1.0, 0.25]


def test_a_tile_goes_through_its_transforms_and_layers_stand_at_their_rates():
    tile, edges = torch.rand(6, 6).double(), torch.rand(3, 3).double()
    of_outputs, of_filter, of_inputs = (
        torch.tensor(matrix, dtype=torch.float64)
        for matrix in (convolutions.OUTPUTS, convolutions.WEIGHTS, convolutions.INPUTS)
    )
    figure = engine_figures.minimal_filtering(tile, edges, (of_outputs, of_filter, of_inputs))
    shown = [torch.as_tensor(axis.images[0].get_array().data) for axis in figure.axes]
    assert [tuple(values.shape) for values in shown] == [(6, 6), (6, 6), (6, 6), (4, 4), (3, 3), (6, 6)]
    whole = torch.nn.functional.conv2d(tile[None, None], edges[None, None])[0, 0]
    for panel, values in ((0, tile), (3, whole), (4, edges)):
        squares = shown[panel].sign() * shown[panel].square()
        assert torch.allclose(squares, values / values.abs().max()), "the last panel is the convolution"
    inside, kernel = of_inputs @ tile @ of_inputs.T, of_filter @ edges @ of_filter.T
    product = (inside * kernel).sign() * ((inside * kernel).abs() / (inside * kernel).abs().max()).sqrt()
    assert torch.allclose(shown[2], product)

    rows = [
        {"name": "a", "direct_share": 0.5, "ours_share": 2.0},
        {"name": "b", "direct_share": 0.25, "ours_share": 1.0},
    ]
    axis = engine_figures.layer_rates({"one": rows, "two": rows[:1]}).axes[0]
    assert [list(line.get_xdata()) for line in axis.lines if line.get_marker() == "o"] == [[2.0], [1.0], [2.0]]
    assert [list(line.get_xdata()) for line in axis.lines if line.get_marker() == "s"] == [[0.5], [0.25], [0.5]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one  a", "one  b", "two  a"]


def test_maps_stand_on_one_scale_with_the_constant_at_zero_and_rings_where_they_are_marked():
    maps = {"a": torch.rand(4, 6).double() / 2, "b": torch.rand(4, 6).double()}
    marked = torch.zeros(4, 6, dtype=torch.bool)
    marked[0, 5] = marked[2, 3] = True
    figure = fourier_figures.heat_maps(maps, marked=marked, columns=2, title="t")
    first, second = figure.axes[:2]
    assert [axis.get_title() for axis in (first, second)] == ["a", "b"]
    for axis, errors in zip((first, second), maps.values(), strict=True):
        (image,) = axis.images
        assert torch.equal(torch.as_tensor(image.get_array()), errors)
        assert image.get_clim() == (0, float(maps["b"].max()))
        # The entry (2, 3) is the constant: its pixel is centred on 0, and rows go down.
        assert tuple(image.get_extent()) == (-3.5, 2.5, 1.5, -2.5)
        (rings,) = axis.lines
        assert {tuple(place) for place in rings.get_xydata().tolist()} == {(2, -2), (0, 0)}
    odd = fourier_figures.heat_maps({"a": torch.rand(5, 5)}, columns=2).axes[0]
    assert tuple(odd.images[0].get_extent()) == (-2.5, 2.5, 2.5, -2.5)
    assert not odd.lines


def test_spectra_are_shares_and_lines_stand_where_they_are_marked():
    panels = {"left": {"a": torch.tensor([3.0, 1.0])}, "right": {"b": torch.tensor([1.0, 1.0])}}
    figure = fourier_figures.radial_spectra(panels, marked=(1,))
    assert drawn(figure.axes[0])["a"] == [0.75, 0.25]
    assert drawn(figure.axes[1])["b"] == [0.5, 0.5]
    assert [list(axis.lines[0].get_xdata()) for axis in figure.axes] == [[1, 1], [1, 1]]


def test_rates_of_networks_stand_side_by_side_in_each_group():
    groups = {"none": {"x": rate(0.1), "y": rate(0.2)}, "fog": {"x": rate(0.5), "y": rate(0.9)}}
    (axis,) = fourier_figures.rates_by_network(groups, xlabel="corruption").axes
    bars = [item for item in axis.containers if isinstance(item, ErrorbarContainer)]
    assert [list(bar[0].get_ydata()) for bar in bars] == [[0.1, 0.5], [0.2, 0.9]]
    assert list(bars[0][0].get_xdata()) == pytest.approx([-0.055, 0.945])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["none", "fog"]
    assert axis.get_xlabel() == "corruption"


@pytest.fixture(scope="module")
def three():
    return Gaussians(torch.ones(3).double(), torch.diag(torch.tensor([3.0, 0.2, 0.7]).double()))


@pytest.fixture(scope="module")
def world():
    return Gaussians(torch.tensor([1.0, 0.3]).double(), torch.diag(torch.tensor([3.0, 0.2]).double()))


def test_the_price_and_the_deviations_are_those_of_the_robust_fit(three):
    left, right = relaxation_figures.price_and_deviation(three).axes
    line = left.lines[0]
    at = len(line.get_xdata()) // 2
    assert line.get_ydata()[at] == pytest.approx(multiplier(three.covariance, eps=float(line.get_xdata()[at])))
    eps = float(right.lines[1].get_xdata()[-1])
    exact = robust_mle(three, eps=eps).covariance.diagonal().sqrt()
    assert [line.get_ydata()[-1] for line in right.lines] == pytest.approx(exact.tolist())


def test_usefulness_and_accuracy_fall_as_the_formulas_say(world):
    x, y = world.sample(400, generator=torch.Generator().manual_seed(0))
    first = torch.tensor([1.0, 0.0]).double()
    right = gaussian_figures.two_classes(world, x, y, {"first": first, "second": first.flip(0)}).axes[1]
    assert drawn(right)["first"][0] == pytest.approx(world.usefulness(first, eps=0))
    axis = gaussian_figures.accuracy_by_radius(world, [0, 1], [0.8, 0.6], (0, 0.5, 1, 3)).axes[0]
    assert drawn(axis)["best linear rule"] == [0.8, 0.6]
    exact = [world.accuracy(robust_mle(world, eps=1).weights(), eps=radius) for radius in (0, 1)]
    assert drawn(axis)[r"fitted at $\epsilon=1$"] == pytest.approx(exact)
    figure = gaussian_figures.robust_fits(world, x, y, (0, 0.5, 1, 3))
    assert [axis.get_title().split("$")[1] for axis in figure.axes if axis.get_title()] == [
        rf"\epsilon={eps:g}" for eps in (0, 0.5, 1, 3)
    ]


def test_vulnerability_is_simulated_from_the_generator(three):
    def curves(seed):
        generator = torch.Generator().manual_seed(seed)
        figure = relaxation_figures.vulnerability_and_condition(three, price=8.0, generator=generator)
        lines = figure.axes[0].lines
        formula = [line for line in lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 1]
        return [list(line.get_ydata()) for line in formula], [float(line.get_ydata()[0]) for line in lines[1:6]]

    (formula, simulated), (again, other) = curves(0), curves(1)
    assert formula == again
    assert simulated != other
    # 20,000 points: the mean of a gain is off by a few percent of it at most.
    assert simulated == pytest.approx(other, rel=0.15)


def test_alignment_and_the_cost_of_the_relaxation_are_drawn_as_computed(world):
    wide, means, radii = world.covariance, torch.eye(2).double(), [0.0, 1.0]
    fitted = [robust_mle(Gaussians(means[0], wide), eps=eps).covariance for eps in radii]
    lines = torch.tensor([[alignment(mean, of) for of in fitted] for mean in means]).numpy()
    left = gaussian_figures.alignment_by_radius(wide, means, radii, lines).axes[0]
    assert drawn(left)["worst direction"] == pytest.approx([worst_alignment(of) for of in fitted])
    formula, equal, unequal = {"a": [1, 2], "b": [3, 4]}, {"a": [5], "b": [6]}, {"a": [7], "b": [8]}
    axis = relaxation_figures.relaxation_gaps([2, 20], formula, [2], equal, unequal).axes[0]
    assert [list(line.get_ydata()) for line in axis.lines] == [[1, 2], [5], [7], [3, 4], [6], [8]]
    distances = {(2, "attack_on_average"): torch.tensor([1.0, 0.5]), (2, "attack_each"): torch.tensor([1.0, 0.75])}
    axis = relaxation_figures.training_distances(distances).axes[0]
    assert [(line.get_linestyle(), list(line.get_ydata())) for line in axis.lines[:2]] == [
        ("-", [1.0, 0.5]),
        ("--", [1.0, 0.75]),
    ]
