"""The figures of the chapter on the debate, and its table of everything that the six comments published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from IPython.display import Markdown
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from advfeat.estimates import Estimate
from advfeat.pages.identity import ANSWERS, GREY, OTHERS, WIDEST, colors_of
from advfeat.pages.notebook import published_entries
from advfeat.pages.plots import Interval, accuracy_curve, rate_scatter, usefulness_plane

COMMENTS = ("gilmer", "goh", "nakano", "nakkiran", "wallace")


def beside_the_comments(ours: Mapping[str, Estimate], reasons: Mapping[str, str]) -> Markdown:
    """Every published number of the six comments, ours beside it, or the reason why there is none.

    Args:
        ours: id of the published number → what this run found.
        reasons: the beginning of an id → why this run has no number.

    Raises:
        ValueError: a published number has neither, or one of ours belongs to none.
    """
    entries = {key: entry for key, entry in published_entries().items() if entry.get("by") in COMMENTS}
    if strange := [key for key in ours if key not in entries]:
        raise ValueError(f"ours must be of published numbers, and {', '.join(strange)} is of none")
    lines = ["| number | published | this run |", "|---|---|---|"]
    for key, entry in sorted(entries.items(), key=lambda item: COMMENTS.index(item[1]["by"])):
        spec = entry.get("printed", ".1%")
        why = [text for begin, text in reasons.items() if key.startswith(begin)]
        if key not in ours and not why:
            raise ValueError(f"reasons must say why there is no number of ours for {key}")
        shown = format(entry["value"], spec) + (" (second-hand)" if "second-hand" in entry["where"] else "")
        found = format(ours[key], ".2f" if spec.endswith("f") else ".1%") if key in ours else why[0]
        lines.append(f"| {entry['where'].split(';')[0]} | {shown} | {found} |")
    return Markdown("\n".join(lines))


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
    axis.set(xlabel=r"radius $\epsilon$ of the linear model", ylabel="accuracy on ordinary images", ylim=(0, 1))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), title="trained on")
    return figure


def features_in_the_plane(
    groups: Mapping[str, tuple[Float[Tensor, " k"], Float[Tensor, " k"]]], *, lowest: float = -60.0
) -> Figure:
    """Features as points (ρ, γ), one colour a group; γ on a scale that is logarithmic below −1.

    Those below ``lowest`` are drawn on the lower edge.
    """
    figure, axis = plt.subplots(figsize=(WIDEST, 3.8))
    usefulness_plane(axis, lowest=lowest)
    for (name, (useful, robust)), marker, color in zip(
        groups.items(), ("o", "s", "D"), (GREY, OTHERS[3], OTHERS[0]), strict=True
    ):
        axis.plot(useful, robust.clamp(min=lowest), marker, color=color, ms=6, alpha=0.8, label=name)
    axis.set_yscale("symlog", linthresh=1)
    axis.set_yticks([1, 0, -1, -10], ["1", "0", "−1", "−10"])
    axis.minorticks_off()
    axis.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0), columnspacing=1)
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
    """R(f) of the first layers of several networks, with intervals, on a logarithmic scale."""
    figure, axis = plt.subplots(figsize=(WIDEST, 3.0))
    for (name, items), color in zip(curves.items(), colors_of(list(curves)), strict=True):
        layers = range(1, len(items) + 1)
        axis.plot(layers, [item.value for item in items], "o-", label=name, color=color)
        low, high = ([getattr(item, end) for item in items] for end in ("low", "high"))
        axis.fill_between(layers, low, high, color=color, alpha=0.18, lw=0)
    most = max(map(len, curves.values()))
    axis.set(xlabel="layer", ylabel="R(f), lower is more robust", xticks=range(1, most + 1), yscale="log")
    axis.set_yticks([0.2, 0.5, 1, 2, 4], ["0.2", "0.5", "1", "2", "4"])
    axis.minorticks_off()
    axis.legend()
    return figure


def superposition(panels: Mapping[str, tuple[Sequence[float], Tensor, Sequence[Interval]]], *, alone: float) -> Figure:
    """Two panels, each with features per unit (left scale) and breaking radius (right scale) against a setting."""
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDEST, 3.2), squeeze=False)
    twins = []
    for axis, (label, (places, kept, radii)) in zip(axes[0], panels.items(), strict=True):
        names = [f"{place:g}" for place in places]
        axis.plot(names, kept, "o-", color=OTHERS[0])
        axis.set(xlabel=label, ylim=(0, 1.1 * max(float(of.max()) for _, of, _ in panels.values())))
        twin = axis.twinx()
        twin.plot(names, [item.value for item in radii], "s--", color=OTHERS[3])
        twin.fill_between(
            names, [item.low for item in radii], [item.high for item in radii], color=OTHERS[3], alpha=0.2, lw=0
        )
        twin.axhline(alone, color=GREY, ls=":", lw=1.2)
        twin.set_ylim(0, 1.1 * alone)
        twin.grid(False)
        twins.append(twin)
    axes[0][0].set_ylabel("features per unit", color=OTHERS[0])
    twins[-1].set_ylabel("breaking radius", color=OTHERS[3])
    return figure
