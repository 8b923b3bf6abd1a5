"""Records of a trial: one for each setting and seed, and the one of all of them that a chapter shows."""

from __future__ import annotations

from pathlib import Path

from advfeat.estimates import Measured
from advfeat.experiments.profiles import profile_name
from advfeat.experiments.record_writing import join_record, save_record
from advfeat.experiments.records import Record, load_record, results_in
from advfeat.paper.grid import Grid
from advfeat.paper.plan import run_at
from advfeat.paper.trials import measure


def record_trial(grid: Grid, setting: str, seed: int) -> Path:
    """Measure a trial at one setting beside the first one, and record it; returns the record.

    Raises:
        ValueError: the two do not see the same held-out images, and from ``save_record``.
    """
    base = run_at(grid, grid.settings[0])
    run = base if setting == grid.settings[0].name else run_at(grid, grid.setting(setting), [base])
    values, seconds = measure(grid.trial, run, base, name=setting, seed=seed)
    return save_record(
        grid.chapters[0],
        run.profile.name,
        seed=seed,
        values=values,
        provenance={**run.provenance, "data": run.train_set.name, "fingerprint": run.train_set.fingerprint()},
        config=run.describe(),
        seconds=seconds,
    )


def join_trial(grid: Grid) -> Path:
    """Make one record of all settings and seeds: of those settings that are recorded for every seed.

    Its config is that of the base; a table ``settings`` says how the others differ.

    Raises:
        FileNotFoundError: the base is not recorded for every seed.
        ValueError: a record cannot be read, and from ``join_record``.
    """
    chapter, profile = grid.chapters[0], profile_name(grid.profile)

    def found(setting: str, seed: int) -> Record:
        with results_in(grid.results_of_seed(setting, chapter, seed)):
            return load_record(chapter, profile)

    there = [
        one
        for one in grid.settings
        if one is grid.settings[0] or all(grid.record_of(one.name, chapter, seed).exists() for seed in grid.seeds)
    ]
    rows = [{"name": one.name, "about": one.about, "settings": dict(one.overrides)} for one in there]
    folders = []
    for seed in grid.seeds:
        parts = [found(one.name, seed).runs[seed] for one in there]
        first = parts[0]
        folders.append(grid.results_of_seed("all", chapter, seed))
        grid.record_of("all", chapter, seed).unlink(missing_ok=True)
        with results_in(folders[-1]):
            save_record(
                chapter,
                profile,
                seed=seed,
                values={key: Measured(**value) for part in parts for key, value in part["values"].items()},
                provenance=first["provenance"],
                config={**first["config"], "compared": {row["name"]: row["settings"] for row in rows}},
                seconds={key: value for part in parts for key, value in part["seconds"].items()},
                tables={"settings": rows},
            )
    with results_in(grid.results):
        return join_record(chapter, profile, folders)
