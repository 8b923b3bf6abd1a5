"""Figures of chapters 4 to 6 show the numbers and pictures they were given, under the right names."""

from __future__ import annotations

import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")

from matplotlib.container import BarContainer, ErrorbarContainer

from advfeat.data import Dataset
from advfeat.estimates import Estimate, Measured
from advfeat.experiments.record_writing import save_record
from advfeat.experiments.records import load_record
from advfeat.pages import dataset_figures, transfer_figures
from advfeat.pages.dataset_figures import ARCHITECTURES, BY_SOURCE, FROM_NOISE, MATCHED_ROWS, SETS, SHORT

pytestmark = pytest.mark.usefixtures("figures_in_style")


def rate(value):
    return Estimate(value, value - 0.05, value + 0.05, 100)


def heights(axis):
    """Label → heights of its bars."""
    return {
        bars.get_label(): [bar.get_height() for bar in bars] for bars in axis.containers if type(bars) is BarContainer
    }


def words(labels):
    return [label.get_text() for label in labels]


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A record with three sheets of two classes, of one's own sets or of the released ones."""
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path))

    def make(released):
        rows = {"panel": 2 if released else 4, "noise": 3, "D_rand": 2}
        save_record(
            "04-chapter", "small", seed=0, values={}, seconds={}, config={"released": released, "classes": ["a", "b"]},
            provenance={"commit": "c0ffee", "device": "a processor"},
            sheets={name: torch.rand(count, 2, 3, 8, 8) for name, count in rows.items()},
        )  # fmt: skip
        return load_record("04-chapter", "small")

    return make


def test_recorded_sheets_have_their_rows_and_classes(recorded):
    # Not the row labels of the other sheet, and no title of another record.
    record = recorded("")
    for figure, rows in (
        (dataset_figures.matched_sheet(record), MATCHED_ROWS),
        (dataset_figures.noise_sheet(record), FROM_NOISE),
    ):
        (axis,) = figure.axes
        assert words(axis.get_yticklabels()) == list(rows)
        assert words(axis.get_xticklabels()) == ["a", "b"]
        assert axis.get_title() == "small"
    (axis,) = dataset_figures.relabelled_sheet(record).axes
    assert words(axis.get_yticklabels()) == ["photograph", f"image in\n{SETS['D_rand']}"]
    assert axis.images[0].get_array().shape[:2] == (16, 16)


def sheet_of(tmp_path, monkeypatch, *, data="folder", tables=None, sheets=("D_det",)):
    """A record of chapter 5 with sheets of ten columns."""
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path))
    save_record(
        "05-chapter", "small", seed=0, values={}, seconds={}, config={"released": "", "data": data},
        provenance={"commit": "c0ffee", "device": "a processor"}, tables=tables or {},
        sheets={name: torch.rand(3 if name == "by_source" else 2, 10, 3, 8, 8) for name in sheets},
    )  # fmt: skip
    return load_record("05-chapter", "small")


def test_a_recorded_sheet_shows_the_new_labels_where_they_are_known(tmp_path, monkeypatch):
    # Of an old record of D_det those of the classes themselves would hide the relabelling.
    figure = dataset_figures.relabelled_sheet(sheet_of(tmp_path, monkeypatch, data="cifar10"), "D_det")
    shown = [word for axis in figure.axes for word in words(axis.get_xticklabels())]
    assert (shown[0], shown[8], shown[9]) == ("“automobile”", "“truck”", "“airplane”")
    labels = {"D_det": [{"label": f"c{k}"} for k in range(10)]}
    first, second = dataset_figures.relabelled_sheet(sheet_of(tmp_path, monkeypatch, tables=labels), "D_det").axes
    assert words(first.get_xticklabels()) + words(second.get_xticklabels()) == [f"“c{k}”" for k in range(10)]


def test_a_sheet_of_two_sources_is_shown_once_it_is_recorded(tmp_path, monkeypatch):
    assert dataset_figures.by_source_sheet(sheet_of(tmp_path, monkeypatch)) is None
    figure = dataset_figures.by_source_sheet(sheet_of(tmp_path, monkeypatch, sheets=("by_source",)))
    assert [words(axis.get_yticklabels()) for axis in figure.axes] == [list(BY_SOURCE)] * 2


def test_each_source_has_its_perturbation_above_its_image():
    # Without the original subtracted, or from the other source, the middle rows would show something else.
    base, made = torch.full((2, 3, 4, 4), 0.5), [torch.full((2, 3, 4, 4), 0.51), torch.full((2, 3, 4, 4), 0.47)]
    figure = dataset_figures.by_source(base, made, ["to a", "to b"])
    shades = [float(axis.images[0].get_array().mean()) for axis in figure.axes[::2]]
    assert shades == pytest.approx([0.5, 0.6, 0.51, 0.2, 0.47], abs=1e-5)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["to a", "to b"]


def test_three_answers_make_up_all_answers():
    # Bars beside each other, or the interval's ends in place of values, would not end at one.
    shares = {"D_det": (rate(0.2), rate(0.5)), "mine": (rate(0.7), rate(0.1))}
    (axis,) = dataset_figures.answer_shares(shares).axes
    parts = {
        bars.get_label(): [(round(bar.get_x(), 6), round(bar.get_width(), 6)) for bar in bars]
        for bars in axis.containers
        if type(bars) is BarContainer
    }
    assert parts["the label"] == [(0, 0.2), (0, 0.7)]
    assert parts["the class after it"] == [(0.2, 0.5), (0.7, 0.1)]
    assert parts["another class"] == [(0.7, 0.3), (0.8, 0.2)]
    assert words(axis.get_yticklabels()) == [SETS["D_det"], "mine"]


def test_recorded_answers_come_from_both_chapters(tmp_path, monkeypatch):
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path))
    about = {"n": 100, "network": "a network", "attack": "none", "seed": 0}

    def record(chapter, values):
        measured = {key: Measured(value, **about) for key, value in values.items()}
        save_record(
            chapter, "small", seed=0, values=measured, seconds={}, config={},
            provenance={"commit": "c0ffee", "device": "a processor"},
        )  # fmt: skip
        return load_record(chapter, "small")

    old = record("05-chapter", {"table1/D_det": 0.2})
    assert dataset_figures.recorded_answers(old, None) is None
    assert dataset_figures.recorded_answers(None, None) is None
    new = record("05-chapter", {"table1/D_det": 0.2, "table1/D_det/after": 0.4})
    five = record("06-chapter", {"fig3/vgg16/det_accuracy": 0.1, "fig3/vgg16/visible": 0.3})
    (axis,) = dataset_figures.recorded_answers(new, five).axes
    assert words(axis.get_yticklabels()) == ["chapter 5", "VGG-16"]


def test_of_released_sets_only_the_sets_themselves_are_shown(recorded):
    # Four labels beside two rows of pictures would name the sets x and x'.
    record = recorded("folder")
    (axis,) = dataset_figures.matched_sheet(record).axes
    assert words(axis.get_yticklabels()) == [SETS["D_R"], SETS["D_NR"]]
    assert dataset_figures.noise_sheet(record) is None
    assert dataset_figures.relabelled_sheet(record) is None


def test_a_signal_that_turned_round_is_drawn_below_zero():
    # An axis that begins at 0, as that of accuracies does, would hide it.
    kept = {"D_R": {"shape": rate(0.9), "texture": rate(-0.1)}, "D": {"shape": rate(1.0), "texture": rate(1.0)}}
    (axis,) = dataset_figures.signal_bars(kept).axes
    assert heights(axis) == {"shape": [0.9, 1.0], "texture": [-0.1, 1.0]}
    assert axis.get_ylim()[0] < -0.1
    assert words(axis.get_xticklabels()) == [SETS["D_R"], SETS["D"]]


def test_the_papers_diamonds_stand_at_the_training_and_the_attack_they_belong_to():
    # Keyed by the attack alone, the diamond of D_NR would stand at every network.
    found = {
        name: {"clean": rate(value), "eps0.25": rate(value / 2), "eps0.5": rate(value / 4)}
        for name, value in (("standard", 0.9), ("adversarial", 0.8), ("D_NR", 0.6))
    }
    (axis,) = dataset_figures.robustness_bars(found, paper={("D_NR", "clean"): 0.88}, title="small").axes
    assert heights(axis)["ε = 0.25"] == [0.45, 0.4, 0.3]
    names = [f"{SETS['D']}\nstandard", f"{SETS['D']}\nadversarial", f"{SETS['D_NR']}\nstandard"]
    assert words(axis.get_xticklabels()) == names
    (diamonds,) = [line for line in axis.lines if line.get_marker() == "D"]
    (place,), (value,) = diamonds.get_data()
    assert (round(place), value) == (2, 0.88)
    assert place < 2  # the first of the three bars
    assert axis.get_title() == "small"


def test_curves_over_steps_keep_their_attack_and_the_budget_is_marked():
    # Curves in the order of the steps would join the three attacks of one number of steps.
    by_steps = {
        3: {"clean": rate(0.9), "eps0.25": rate(0.4), "eps0.5": rate(0.1)},
        30: {"clean": rate(0.8), "eps0.25": rate(0.6), "eps0.5": rate(0.3)},
    }
    figure = dataset_figures.steps_curves({"seed 0": by_steps, "seed 1": by_steps}, budget=30)
    assert [axis.get_title() for axis in figure.axes] == ["seed 0", "seed 1"]
    for axis in figure.axes:
        drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}
        assert drawn["clean"] == ([3, 30], [0.9, 0.8])
        assert drawn["ε = 0.5"] == ([3, 30], [0.1, 0.3])
        assert [list(line.get_xdata()) for line in axis.lines if line.get_linestyle() == "--"] == [[30, 30]]
        assert axis.get_xscale() == "log"
    alone = dataset_figures.steps_curves({"": by_steps}, budget=3)
    assert alone.get_figwidth() < figure.get_figwidth()


def images(labels, shade):
    return Dataset(torch.full((len(labels), 3, 4, 4), shade), torch.tensor(labels), ("cat", "dog", "owl"), "few")


def test_images_stand_below_their_originals_with_both_names():
    # The names of the originals in the last row would show the labels that the set does not have.
    figure = dataset_figures.relabelled(images([1, 2], 0.75), images([0, 1], 0.5))
    captions = [axis.get_xlabel() for axis in figure.axes]
    assert captions == ["cat", "dog", "", "", "“dog”", "“owl”"]
    shades = [float(axis.images[0].get_array().mean()) for axis in figure.axes]
    assert shades == pytest.approx([0.5, 0.5, 1, 1, 0.75, 0.75])
    alone = dataset_figures.relabelled(images([1, 2], 0.75))
    assert [axis.get_xlabel() for axis in alone.axes] == ["“dog”", "“owl”"]
    with pytest.raises(ValueError, match="originals must be 2 images"):
        dataset_figures.relabelled(images([1, 2], 0.75), images([0], 0.5))


def test_accuracies_by_training_set_with_chance_and_the_paper():
    (axis,) = dataset_figures.training_sets({"D": rate(0.9), "D_det": rate(0.2)}, chance=0.1, paper={"D_det": 0.4}).axes
    assert [bar.get_height() for bar in axis.patches] == [0.9, 0.2]
    drawn = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
    assert drawn["chance"] == [0.1, 0.1]
    assert drawn["paper"] == [0.4]
    assert axis.get_xlabel() == "trained on"


def test_points_have_what_was_learned_across_and_what_fools_upwards():
    # The two exchanged, or the architectures paired by their place instead of their key, would pass for a figure.
    learned = {key: rate(place / 10) for place, key in enumerate(ARCHITECTURES)}
    fooled = {key: rate(1 - place / 10) for place, key in reversed(list(enumerate(ARCHITECTURES)))}
    panels = {"seed 0": (learned, fooled), "seed 1": (fooled, learned)}
    for axis, (title, (across, up)) in zip(
        transfer_figures.learning_and_transfer(panels).axes, panels.items(), strict=True
    ):
        points = {
            bar.get_label(): (bar[0].get_xdata()[0], bar[0].get_ydata()[0])
            for bar in axis.containers
            if isinstance(bar, ErrorbarContainer)
        }
        assert points == {name: (across[key].value, up[key].value) for key, name in ARCHITECTURES.items()}
        assert axis.get_title() == title
    (axis,) = transfer_figures.learning_and_transfer({"": (learned, fooled)}).axes
    assert axis.get_ylabel() == "transfer from the source"


def test_a_matrix_has_who_made_the_images_in_rows():
    # Of the transposed matrix the diagonal would be the same.
    rates = {(row, column): rate((10 * i + j) / 100) for i, row in enumerate(SHORT) for j, column in enumerate(SHORT)}
    (axis,) = transfer_figures.transfer_matrix(rates, title="t").axes
    shades = axis.images[0].get_array()
    assert shades[0].tolist() == [0, 0.01, 0.02, 0.03, 0.04, 0.05]
    assert shades[2][1] == 0.21
    assert words(axis.get_xticklabels()) == words(axis.get_yticklabels()) == list(SHORT.values())


def test_another_radius_than_the_papers_has_its_name_and_is_not_listed():
    assert dataset_figures.ATTACKS["eps1.5"] == "ε = 1.5"
    assert list(dataset_figures.ATTACKS) == ["clean", "eps0.25", "eps0.5"]
    with pytest.raises(KeyError, match="cleaned"):
        dataset_figures.ATTACKS["cleaned"]
