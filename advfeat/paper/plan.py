"""The plan of a grid: jobs, each with the jobs that it needs, as ``workflow/Snakefile`` reads them.

Networks and datasets are made first, each once, however many chapters ask for it. Then every chapter is run and
recorded for each seed and setting, into a folder of its own, and the records of the seeds are joined.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from advfeat.experiments.profiles import profile_name
from advfeat.experiments.recipes import AutoAttackRecipe, NetworkRecipe
from advfeat.experiments.run import Run
from advfeat.files import write_whole
from advfeat.paper.grid import Grid, GridSetting
from advfeat.paper.needs import ArtifactRecipe, below, needed, with_all_below
from advfeat.paper.trials import TRIALS


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
    """The jobs of a grid, in an order in which they can be run.

    Args:
        until: name of a job; the plan may end with it.
    """

    def __init__(self, grid: Grid, *, until: str = "") -> None:
        self.grid = grid
        self.runs: dict[str, Run] = {}
        for setting in grid.settings:
            self.runs[setting.name] = run_at(grid, setting, self.runs.values())
        self.recipes: dict[str, tuple[ArtifactRecipe, str]] = {}
        self.jobs: dict[str, PlannedJob] = {}
        for setting in grid.settings:
            for chapter in grid.chapters:
                for job in self._of_chapter(setting, chapter):
                    self.jobs.setdefault(job.name, job)
            if until in self.jobs:
                return
        if grid.trial:
            recorded = tuple(name for name in self.jobs if name.startswith("record/"))
            about = f"the record of the trial {grid.trial}, all settings and seeds"
            self.jobs["join/trial"] = PlannedJob("join/trial", recorded, about, seconds=0.0)
        elif len(grid.settings) > 1:
            joined = tuple(name for name in self.jobs if name.startswith("join/"))
            self.jobs["join/table"] = PlannedJob(
                "join/table", joined, "one table and one figure of all settings", seconds=0.0
            )

    def _of_chapter(self, setting: GridSetting, chapter: str) -> Iterator[PlannedJob]:
        run = self.runs[setting.name]
        recorded = []
        for seed in self.grid.seeds:
            asked = self._asked(setting, chapter, seed)
            for recipe in asked:
                self.recipes.setdefault(job_name(recipe, run), (recipe, setting.name))
                before = tuple(job_name(one, run) for one in below(recipe))
                yield PlannedJob(job_name(recipe, run), before, described(recipe), done=is_stored(recipe, run))
            name = f"record/{setting.name}/{chapter}/seed={seed}"
            what = f"trial {self.grid.trial}" if self.grid.trial else f"chapter {chapter[:2]}"
            about = f"{what} on {profile_name(self.grid.profile)}, {setting.name}, seed {seed}"
            done = self.grid.record_of(setting.name, chapter, seed).exists()
            yield PlannedJob(name, tuple(job_name(recipe, run) for recipe in asked), about, done=done)
            recorded.append(name)
        if not self.grid.trial:
            name = f"join/{setting.name}/{chapter}"
            about = f"the record of chapter {chapter[:2]}, {setting.name}, all seeds"
            yield PlannedJob(name, tuple(recorded), about, seconds=0.0)

    def _asked(self, setting: GridSetting, chapter: str, seed: int) -> list[ArtifactRecipe]:
        """The recipes that are made before a chapter, or a trial beside that at the first settings."""
        run, trial = self.runs[setting.name], self.grid.trial
        if not trial:
            return needed(chapter, run, seed=seed, source_seed=seed)
        both = [TRIALS[trial](of, seed).values() for of in (self.runs[self.grid.settings[0].name], run)]
        return with_all_below([recipe for of in both for recipe in of], run)

    def note(self, job: PlannedJob) -> Path:
        """The note that a job is done, which the engine of the workflow looks at."""
        return self.grid.folder / "done" / f"{job.name}.done"

    def log(self, job: PlannedJob) -> Path:
        """What the job printed, its error included."""
        return self.grid.folder / "logs" / f"{job.name}.log"

    def write(self, path: Path, file: Path) -> None:
        """Write the jobs of the grid in ``file`` for the engine of the workflow.

        A note of a job whose result is gone is taken back, and a result without a note gets one. What is joined is
        joined anew, which takes no time: a record of one seed may be gone, or the joined one.
        """
        for job in self.jobs.values():
            note = self.note(job)
            if job.done and not note.exists():
                note.parent.mkdir(parents=True, exist_ok=True)
                write_whole(note, "it was there before\n")
            elif not job.done:
                note.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"folder": str(self.grid.folder), "python": sys.executable, "file": str(file)}
        write_whole(path, json.dumps({**about, "jobs": [asdict(job) for job in self.jobs.values()]}, indent=1))


def run_at(grid: Grid, setting: GridSetting, others: Iterable[Run] = ()) -> Run:
    """The run at a setting; it shares its images with one of the ``others``, if they are the same."""
    run = Run(grid.profile, overrides=setting.overrides)
    for other in others:
        if other.profile.data == run.profile.data:
            run.share_images(other)
            break
    return run


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
