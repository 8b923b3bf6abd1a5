"""Whole figures of chapter 3, on standard and adversarial training: numbers in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from advfeat.pages import plots
from advfeat.pages.identity import GREY
from advfeat.pages.plots import Interval

Number = TypeVar("Number")


def accuracy_by_epoch(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Chapter 3: how each training's accuracy on ordinary and on attacked test images goes, epoch by epoch.

    Args:
        histories: name → one row per epoch, of ``test_accuracy`` and ``robust_test_accuracy``; a row without one of
            them leaves a gap.
    """
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.0), sharey=True)
    for axis, kind, key in zip(axes, ("ordinary", "attacked"), ("test_accuracy", "robust_test_accuracy"), strict=True):
        curves = {name: _by_epoch(rows, key) for name, rows in histories.items()}
        plots.learning_curves(axis, curves, ylabel=f"accuracy, {kind} images")
        axis.set_ylim(-0.02, 1.02)
    return figure


def overfitting(
    attacked: Sequence[Mapping[str, float]], control: Sequence[Mapping[str, float]], *, best: float
) -> Figure:
    """Chapter 3: the accuracies of an adversarial training that lasts too long, and of its control.

    Args:
        attacked: one row per epoch of ``accuracy``, on attacked training images, ``test_accuracy`` and
            ``robust_test_accuracy``.
        control: the same of a training without an adversary, of which only ``test_accuracy`` is drawn.
        best: the epoch to mark.
    """
    curves = {
        "attacked training images": _by_epoch(attacked, "accuracy"),
        "ordinary test images": _by_epoch(attacked, "test_accuracy"),
        "attacked test images": _by_epoch(attacked, "robust_test_accuracy"),
        "control, ordinary test images": _by_epoch(control, "test_accuracy"),
    }
    figure, axis = plt.subplots(figsize=(6.4, 3.7))
    plots.learning_curves(axis, curves, ylabel="accuracy")
    axis.axvline(best, color=GREY, ls="--", lw=1.2)
    return figure


def recorded_trainings(series: Mapping[str, Sequence[float]], *, title: str) -> Figure:
    """Chapter 3: the accuracies by epoch of recorded trainings, a panel for each name, in the order of the series.

    Args:
        series: of a record, ``name/accuracy``, ``name/test_accuracy`` and ``name/robust_test_accuracy`` → by epoch.
        title: the words in brackets after every panel's name.
    """
    keys = {
        "training images": "accuracy",
        "ordinary test images": "test_accuracy",
        "attacked test images": "robust_test_accuracy",
    }
    names = list(dict.fromkeys(key.split("/")[0] for key in series))
    rows = -(-len(names) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(6.4, 2.7 * rows), sharey=True, squeeze=False)
    for axis, name in zip(axes.flat, names, strict=True):
        curves = {label: series[f"{name}/{key}"] for label, key in keys.items()}
        plots.learning_curves(axis, curves, ylabel="accuracy" if axis.get_subplotspec().is_first_col() else "")
        axis.set_title(f"{name} ({title})")
        if name != names[-1]:  # one legend is enough, in the panel with most room
            axis.get_legend().remove()
    return figure


def beside_checkpoints(
    recorded: Mapping[str, Interval], published: Mapping[str, float], trainings: Sequence[str], *, title: str
) -> Figure:
    """Chapter 3: recorded accuracies against the radius as curves, those of the library's checkpoints as diamonds.

    Args:
        recorded: id → number, of ids ``training/NAME/clean`` and ``training/NAME/epsE``; others are left out.
        published: the same of the checkpoints.
        trainings: the names in those ids.
    """
    figure, axis = plt.subplots(figsize=(6.4, 4.0))
    plots.accuracy_curves(
        axis,
        {_trained_at(name): _by_radius(recorded, name) for name in trainings},
        published={_trained_at(name): _by_radius(published, name) for name in trainings},
        xlabel="radius ε of the attack",
    )
    axis.plot([], [], "D", color="white", markeredgecolor="black", label="library")
    axis.set(title=title)
    axis.legend()
    return figure


def _trained_at(name: str) -> str:
    return name.replace("eps", "trained at ε = ")


def _by_radius(numbers: Mapping[str, Number], name: str) -> dict[float, Number]:
    """Radius → number, from the smallest on."""
    places = {key.removeprefix(f"training/{name}/"): key for key in numbers if key.startswith(f"training/{name}/")}
    radii = {0.0 if at == "clean" else float(at.removeprefix("eps")): key for at, key in places.items()}
    return {radius: numbers[radii[radius]] for radius in sorted(radii)}


def _by_epoch(rows: Sequence[Mapping[str, float]], key: str) -> list[float]:
    return [row.get(key, float("nan")) for row in rows]
