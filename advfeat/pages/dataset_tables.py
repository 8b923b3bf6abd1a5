"""Tables of the recorded numbers of chapters 4 to 6: a record in, a table out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from advfeat.estimates import Estimate, Summary, correlation_of
from advfeat.experiments.records import Record
from advfeat.pages.dataset_figures import ARCHITECTURES, ATTACKS
from advfeat.pages.wording import threat_in_words

DISTANCES = {
    "start": "representations apart at the start",
    "match": "… at the end",
    "noise": "… at the end, from noise",
    "moved": "the picture moved by",
    "away": "still away from x by",
    "apart": "x' and x are apart by",
}
"""Last word of the id of a distance in chapter 4 → its name."""

MEASURED = {
    "clean": "accuracy, trained on D",
    "det_accuracy": "accuracy, trained on D_det",
    "visible": "says the class after it",
    "det_training": "on D_det itself, last epoch",
    "transfer": "transfer, untargeted",
    "random": "loses to random directions",
    "targeted": "transfer, targeted",
    "arrived": "the target, where the answer changes",
    "same_mistake": "the same mistake",
    "same_mistake_chance": "by chance",
}
"""Last word of the id of a number of one architecture in chapter 6 → its name, in the order of the table."""

CORRELATED = {
    "says the label after D_det, with transfer": ("det_accuracy", "transfer"),
    "the same, with targeted transfer": ("det_accuracy", "targeted"),
    "says the class after it, with transfer": ("visible", "transfer"),
    "accuracy on D, with transfer": ("clean", "transfer"),
}
"""Name of a correlation in chapter 6 → the two keys of ``MEASURED``."""


def by_steps(record: Record) -> dict[int, dict[str, Summary]]:
    """Chapter 4: number of matching steps → key of ``ATTACKS`` → accuracy after them; empty if none is recorded."""
    found = record.matching("fig2/D_R/steps*/*")
    counts = sorted({int(steps) for steps, _ in found})
    return {count: {at: found[str(count), at] for at in ATTACKS} for count in counts}


def matching_trials(record: Record) -> pd.DataFrame:
    """Chapter 4: accuracies after the trials of fewer and more steps, and after searches from noise, one row each."""
    trials = {f"D_R, {count} steps": found for count, found in by_steps(record).items()}
    noise = record.matching("fig2/*/noise/*")
    for kind in ("D_R", "D_NR"):
        if (kind, "clean") in noise:
            trials[f"{kind} from noise"] = {at: noise[kind, at] for at in ATTACKS}
    rows = {
        trial: {
            **{name: str(found[at]) for at, name in ATTACKS.items()},
            "attack": found["eps0.5"].attack.split(",")[0],
            "n attacked, seeds": f"{found['eps0.5'].n:,}, {found['eps0.5'].seeds}",
        }
        for trial, found in trials.items()
    }
    return pd.DataFrame(rows).T.rename_axis(record.title)


def matching_checks(record: Record) -> list[pd.DataFrame]:
    """Chapter 4: up to three tables: stronger attacks, distances, and who sees which label in the images.

    A table of which nothing is recorded is left out.
    """
    checks = {
        (threat_in_words(found.attack), network): f"{found}, n = {found.n:,}"
        for (network, _), found in record.matching("fig2/*/checked/**").items()
    }
    distances = {
        (DISTANCES[key], kind): f"{found:.2f}" for (kind, key), found in record.matching("matched/*/*").items()
    }
    said = {
        (f"network: {judge.replace('-', ', ')}", f"{kind}: the {whose}"): str(found)
        for (kind, judge, whose), found in record.matching("says/*/*/*").items()
    }
    tables = [pd.Series(rows).unstack(sort=False) for rows in (checks, distances, said) if rows]
    return [table.fillna("–").rename_axis(record.title) for table in tables]


def by_architecture(record: Record) -> dict[str, dict[str, Summary]]:
    """Chapter 6: key of ``MEASURED`` → architecture → its recorded number, where there is one."""
    found = record.matching("fig3/*/*")
    return {key: {name: found[name, key] for name in ARCHITECTURES if (name, key) in found} for key in MEASURED}


def architectures(record: Record) -> pd.DataFrame:
    """Chapter 6: all recorded numbers of the five architectures, one column each."""
    found = by_architecture(record)
    columns = {}
    for name, clean in found["clean"].items():
        rows = {"network": clean.network}
        for key, title in MEASURED.items():
            if number := found[key].get(name):  # the rate of chance is over pairs of images: no interval
                rows[title] = f"{number.value if key.endswith('_chance') else number:.1%}"
        columns[ARCHITECTURES[name]] = {**rows, "seeds": clean.seeds}
    return pd.DataFrame(columns).fillna("–").rename_axis(record.title)


def correlations(measured: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> pd.DataFrame:
    """Chapter 6: correlations of two measurements of the five architectures, one column for each run.

    Args:
        measured: title of a run → its numbers by ``by_architecture``.
    """
    columns = {
        title: {name: f"{correlation_of(found[one], found[other]):.2f}" for name, (one, other) in CORRELATED.items()}
        for title, found in measured.items()
    }
    return pd.DataFrame(columns).rename_axis("correlation of five points")
