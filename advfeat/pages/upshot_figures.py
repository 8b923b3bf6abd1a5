"""The figures of the closing chapter: the evidence for all claims of the book, and the price of robustness in data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from advfeat.pages import verdicts
from advfeat.pages.identity import GREY, OTHERS, SMALLEST, strengths
from advfeat.pages.verdicts import ClaimRow

_LOOKS = {
    verdicts.REPRODUCED: ("reproduced", OTHERS[0], "o"),
    verdicts.SHOWN: ("shown", OTHERS[1], "s"),
    verdicts.SMALLER: ("smaller", OTHERS[4], "D"),
    verdicts.UNCERTAIN: ("size uncertain", OTHERS[3], "^"),
    verdicts.NOT_ESTABLISHED: ("not established", GREY, "X"),
    verdicts.CONTRARY: ("the other way round", OTHERS[2], "v"),
}
_NAMES = {
    "fragile": "an attack harms more than noise",
    "units": "robust training makes robust features",
    "dropped": "… and drops the non-robust ones",
    "autoattack": "robust training withstands AutoAttack",
    "price": "robustness costs accuracy",
    "r_clean": "D_R: accurate",
    "r_robust": "D_R: robust",
    "r_autoattack": "D_R: robust, AutoAttack",
    "nr_clean": "D_NR: accurate",
    "rand": "D_rand: accurate",
    "det": "D_det: accurate",
    "det_wins": "D_det: label over class after",
    "same_mistake": "transfer to the same mistake",
    "five_after": "D_det of five: label over class after",
    "recognised": "robust drawings are recognised",
    "fourier_rise": "fine waves disturb the standard network more",
    "fourier_det": "… and that of D_det more than that of D_R",
    "fourier_noise": "training on noise helps under noise",
    "fourier_fog": "fog harms the robust network more",
    "leak_rand": "robust features leak into D_rand",
    "leak_det": "… and mislead in D_det",
    "unshared": "perturbations that spare others transfer less",
    "unshared_teach": "… and teach less",
    "wrong_labels": "wrong labels alone teach",
    "transfer_probe": "robust probes serve held-out classes better",
    "transfer_tuned": "… also after fine-tuning",
    "natural_missed": "five networks miss more than chance",
    "natural_judge": "… and a sixth misses these, too",
    "shape_bias": "the robust network goes by broad waves",
    "location": "a fully connected one goes by the corner",
    "fashion_rand": "Fashion-MNIST, D_rand: accurate",
    "fashion_det": "Fashion-MNIST, D_det: accurate",
    "fashion_det_wins": "Fashion-MNIST, D_det: label over class after",
    "fashion_r": "Fashion-MNIST, D_R: robust",
    "fashion_nr": "Fashion-MNIST, D_NR: accurate",
    "evaluation_masked": "masked networks withstand PGD only",
    "fashion_rise": "Fashion-MNIST: fine waves disturb more",
    "fashion_map_det": "… and D_det's more than D_R's",
    "fashion_noise": "Fashion-MNIST: training on noise helps",
    "fashion_fog": "Fashion-MNIST: fog harms the robust one",
    "fashion_leak_rand": "Fashion-MNIST: robust features leak",
    "fashion_leak_det": "… and mislead in D_det",
    "fashion_unshared": "Fashion-MNIST: sparing others, less transfer",
    "fashion_unshared_teach": "… and less is taught",
    "fashion_wrong_labels": "Fashion-MNIST: wrong labels alone teach",
    "fashion_probe": "Fashion-MNIST: robust probes serve better",
    "fashion_tuned": "… also after fine-tuning",
    "fashion_missed": "Fashion-MNIST: five miss more than chance",
    "fashion_judge": "… and a sixth misses these, too",
    "fashion_shape_bias": "Fashion-MNIST: robust by broad waves",
    "fashion_masked": "Fashion-MNIST: masks withstand PGD only",
}
"""Claims about rates, in a few words; floors are not drawn."""


def forest(rows: Sequence[ClaimRow]) -> Figure:
    """Every claim that a record decides, as a point with its interval, in the direction that it claims.

    Above: claims with a published number, in shares of its effect (0: no effect, 1: the published one). Below:
    the other claims about rates, as the distance from no effect; the intervals of both numbers are added. A claim about
    several networks, or against several values of no effect, is as many points in one line.

    Args:
        rows: of ``verdicts.rows_of_book``; those of ``undrawn`` are left out.
    """
    left_out = undrawn(rows)
    decided = [row for row in rows if row.measured and row not in left_out]
    with_paper = [row for row in decided if row.published is not None]
    others = [row for row in decided if row.published is None]
    panels = (
        (with_paper, "share of the paper's effect", True),
        (others, "percentage points from no effect", False),
    )
    heights = [max(1, len(with_paper)), max(1, len(others))]
    figure, axes = plt.subplots(2, 1, figsize=(6.4, 0.36 * sum(heights) + 2.2), height_ratios=heights)
    for axis, (shown, xlabel, shares) in zip(axes, panels, strict=True):
        for place, row in enumerate(shown):
            found, (_, color, marker) = effects(row), _LOOKS[row.verdict]
            for index, (value, low, high) in enumerate(found):
                up = place + 0.14 * (index - (len(found) - 1) / 2)
                whiskers = [[max(0.0, value - low)], [max(0.0, high - value)]]
                axis.errorbar(value, up, xerr=whiskers, fmt=marker, ms=6, color=color, elinewidth=1.4, capsize=2)
        axis.set(yticks=range(len(shown)), yticklabels=[_named(row, shown) for row in shown], xlabel=xlabel)
        axis.tick_params("y", labelsize=SMALLEST)
        axis.axvline(0, color="black", lw=1)
        if shares:
            axis.axvline(1, color=GREY, lw=1.2, ls="--")
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="%" if shares else ""))
        axis.set_ylim(len(shown) - 0.4, -0.6)
    axes[0].legend(handles=_marks(decided), ncols=3, loc="lower center", bbox_to_anchor=(0.1, 1.0), columnspacing=1)
    return figure


def undrawn(rows: Sequence[ClaimRow]) -> list[ClaimRow]:
    """The claims that a record decides and ``forest`` has no scale for.

    They are floors, which have no size to compare, and numbers that are no rates and have no published one beside them.
    """
    decided = [row for row in rows if row.measured]
    return [
        row
        for row in decided
        if row.verdict == verdicts.FLOOR or (row.published is None and not row.value.endswith("%"))
    ]


def effects(row: ClaimRow) -> list[tuple[float, float, float]]:
    """The effects of one claim with their ends, positive in the claimed direction; see ``forest`` for the scale."""
    if row.published is not None:
        ours, nothing = row.measured[0], row.against[0].value
        scaled = [(end - nothing) / (row.published - nothing) for end in (ours.value, ours.low, ours.high)]
        return [(scaled[0], min(scaled[1:]), max(scaled[1:]))]
    sign, count = (1 if row.wanted == "higher" else -1), max(len(row.measured), len(row.against))
    measured, against = ([*of] * (count // len(of)) for of in (row.measured, row.against))
    found = []
    for one, other in zip(measured, against, strict=True):
        ends = sorted((sign * (one.low - other.high), sign * (one.high - other.low)))
        found.append((sign * (one.value - other.value), ends[0], ends[1]))
    return found


def sample_complexity(
    curves: Mapping[int, Mapping[str, Sequence[float]]],
    counts: Sequence[int],
    needed: Mapping[str, Mapping[int, float]],
) -> Figure:
    """Accuracy, clean and attacked, by the number of examples for some dimensions; and the examples that are needed.

    Args:
        curves: dimension → ``clean`` and ``attacked`` → accuracy for each of ``counts``.
        counts: numbers of examples.
        needed: ``clean`` and ``attacked`` → dimension → number of examples.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 4.2))
    for (dimension, found), color in zip(curves.items(), strengths(OTHERS[0], len(curves)), strict=True):
        left.plot(counts, found["attacked"], color=color, label=f"attacked, d = {dimension:,}")
    for found in curves.values():  # they lie on one another
        left.plot(counts, found["clean"], color=GREY, ls="--", lw=1.6)
    left.plot([], [], color=GREY, ls="--", lw=1.6, label="clean, every d")
    left.set(xscale="log", xlabel="examples", ylabel="accuracy", ylim=(-0.02, 1.04))
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0))
    for (kind, by_dimension), color, marker in zip(needed.items(), (GREY, OTHERS[0]), "so", strict=True):
        right.plot(list(by_dimension), list(by_dimension.values()), marker=marker, color=color, label=kind)
    last, count = max(needed["attacked"].items())
    roots = [(of, count * (of / last) ** 0.5) for of in needed["attacked"]]
    right.plot(*zip(*roots, strict=True), color="black", ls=":", lw=1.4, label="slope of the square root of d")
    right.set(xscale="log", yscale="log", xlabel="dimension d", ylabel="examples needed")
    right.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0))
    return figure


def _named(row: ClaimRow, shown: Sequence[ClaimRow]) -> str:
    """The claim in a few words with its chapter, and its profile where several recorded it."""
    several = sum(row.key == other.key for other in shown) > 1
    name = _NAMES.get(row.key, row.key.replace("_", " "))
    return f"{row.chapter}: {name}" + (f"\n({row.profile})" if several else "")


def _marks(rows: Sequence[ClaimRow]) -> list[Line2D]:
    """One entry of the legend for each verdict that occurs."""
    occurring = {row.verdict for row in rows}
    return [
        Line2D([], [], ls="", marker=marker, color=color, label=name)
        for verdict, (name, color, marker) in _LOOKS.items()
        if verdict in occurring
    ]
