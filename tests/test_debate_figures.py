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


def test_every_number_of_the_comments_has_a_row():
    lines = debate_figures.beside_the_comments({"goh/rand": HALF}, {"": "not run"}).data.splitlines()
    rows = [line.split(" | ") for line in lines[2:]]
    assert len(rows) == len(entries()) > 40
    assert all(len(row) == 3 for row in rows)
    (leaked,) = [row for row in rows if "trained on D_rand" in row[0]]
    assert leaked[1:] == ["23.5%", f"{HALF:.1%} |"]
    assert sum("not run" in row[2] for row in rows) == len(rows) - 1
    second_hand = [row for row in rows if "(second-hand)" in row[1]]
    assert len(second_hand) == sum("second-hand" in entry["where"] for entry in entries().values())


def test_a_number_without_ours_and_without_a_reason_is_refused():
    reasons = {key: "because" for key in entries() if not key.startswith("goh/")}
    with pytest.raises(ValueError, match=r"no number of ours for goh/rand"):
        debate_figures.beside_the_comments({}, reasons)
    with pytest.raises(ValueError, match=r"goh/rind is of none"):
        debate_figures.beside_the_comments({"goh/rind": HALF}, {"": "because"})


def test_bars_and_points_stand_at_the_values():
    figure = debate_figures.answers_bars({"one": (HALF, HALF)}, names=("label", "after"), chance=0.1)
    assert sorted(bar.get_width() for bar in figure.axes[0].patches) == [0.5, 0.5]
    figure = debate_figures.place_on_figure3({"one": (HALF, HALF)}, {"a": (0.2, 0.9)}, theirs="others")
    (rings,) = [line for line in figure.axes[0].lines if line.get_label() == "others"]
    assert (list(rings.get_xdata()), list(rings.get_ydata())) == ([0.2], [0.9])
    plt.close("all")


def test_features_below_the_frame_stand_on_its_edge():
    far = torch.tensor([0.5]), torch.tensor([-1000.0])
    figure = debate_figures.features_in_the_plane({"a": far, "b": far, "c": far}, lowest=-10)
    points = [line for line in figure.axes[0].lines if line.get_label() in "abc"]
    assert [float(line.get_ydata()[0]) for line in points] == [-10.0] * 3
    plt.close("all")


def test_curves_have_a_point_for_each_layer_radius_and_toy():
    figure = debate_figures.by_layer({"standard": [HALF] * 4, "robust": [HALF] * 3})
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [4, 3]
    figure = debate_figures.leakage({name: {0.0: HALF, 1.0: HALF} for name in ("D", "D_rand", "D_det")}, chance=0.1)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["D", "D_rand", "D_det"]
    panel = (0.1, 0.2), torch.tensor([1.0, 4.0]), [HALF, HALF]
    figure = debate_figures.superposition({"left": panel, "right": panel}, alone=0.7)
    assert list(figure.axes[0].lines[0].get_ydata()) == [1.0, 4.0]
    assert list(figure.axes[2].lines[0].get_ydata()) == [0.5, 0.5]
    plt.close("all")
