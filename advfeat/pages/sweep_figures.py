"""Figures of chapter 5 about a sweep: what one factor of Table 1 is worth, beside the settings as they are."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from advfeat.experiments.records import Record
from advfeat.pages.dataset_figures import SETS
from advfeat.pages.identity import GREY, colors_of


def worth_of_factors(record: Record) -> Figure:
    """The gain of every setting over the base, in points of accuracy, with its paired interval: D_rand, D_det.

    A row is a setting, in the order of the record; its mark is grey where the interval holds 0. A network that a
    setting leaves as it is has no mark.

    Args:
        record: of a trial, as ``paper.trial_records.join_trial`` makes it.
    """
    named = [row for row in record.first["tables"]["settings"] if row["settings"]]
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 1.1 + 0.27 * len(named)), sharey=True)
    for axis, kind, color in zip(axes, ("D_rand", "D_det"), colors_of(("D_rand", "D_det")), strict=True):
        base = record.summary(f"table1/sweep/base/{kind}")
        gains = {name: gain for (name,), gain in record.matching(f"table1/sweep/*/{kind}/gain").items()}
        for place, row in enumerate(named):
            if gain := gains.get(row["name"]):
                low, middle, high = (100 * end for end in (gain.low, gain.value, gain.high))
                shown = color if low > 0 or high < 0 else GREY
                ends = [[middle - low], [high - middle]]
                axis.errorbar(middle, place, xerr=ends, fmt="o", capsize=3, color=shown)
        axis.axvline(0, color="black", linewidth=1)
        axis.set(title=f"{SETS[kind]}, {base.value:.1%} as it is", xlabel="points of accuracy gained")
    axes[0].set_yticks(range(len(named)), [row["about"] for row in named])
    axes[0].invert_yaxis()
    return figure
