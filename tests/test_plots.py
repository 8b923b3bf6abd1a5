"""Figures show the numbers they were given."""

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.container import ErrorbarContainer

from advfeat.estimates import Estimate
from advfeat.pages import pictures, plots

pytestmark = pytest.mark.usefixtures("figures_in_style")


def test_image_grid_draws_every_pixel_in_its_place():
    images = torch.rand(2, 3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    figure = pictures.image_grid(
        images, row_labels=["a", "b"], column_labels=["x", "y", "z"], captions=[list("123")] * 2
    )
    for number, axis in enumerate(figure.axes):
        drawn = torch.as_tensor(axis.images[0].get_array())
        assert torch.equal(drawn, images[number // 3, number % 3].permute(1, 2, 0))
        assert axis.images[0].get_interpolation() == "nearest"
    assert [axis.get_title() for axis in figure.axes] == ["x", "y", "z", "", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["a", "", "", "b", "", ""]
    assert figure.axes[4].get_xlabel() == "2"


@pytest.mark.parametrize("labels", [{"row_labels": ["a"]}, {"column_labels": ["a"]}, {"captions": [["a"]]}])
def test_image_grid_refuses_labels_that_do_not_fit(labels):
    with pytest.raises(ValueError, match=f"{next(iter(labels))} must have"):
        pictures.image_grid(torch.zeros(2, 3, 3, 4, 4), **labels)


def test_picture_sheet_labels_the_middle_of_each_row(tmp_path):
    picture = torch.rand(3 * 4, 8, 3, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    plt.imsave(tmp_path / "sheet.png", picture.numpy())
    (axis,) = pictures.picture_sheet(tmp_path / "sheet.png", ["a", "b", "c"], title="some").axes
    assert torch.allclose(torch.as_tensor(axis.images[0].get_array())[..., :3], picture, atol=1e-6)
    assert list(axis.get_yticks()) == [1.5, 5.5, 9.5]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    assert axis.get_title() == "some"


def test_amplified_is_grey_at_zero_and_scales_about_it():
    change = torch.tensor([0.0, 0.01, -0.01, 1.0]).view(4, 1, 1, 1).expand(4, 3, 1, 1)
    shown = pictures.amplified(change, factor=10)[:, 0, 0, 0]
    # 0.5 + 10 * 0.01: one rounding of the product and one of the sum, each below 2**-24.
    assert (shown - torch.tensor([0.5, 0.6, 0.4, 1.0])).abs().max() <= 2**-23


def test_the_plane_of_usefulness_shades_what_is_not_robust():
    _, axis = plt.subplots()
    plots.usefulness_plane(axis, lowest=-2.0)
    (shaded,) = axis.patches
    assert (shaded.get_y(), shaded.get_height()) == (-2.0, 2.0)
    diagonal, zero = axis.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    assert set(zero.get_ydata()) == {0}


def test_bars_curves_and_markers_stand_at_their_values():
    estimates = {"D": Estimate(0.9, 0.85, 0.93, 100), "D_rand": Estimate(0.0, 0.0, 0.04, 100)}
    figure, axis = plt.subplots()
    plots.accuracy_bars(axis, estimates, chance=0.1, paper={"D": 0.953})
    assert [patch.get_height() for patch in axis.patches] == [0.9, 0.0]
    (whiskers,) = next(part for part in axis.containers if isinstance(part, ErrorbarContainer)).lines[2]
    assert [[float(end) for end in part[:, 1]] for part in whiskers.get_segments()] == [
        pytest.approx([0.85, 0.93]),
        pytest.approx([0.0, 0.04]),
    ]
    lines = {line.get_label(): line for line in axis.lines}
    assert list(lines["paper"].get_ydata()) == [0.953]
    assert set(lines["chance"].get_ydata()) == {0.1}

    figure, axis = plt.subplots()
    plots.accuracy_curve(axis, [0.0, 0.5], list(estimates.values()), label="PGD")
    assert list(axis.lines[0].get_ydata()) == [0.9, 0.0]
    band = axis.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0.0, 0.93)

    figure, axis = plt.subplots()
    plots.learning_curves(axis, {"a": [0.1, 0.2, 0.3]}, ylabel="accuracy")
    assert list(axis.lines[0].get_xdata()) == [1, 2, 3]
    assert figure.axes[0].get_ylabel() == "accuracy"
    plots.learning_curves(axis, {"b": [0.1], "c": [0.2]}, ylabel="accuracy", colors=["red", "blue"])
    assert [line.get_color() for line in axis.lines[1:]] == ["red", "blue"]


def test_grouped_bars_stand_in_their_groups_and_at_their_values():
    low, high = Estimate(0.2, 0.1, 0.3, 100), Estimate(0.9, 0.85, 0.93, 100)
    _, axis = plt.subplots()
    groups = {"D": {"clean": high, "attacked": low}, "D_R": {"clean": low, "attacked": high}}
    plots.grouped_bars(axis, groups, paper={("D_R", "attacked"): 0.48})
    bars = {patch.get_x() + patch.get_width() / 2: patch.get_height() for patch in axis.patches}
    assert [bars[place] for place in sorted(bars)] == [0.9, 0.2, 0.2, 0.9]
    assert [round(place) for place in sorted(bars)] == [0, 0, 1, 1]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["D", "D_R"]
    (diamond,) = [line for line in axis.lines if line.get_marker() == "D"]
    assert list(diamond.get_ydata()) == [0.48]
    assert abs(diamond.get_xdata()[0] - max(bars)) <= 1e-12
    # Whichever bars have a published value, the legend names the diamond, once.
    assert [text.get_text() for text in axis.get_legend().get_texts()].count("paper") == 1
    with pytest.raises(ValueError, match="every group must hold clean, attacked"):
        plots.grouped_bars(axis, {**groups, "D_NR": {"clean": low}})


def test_a_matrix_of_rates_is_read_from_row_to_column():
    rates = [[Estimate(value, 0.0, 1.0, 9) for value in row] for row in ((1.0, 0.25), (0.004, 0.996))]
    _, axis = plt.subplots()
    plots.rate_matrix(axis, rates, ["a", "b"])
    written = {text.get_position(): text.get_text() for text in axis.texts}
    assert written == {(0, 0): "100", (1, 0): "25", (0, 1): "0", (1, 1): "100"}  # (column, row)
    assert axis.images[0].get_array().tolist() == [[1.0, 0.25], [0.004, 0.996]]
    assert axis.images[0].get_clim() == (0, 1)  # the same shade means the same rate in every matrix


def test_scattered_rates_stand_at_their_values_within_their_intervals():
    _, axis = plt.subplots()
    plots.rate_scatter(axis, {"a": (Estimate(0.4, 0.3, 0.6, 9), Estimate(0.8, 0.5, 0.9, 9))})
    (container,) = axis.containers
    assert container.get_label() == "a"
    assert container.lines[0].get_xydata().tolist() == [[0.4, 0.8]]
    spans = [line for collection in axis.collections for line in collection.get_segments()]
    assert sorted(segment.tolist() for segment in spans) == [[[0.3, 0.8], [0.6, 0.8]], [[0.4, 0.5], [0.4, 0.9]]]


def test_however_many_points_are_scattered_all_are_drawn():
    _, axis = plt.subplots()
    rate = Estimate(0.4, 0.3, 0.6, 9)
    plots.rate_scatter(axis, dict.fromkeys("abcdefghi", (rate, rate)))
    assert [container.get_label() for container in axis.containers] == list("abcdefghi")
