"""``python -m advfeat.paper run GRID`` makes the records of a grid, as ``make paper`` does; ``job`` is a step of it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from advfeat.checkout import CHECKOUT
from advfeat.experiments.profiles import profile_name
from advfeat.experiments.recipes import NetworkRecipe
from advfeat.experiments.record_writing import join_record
from advfeat.experiments.records import results_in
from advfeat.files import write_whole
from advfeat.pages.environment import cores, prepare_environment
from advfeat.pages.parameters import Refused
from advfeat.pages.runner import main as pages
from advfeat.paper.grid import Grid, read_grid
from advfeat.paper.plan import JobPlan
from advfeat.paper.report import estimated, failures, show, write_table
from advfeat.paper.trial_records import join_trial, record_trial

SNAKEFILE = CHECKOUT / "workflow" / "Snakefile"


def run_grid(path: str, *, dry: bool, jobs: int, more: Sequence[str]) -> int:
    """Plan a grid, show the plan, and let Snakemake run it unless the run is ``dry``; returns Snakemake's exit code.

    What exists is not made again, so the same command goes on after any interruption.

    Args:
        jobs: how many at a time.
        more: arguments for Snakemake, such as ``--executor slurm``.

    Raises:
        Refused: the grid cannot be read, or another process runs it.
        FileNotFoundError: Snakemake is not there.
    """
    grid = read_grid(path)
    plan = JobPlan(grid)
    estimated(plan)
    print(show(plan, jobs))
    if dry:
        return 0
    snakemake = os.environ.get("ADVFEAT_SNAKEMAKE") or shutil.which("snakemake")
    if not snakemake:
        raise FileNotFoundError("Snakemake is not there; `make paper` installs it, or name it in ADVFEAT_SNAKEMAKE")
    grid.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(grid.folder / "lock", timeout=0):
            written = grid.folder / "plan.json"
            plan.write(written, Path(path).resolve())
            command = [snakemake, "-s", str(SNAKEFILE), "--config", f"plan={written}", "-d", str(grid.folder)]
            # A process that was killed leaves Snakemake's lock behind. Ours went with it, so nobody else is at work.
            subprocess.run([*command, "--unlock", "--quiet", "all"], check=False, capture_output=True)
            # Our notes are whole or absent, so a job that Snakemake did not see end has ended if its note is there.
            how = ["--ignore-incomplete", "--rerun-triggers", "mtime", "--keep-going", "--quiet", "rules"]
            # By its cores here, by its jobs on a cluster, which asks for one core each.
            at_a_time = ["--cores", str(jobs), "--jobs", str(jobs)]
            code = subprocess.run([*command, *at_a_time, *how, *more], check=False).returncode
    except Timeout:
        raise Refused(f"another process runs the grid {grid.name}: {grid.folder / 'lock'} is held") from None
    if code == 0:
        print(f"\nrecords: {grid.results}")
    else:
        print(f"\n{failures(plan)}\nNot everything was made. The same command goes on.")
    return code


def run_job(path: str, name: str, note: Path) -> int:
    """One job of a grid: make, record or join something, and write its note."""
    grid = read_grid(path)
    kind, began = name.partition("/")[0], time.perf_counter()
    if kind == "record":
        _, setting, chapter, seed = name.split("/")
        if code := _record(grid, setting, chapter, int(seed.removeprefix("seed="))):
            return code
    elif kind == "join":
        _join(grid, name)
    else:
        plan = JobPlan(grid, until=name)
        if name not in plan.recipes:
            raise Refused(f"grid {path} has no job {name!r}")
        recipe, setting = plan.recipes[name]
        make = plan.runs[setting]
        print(make.make_network(recipe) if isinstance(recipe, NetworkRecipe) else make.make_dataset(recipe))
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, f"{time.perf_counter() - began:.1f} seconds\n")
    return 0


def _record(grid: Grid, setting: str, chapter: str, seed: int) -> int:
    """Record a chapter, or a trial, at a setting and seed; returns an exit code."""
    with results_in(grid.results_of_seed(setting, chapter, seed)):
        if grid.trial:
            made = record_trial(grid, setting, seed)
            for key, found in json.loads(made.read_text(encoding="utf-8"))["runs"][str(seed)]["values"].items():
                print(f"{key}: {found['value']:.4f}")
            return 0
        given = [text for pair in grid.parameters(chapter, setting, seed) for text in ("-p", *pair)]
        return pages(["record", chapter, "--profile", grid.profile, *given])


def _join(grid: Grid, name: str) -> None:
    if name == "join/table":
        write_table(grid)
    elif name == "join/trial":
        print(join_trial(grid))
    else:
        _, named, chapter = name.split("/")
        folders = [grid.results_of_seed(named, chapter, seed) for seed in grid.seeds]
        with results_in(grid.results_of(grid.setting(named))):
            print(join_record(chapter, profile_name(grid.profile), folders))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m advfeat.paper", description="Make the records of a grid.")
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser("run", help="all jobs of a grid; other arguments go to Snakemake")
    whole.add_argument("grid")
    whole.add_argument("--dry-run", "-n", action="store_true", help="show what exists and what the rest costs")
    whole.add_argument("--jobs", "-j", type=int, default=cores(), help="jobs at a time (default: as many as cores)")
    one = commands.add_parser("job", help="one job of a grid, as Snakemake calls it")
    one.add_argument("grid")
    one.add_argument("name")
    one.add_argument("--note", type=Path, required=True)
    arguments, more = parser.parse_known_args(argv)
    if more and arguments.command == "job":
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    os.environ.setdefault("ADVFEAT_PROGRESS", "off")  # several jobs at a time would draw their bars over each other
    prepare_environment()
    try:
        if arguments.command == "run":
            if arguments.jobs < 1:
                raise Refused(f"--jobs must be at least 1, got {arguments.jobs}")
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // arguments.jobs)))
            return run_grid(arguments.grid, dry=arguments.dry_run, jobs=arguments.jobs, more=more)
        return run_job(arguments.grid, arguments.name, arguments.note)
    except (Refused, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1


if __name__ == "__main__":
    sys.exit(main())
