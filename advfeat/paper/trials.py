"""Trials of settings: a few networks of one seed, compared on the same images with those of other settings.

A trial is cheaper than a chapter, and looks at no test images: its profile holds training images out, see
``settings.Data``. What is found there may then be recorded in full.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch

from advfeat.comparisons import paired_difference
from advfeat.estimates import Estimate, Measured
from advfeat.experiments.making import Trained
from advfeat.experiments.recipes import NetworkRecipe
from advfeat.experiments.run import Run
from advfeat.measures import predictions
from advfeat.models import freeze

BASE = "base"
"""Name of the settings that all others are compared with."""

Learners = Callable[[Run, int], dict[str, NetworkRecipe]]


def _table1(run: Run, seed: int) -> dict[str, NetworkRecipe]:
    """The networks of Table 1, their source first, all of one seed."""
    sets = {kind: run.recipes.constructed(kind, source_seed=seed) for kind in ("D_rand", "D_det")}
    learners = {kind: run.recipes.trained_on(made, seed=seed) for kind, made in sets.items()}
    return {"standard": run.recipes.source(seed=seed), **learners}


TRIALS: Mapping[str, Learners] = {"table1": _table1}
"""Name of a trial → its networks, by the names under which they are recorded, of a run and a seed."""


def trial_record(trial: str) -> str:
    """The name under which the results of a trial are recorded, in the place of a chapter's."""
    return f"{trial}-sweep"


def measure(trial: str, run: Run, base: Run, *, name: str, seed: int) -> tuple[dict[str, Measured], dict[str, float]]:
    """The accuracies of the networks of a trial on held-out images; and the seconds that their training took.

    Ids are ``table1/sweep/NAME/D_rand`` for an accuracy and ``table1/sweep/NAME/D_rand/gain`` for its difference to
    that at ``base``, whose interval is of the same images, pair by pair. Of a network on D_det also
    ``table1/sweep/NAME/D_det/after``: how often it names the class after the label, as visible content does. A network
    that is that of ``base`` is left out.

    Args:
        run: at the settings called ``name``.
        base: at those that they are compared with; the same run where there is nothing to compare.

    Raises:
        ValueError: the two do not see the same held-out images.
    """
    if run.test_set.fingerprint() != base.test_set.fingerprint():
        raise ValueError(f"{name} must see the held-out images of {BASE}; give both one held_out_from and test_images")
    labels, values, seconds = run.test_set.labels, {}, {}
    others = TRIALS[trial](base, seed)
    for kind, recipe in TRIALS[trial](run, seed).items():
        if run is not base and recipe == others[kind]:
            continue
        trained = run.make_network(recipe)
        answers = _answers(trained, run)
        seconds[f"{name}/{kind}"] = trained.seconds
        found = {"": _share(answers == labels)}
        if kind == "D_det":
            found["/after"] = _share(answers == (labels + 1) % run.test_set.num_classes)
        if run is not base:
            against = _answers(base.make_network(others[kind]), base) == labels
            gain = paired_difference(answers == labels, against)
            found["/gain"] = dataclasses.replace(gain, within=(-1.0, 1.0))
        for what, estimate in found.items():
            key = f"{trial}/sweep/{name}/{kind}{what}"
            values[key] = Measured.of_estimate(estimate, trained.network, seed=seed)
    return values, seconds


def _answers(trained: Trained, run: Run) -> torch.Tensor:
    return predictions(freeze(trained.model, dtype=torch.float32), run.test_set)


def _share(hits: torch.Tensor) -> Estimate:
    return Estimate.of_rate(int(hits.sum()), len(hits))
