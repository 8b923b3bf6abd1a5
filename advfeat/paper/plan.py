"""The plan of a grid: jobs, each with the jobs that it needs, as ``workflow/Snakefile`` reads them.

Networks and datasets are made first, each once, however many chapters ask for it. Then every chapter is run and
recorded for each seed and setting, into a folder of its own, and the records of the seeds are joined.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from advfeat.experiments.profiles import profile_name
from advfeat.experiments.recipes import AutoAttackRecipe, NetworkRecipe
from advfeat.experiments.run import Run
from advfeat.files import write_whole
from advfeat.pages.chapter_files import find_chapter
from advfeat.pages.parameters import parameters_of
from advfeat.paper.grid import Grid, GridSetting
from advfeat.paper.needs import ArtifactRecipe, below, needed


@dataclass(frozen=True)
class PlannedJob:
    """One step of a plan.

    Attributes:
        name: of the job; also of the note that it is done, and of its log.
        needs: names of the jobs before it.
        about: the job in words.
        seconds: estimated wall time on one core; None where nothing is known about it.
        megabytes: what it leaves on the disk.
        done: whether what it makes is there.
    """

    name: str
    needs: tuple[str, ...]
    about: str
    seconds: float | None = None
    megabytes: float = 0.0
    done: bool = False

    @property
    def kind(self) -> str:
        """``network``, ``dataset``, ``record`` or ``join``."""
        return self.name.partition("/")[0]


class JobPlan:
    """The jobs of a grid, in an order in which they can be run."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.runs = {setting.name: Run(grid.profile, overrides=setting.overrides) for setting in grid.settings}
        self.recipes: dict[str, tuple[ArtifactRecipe, str]] = {}
        self.jobs: dict[str, PlannedJob] = {}
        for setting in grid.settings:
            for chapter in grid.chapters:
                for job in self._of_chapter(setting, chapter):
                    self.jobs.setdefault(job.name, job)
        if len(grid.settings) > 1:
            joined = tuple(name for name in self.jobs if name.startswith("join/"))
            self.jobs["join/table"] = PlannedJob(
                "join/table", joined, "one table and one figure of all settings", seconds=0.0
            )

    def _of_chapter(self, setting: GridSetting, chapter: str) -> Iterator[PlannedJob]:
        run = self.runs[setting.name]
        recorded = []
        for seed in self.grid.seeds:
            asked = needed(chapter, run, seed=seed, source_seed=0)
            for recipe in asked:
                self.recipes.setdefault(job_name(recipe, run), (recipe, setting.name))
                before = tuple(job_name(one, run) for one in below(recipe))
                yield PlannedJob(job_name(recipe, run), before, described(recipe), done=is_stored(recipe, run))
            name = f"record/{setting.name}/{chapter}/seed={seed}"
            about = f"chapter {chapter[:2]} on {profile_name(self.grid.profile)}, {setting.name}, seed {seed}"
            done = (self.record_of(setting.name, chapter, seed)).exists()
            yield PlannedJob(name, tuple(job_name(recipe, run) for recipe in asked), about, done=done)
            recorded.append(name)
        name = f"join/{setting.name}/{chapter}"
        about = f"the record of chapter {chapter[:2]}, {setting.name}, all seeds"
        # Joined anew with every seed that is recorded anew; it takes no time.
        yield PlannedJob(name, tuple(recorded), about, seconds=0.0)

    def results_of_seed(self, setting: str, chapter: str, seed: int) -> Path:
        """The folder of results that one run of a chapter records to, alone."""
        return self.grid.folder / "records" / setting / f"{chapter}.seed={seed}"

    def record_of(self, setting: str, chapter: str, seed: int) -> Path:
        """The record in that folder."""
        return self.results_of_seed(setting, chapter, seed) / chapter / profile_name(self.grid.profile) / "record.json"

    def note(self, job: PlannedJob) -> Path:
        """The note that a job is done, which the engine of the workflow looks at."""
        return self.grid.folder / "done" / f"{job.name}.done"

    def write(self, path: Path, file: Path) -> None:
        """Write the jobs of the grid in ``file`` for the engine of the workflow.

        A note of a job whose result is gone is taken back, and a result without a note gets one.
        """
        for job in self.jobs.values():
            note = self.note(job)
            if job.kind == "join":
                continue
            if job.done and not note.exists():
                note.parent.mkdir(parents=True, exist_ok=True)
                write_whole(note, "it was there before\n")
            elif not job.done:
                note.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"folder": str(self.grid.folder), "python": sys.executable, "file": str(file)}
        write_whole(path, json.dumps({**about, "jobs": [asdict(job) for job in self.jobs.values()]}, indent=1))

    def parameters(self, chapter: str, setting: str, seed: int) -> list[tuple[str, str]]:
        """The parameters of a chapter's run, as they are typed."""
        known = parameters_of(find_chapter(chapter))
        overrides = next(one.overrides for one in self.grid.settings if one.name == setting)
        given = {"seed": str(seed), **({"overrides": json.dumps(dict(overrides))} if overrides else {})}
        if missing := sorted(given.keys() - known.keys()):
            raise ValueError(f"chapter {chapter} has no parameter {', '.join(missing)}")
        return list(given.items())


def job_name(recipe: ArtifactRecipe, run: Run) -> str:
    """Of the job that makes something: its kind and its key in the store."""
    kind = "network" if isinstance(recipe, NetworkRecipe) else "dataset"
    return f"{kind}/{run.store.key(recipe.key_parts())}"


def is_stored(recipe: ArtifactRecipe, run: Run) -> bool:
    """Whether the store holds it."""
    return run.store.holds("models" if isinstance(recipe, NetworkRecipe) else "datasets", recipe.key_parts())


def described(recipe: ArtifactRecipe) -> str:
    """A network or dataset in a few words."""
    if isinstance(recipe, NetworkRecipe):
        on = recipe.data
        number = "" if not hasattr(on, "source") else f" of seed {on.source.seed}"
        return f"{recipe}{number}, {recipe.words()}, seed {recipe.seed}"
    if isinstance(recipe, AutoAttackRecipe):
        return f"AutoAttack, {recipe.threat}, {recipe.images} images, on: {described(recipe.model)}"
    return f"{recipe.kind}, {recipe.steps} steps, by: {described(recipe.source)}"
