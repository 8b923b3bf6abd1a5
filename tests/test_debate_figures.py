"""The table of the comments' numbers, which leaves none out, and the figures of the debate."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import pytest
import torch

from advfeat.estimates import Estimate
from advfeat.pages import debate_figures, notebook

HALF = Estimate.of_rate(50, 100)


def entries():
    known = json.loads(notebook.PAPER.read_text())
    return {key: entry for key, entry in known.items() if entry.get("by") in debate_figures.COMMENTS}


def rows_of(table):
    return [line.strip("| ").split(" | ") for line in table.data.splitlines()[2:]]


def test_our_numbers_are_named_as_those_of_the_comments():
    named = debate_figures.recorded_names(["goh/rand", "made/up"])
    assert list(named) == ["debate/goh/rand", "debate/made/up"]
    assert named["debate/goh/rand"].startswith("Goh 2019")
    assert named["debate/made/up"] == "made, up"


def test_every_number_of_the_comments_is_in_one_of_the_two_tables():
    ours = {"goh/rand": HALF}
    compared = debate_figures.beside_the_comments(ours, data="made up")
    assert compared.data.startswith("| number | published | here: made up |")
    (leaked,) = rows_of(compared)
    assert "trained on D_rand" in leaked[0]
    assert leaked[1:] == ["23.5%", f"{HALF:.1%}"]
    rows = rows_of(debate_figures.without_ours(ours, {"": "not run"}))
    assert len(rows) + 1 == len(entries()) > 40
    assert all(row[2] == "not run" for row in rows)
    assert leaked[0] not in [row[0] for row in rows]
    second_hand = [row for row in rows if "(second-hand)" in row[1]]
    assert len(second_hand) == sum("second-hand" in entry["where"] for entry in entries().values())


def test_numbers_of_one_comment_and_one_attack_stand_together():
    places = [row[0].split(":")[0] for row in rows_of(debate_figures.without_ours({}, {"": "not run"}))]
    heads = [place for place, before in zip(places, [None, *places], strict=False) if place != before]
    assert len(heads) == len(set(heads))


def test_a_number_without_ours_and_without_a_reason_is_refused():
    reasons = {key: "because" for key in entries() if not key.startswith("goh/")}
    with pytest.raises(ValueError, match=r"no number of ours for goh/(rand|det)"):
        debate_figures.without_ours({}, reasons)
    with pytest.raises(ValueError, match=r"goh/rind is of none"):
        debate_figures.beside_the_comments({"goh/rind": HALF}, data="made up")


def test_bars_and_points_stand_at_the_values():
    figure = debate_figures.answers_bars({"one": (HALF, HALF)}, names=("label", "after"), chance=0.1)
    assert sorted(bar.get_width() for bar in figure.axes[0].patches) == [0.5, 0.5]
    figure = debate_figures.place_on_figure3({"one": (HALF, HALF)}, {"a": (0.2, 0.9)}, theirs="others")
    (rings,) = [line for line in figure.axes[0].lines if line.get_label() == "others"]
    assert (list(rings.get_xdata()), list(rings.get_ydata())) == ([0.2], [0.9])
    plt.close("all")


def test_features_below_the_frame_stand_on_its_edge_and_useless_ones_are_pale():
    far = torch.tensor([0.1, 0.5]), torch.tensor([-1000.0, -1000.0])
    figure = debate_figures.features_in_the_plane({"a": far, "b": far, "c": far}, threshold=0.2, lowest=-10)
    points = [line for line in figure.axes[0].lines if line.get_marker() in ("o", "s", "D")]
    assert {float(height) for line in points for height in line.get_ydata()} == {-10.0}
    named = {line.get_label(): line for line in points if line.get_label() in ("a", "b", "c")}
    assert [len(line.get_xdata()) for line in named.values()] == [1, 2, 2]
    pale = max(line.get_alpha() for line in points if line not in named.values())
    assert pale < min(line.get_alpha() for line in named.values())
    plt.close("all")


def test_curves_have_a_point_for_each_layer_radius_and_toy():
    figure = debate_figures.by_layer({"standard": [HALF] * 4, "robust": [HALF] * 3})
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [4, 3]
    figure = debate_figures.leakage({name: {0.0: HALF, 1.0: HALF} for name in ("D", "D_rand", "D_det")}, chance=0.1)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["D", "D_rand", "D_det"]
    panel = ("3", "10"), torch.tensor([1.0, 4.0]), [HALF, HALF]
    figure = debate_figures.superposition({"left": panel, "right": panel}, alone=0.7)
    above, _, below, _ = figure.axes
    assert list(above.lines[0].get_ydata()) == [1.0, 4.0]
    assert list(below.lines[0].get_ydata()) == [0.5, 0.5]
    assert below.get_xlabel() == "left"
    plt.close("all")


def test_the_panels_of_the_square_show_each_point_where_it_lies():
    def right_half(points):
        return (points[:, 0] > 0.5).long()

    def upper_half(points):
        return (points[:, 1] > 0.5).long()

    points, labels = torch.tensor([[0.2, 0.9], [0.8, 0.1]]), torch.tensor([0, 1])
    figure = debate_figures.taught_by_points(right_half, upper_half, points, labels, points[:1], labels[1:])
    counts = [[len(line.get_xdata()) for line in axis.lines] for axis in figure.axes]
    assert counts == [[1, 1], [0, 1], [1, 1]]
    assert figure.axes[0].lines[0].get_xydata().tolist() == points[:1].tolist()
    assert figure.axes[1].lines[1].get_xydata().tolist() == points[:1].tolist()
    # The border of each network's regions: upright, upright, level.
    for axis, across in zip(figure.axes, (0, 0, 1), strict=True):
        (region, *_) = axis.collections
        corners = region.get_paths()[1].vertices
        assert corners[:, across].min() == pytest.approx(0.5, abs=0.01)
        assert corners[:, 1 - across].min() == pytest.approx(0.0, abs=0.01)
    plt.close("all")
