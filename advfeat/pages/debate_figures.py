"""The figures of the chapter on the debate, and its table of everything that the six comments published."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from advfeat.estimates import Estimate
from advfeat.pages.identity import ANSWERS, GREY, OTHERS, WIDEST, colors_of
from advfeat.pages.notebook import published_entries
from advfeat.pages.plots import Interval, accuracy_curve, rate_scatter, usefulness_plane
from advfeat.pages.wording import in_words

COMMENTS = ("gilmer", "goh", "nakano", "nakkiran", "wallace")


def beside_the_comments(ours: Mapping[str, Estimate], *, data: str) -> Markdown:
    """The published numbers of the comments that this run has, too, ours beside them.

    Args:
        ours: id of the published number → what this run found.
        data: the images of this run, for the head of its column.

    Raises:
        ValueError: one of ours belongs to no published number.
    """
    entries = _comments()
    if strange := [key for key in ours if key not in entries]:
        raise ValueError(f"ours must be of published numbers, and {', '.join(strange)} is of none")
    lines = [f"| number | published | here: {data} |", "|---|---|---|"]
    for key, (where, shown, spec) in entries.items():
        if key in ours:
            lines.append(f"| {where} | {shown} | {format(ours[key], '.2f' if spec.endswith('f') else '.1%')} |")
    return Markdown("\n".join(lines))


def without_ours(ours: Container[str], reasons: Mapping[str, str]) -> Markdown:
    """The published numbers of the comments that are not among ``ours``, each with the reason.

    Args:
        ours: ids of the published numbers that ``beside_the_comments`` shows.
        reasons: the beginning of an id → why this run has no number to compare.

    Raises:
        ValueError: there is no reason for a number.
    """
    lines = ["| number | published | why it is not compared |", "|---|---|---|"]
    for key, (where, shown, _) in _comments().items():
        if key in ours:
            continue
        why = [text for begin, text in reasons.items() if key.startswith(begin)]
        if not why:
            raise ValueError(f"reasons must say why there is no number of ours for {key}")
        lines.append(f"| {where} | {shown} | {why[0]} |")
    return Markdown("\n".join(lines))


def recorded_names(keys: Iterable[str]) -> dict[str, str]:
    """For each number of the comments, the id that our record has for it → what the comment says that it is of."""
    entries = _comments()
    return {f"debate/{key}": entries[key][0] if key in entries else in_words(key) for key in keys}


def _comments() -> dict[str, tuple[str, str, str]]:
    """Id of each published number of the comments → what it is of, its text, its format; in the comments' order."""
    entries = {key: entry for key, entry in published_entries().items() if entry.get("by") in COMMENTS}
    found = {}
    for key, entry in sorted(entries.items(), key=lambda item: (COMMENTS.index(item[1]["by"]), item[1]["where"])):
        spec = entry.get("printed", ".1%")
        shown = format(entry["value"], spec) + (" (second-hand)" if "second-hand" in entry["where"] else "")
        found[key] = entry["where"].split(";")[0], shown, spec
    return found


def answers_bars(groups: Mapping[str, tuple[Interval, Interval]], *, names: tuple[str, str], chance: float) -> Figure:
    """For each network the share of its answers that are one class or another, with intervals, one row a network."""
    figure, axis = plt.subplots(figsize=(WIDEST, 0.6 + 0.55 * len(groups)))
    for place, pair in enumerate(groups.values()):
        for shift, (item, name, color) in enumerate(zip(pair, names, ANSWERS, strict=True)):
            spread = [[max(0.0, item.value - item.low)], [max(0.0, item.high - item.value)]]
            axis.barh(
                place + 0.36 * shift - 0.18, item.value, height=0.34, xerr=spread, color=color,
                label=name if place == 0 else None, error_kw={"elinewidth": 1.2, "capsize": 2},
            )  # fmt: skip
    axis.axvline(chance, color=GREY, ls=":", lw=1.2)
    axis.set(yticks=range(len(groups)), yticklabels=list(groups), xlim=(0, 1), xlabel="share of the test images")
    axis.invert_yaxis()
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.grid(False, axis="y")
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    return figure


def leakage(curves: Mapping[str, Mapping[float, Interval]], *, chance: float) -> Figure:
    """Accuracy against the radius that the linear features withstand, one curve per training set."""
    figure, axis = plt.subplots(figsize=(WIDEST, 3.2))
    for name, points in curves.items():
        accuracy_curve(axis, list(points), list(points.values()), label=name)
    axis.axhline(chance, color=GREY, ls=":", lw=1.2)
    axis.set(
        xlabel="radius that the linear model was trained against", ylabel="accuracy on ordinary images", ylim=(0, 1)
    )
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), title="trained on")
    return figure


def features_in_the_plane(
    groups: Mapping[str, tuple[Float[Tensor, " k"], Float[Tensor, " k"]]], *, threshold: float, lowest: float = -60.0
) -> Figure:
    """Features as points (ρ, γ), one colour a group of at most four; γ on a scale that is logarithmic below −1.

    Those below ``lowest`` are drawn on the lower edge, and those of the first group left of ``threshold``, the least
    usefulness that counts, are pale.
    """
    figure, axis = plt.subplots(figsize=(WIDEST, 3.8))
    usefulness_plane(axis, lowest=lowest)
    axis.axvline(threshold, color=GREY, ls=":", lw=1.2)
    first = next(iter(groups))
    marks = zip(
        groups.items(), ("o", "s", "D", "*"), (GREY, OTHERS[3], OTHERS[0], OTHERS[1]), (6, 6, 6, 12), strict=False
    )
    for (name, (useful, robust)), marker, color, size in marks:
        drawn = robust.clamp(min=lowest)
        counts = useful >= threshold if name == first else useful > -1
        axis.plot(useful[~counts], drawn[~counts], marker, color=color, ms=4, alpha=0.15, mew=0)
        axis.plot(useful[counts], drawn[counts], marker, color=color, ms=size, alpha=0.85, label=name)
    for place, text in ((0.35, "robust"), (-0.45, "non-robust")):
        axis.text(0.99, place, text, color=GREY, ha="right", va="center")
    axis.set_yscale("symlog", linthresh=1)
    axis.set_yticks([1, 0, -1, -10], ["1", "0", "−1", "−10"])
    axis.minorticks_off()
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def place_on_figure3(
    ours: Mapping[str, tuple[Interval, Interval]], published: Mapping[str, tuple[float, float]], *, theirs: str
) -> Figure:
    """Accuracy after training on a set against transfer of its perturbations: ours with intervals, others' as rings."""
    figure, axis = plt.subplots(figsize=(WIDEST, 3.8))
    rate_scatter(axis, ours)
    across, up = zip(*published.values(), strict=True)
    axis.plot(across, up, "o", mfc="none", mec=GREY, ms=8, label=theirs)
    axis.set(xlabel="accuracy after training on the set", ylabel="transfer to another network")
    axis.set(xlim=(-0.03, None), ylim=(-0.03, 1.05))
    axis.legend()
    return figure


def by_layer(curves: Mapping[str, Sequence[Interval]]) -> Figure:
    """R of the first layers of several networks, with intervals, on a logarithmic scale."""
    figure, axis = plt.subplots(figsize=(WIDEST, 3.0))
    for (name, items), color in zip(curves.items(), colors_of(list(curves)), strict=True):
        layers = range(1, len(items) + 1)
        axis.plot(layers, [item.value for item in items], "o-", label=name, color=color)
        low, high = ([getattr(item, end) for item in items] for end in ("low", "high"))
        axis.fill_between(layers, low, high, color=color, alpha=0.18, lw=0)
    most = max(map(len, curves.values()))
    axis.set(xlabel="layer", ylabel="R, lower is more robust", xticks=range(1, most + 1), yscale="log")
    axis.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2], ["0.05", "0.1", "0.2", "0.5", "1", "2"])
    axis.minorticks_off()
    axis.legend()
    return figure


def superposition(panels: Mapping[str, tuple[Sequence[str], Tensor, Sequence[Interval]]], *, alone: float) -> Figure:
    """Two rows, features per unit above and breaking radius below, each against one setting a column.

    ``alone`` is the breaking radius without superposition.
    """
    figure, axes = plt.subplots(2, len(panels), figsize=(WIDEST, 4.6), squeeze=False, sharex="col", sharey="row")
    for (above, below), (label, (places, kept, radii)) in zip(axes.T, panels.items(), strict=True):
        above.plot(places, kept, "o-", color=OTHERS[0])
        below.plot(places, [item.value for item in radii], "s-", color=OTHERS[3])
        low, high = ([getattr(item, end) for item in radii] for end in ("low", "high"))
        below.fill_between(places, low, high, color=OTHERS[3], alpha=0.2, lw=0)
        below.axhline(alone, color=GREY, ls=":", lw=1.2)
        below.set_xlabel(label)
    axes[0][0].set(ylabel="features per unit", ylim=(0, None))
    axes[1][0].set(ylabel="breaking radius", ylim=(0, 1.1 * alone))
    return figure


def taught_by_points(
    first: Callable[[Tensor], Tensor],
    second: Callable[[Tensor], Tensor],
    points: Float[Tensor, "n 2"],
    labels: Int[Tensor, " n"],
    moved: Float[Tensor, "k 2"],
    names: Int[Tensor, " k"],
) -> Figure:
    """Three panels of the square [0, 1]²: points in the regions of a first network, moved points with their new names,
    and the first points in the regions of the second network.

    ``first`` and ``second`` map points (m, 2) to the number, 0 or 1, of their region.
    """
    side = torch.linspace(0, 1, 120)
    lattice = torch.cartesian_prod(side, side)
    figure, axes = plt.subplots(1, 3, figsize=(WIDEST, 2.5), sharey=True)
    shown = ((first, points, labels), (first, moved, names), (second, points, labels))
    heads = (
        "points, and the\nfirst network's regions",
        "moved points\nwith their new labels",
        "the second network's\nregions",
    )
    for axis, (network, dots, classes), head in zip(axes, shown, heads, strict=True):
        regions = network(lattice).view(len(side), -1).T
        axis.contourf(side, side, regions, levels=[-0.5, 0.5, 1.5], colors=[OTHERS[0], OTHERS[3]], alpha=0.25)
        for name, marker, color in ((0, "o", OTHERS[0]), (1, "^", OTHERS[3])):
            axis.plot(*dots[classes == name].T, marker, color=color, ms=5, mec="white", mew=0.5)
        axis.set_title(head)
        axis.set(xlim=(-0.13, 1.13), ylim=(-0.13, 1.13), aspect="equal", xticks=[0, 1], yticks=[0, 1])
        axis.grid(False)
    return figure
