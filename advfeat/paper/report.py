"""What a plan costs, as a table for people; and what came of a sweep, as a table for programs and a figure."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from typing import Any

import matplotlib.pyplot as plt

from advfeat.experiments.records import BOOK
from advfeat.files import write_whole
from advfeat.pages import plots
from advfeat.paper.costs import Costs, megabytes
from advfeat.paper.grid import Grid
from advfeat.paper.plan import JobPlan


def estimated(plan: JobPlan) -> None:
    """Give the jobs that are to be done their cost, after trials of the kinds that were not tried here before."""
    costs = Costs(plan.grid.folder.parent / "costs.json")
    for name, job in plan.jobs.items():
        if job.done or job.kind == "join":
            continue
        if job.kind == "record":
            _, setting, chapter, _ = name.split("/")
            run = plan.runs[setting]
            recipes = [plan.recipes[one][0] for one in job.needs]
            own = costs.measured(recipes, run) if plan.grid.trial else costs.chapter(chapter, run)
            plan.jobs[name] = dataclasses.replace(job, seconds=own)
        else:
            recipe, setting = plan.recipes[name]
            run = plan.runs[setting]
            cost: dict[str, Any] = {"seconds": costs.seconds(recipe, run), "megabytes": megabytes(recipe, run)}
            plan.jobs[name] = dataclasses.replace(job, **cost)


def show(plan: JobPlan, at_a_time: int) -> str:
    """The plan in words: each job, whether it is done, its cost; and the sum."""
    grid, lines = plan.grid, []
    lines.append(f"grid {grid.name}: profile {grid.profile}, seeds {', '.join(map(str, grid.seeds))}")
    for job in plan.jobs.values():
        state = "there" if job.done else duration(job.seconds)
        lines.append(f"  {state:>9}  {job.kind:8}{job.about}")
    to_do = [job for job in plan.jobs.values() if not job.done]
    total = sum(job.seconds or 0 for job in to_do)
    space = sum(job.megabytes for job in to_do)
    unknown = sum(job.seconds is None for job in to_do)
    store = next(iter(plan.runs.values())).store.root
    lines.append(
        f"{len(plan.jobs) - len(to_do)} of {len(plan.jobs)} are there; the others take about {total / 3600:.2g} "
        f"core-hours ({duration(total / at_a_time)} with {at_a_time} at a time) and {space / 1000:.2g} GB in {store}"
    )
    if unknown:
        lines.append(f"(without the measurements of {unknown} chapters that have no record at this profile yet)")
    return "\n".join(lines)


def failures(plan: JobPlan) -> str:
    """The jobs that began and did not end, with the end of what each printed and where the rest of it is."""
    lines = []
    for job in plan.jobs.values():
        log = plan.log(job)
        if log.exists() and not plan.note(job).exists():
            lines.append(f"{job.kind} {job.about}: {log}")
            printed = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            lines += [f"    {line}" for line in printed[-3:]]
    return "\n".join(lines)


def duration(seconds: float | None) -> str:
    """A time as people say it."""
    if seconds is None:
        return "?"
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return "0 s" if seconds == 0 else "< 1 s"


def write_table(grid: Grid) -> None:
    """Write all recorded numbers of all settings into one table, ``table.csv``, and a figure, ``sweep.svg``, beside it.

    The figure shows the numbers that the claims of the book rest on, by the first setting that takes several numbers.
    """
    rows: list[dict[str, Any]] = []
    for setting in grid.settings:
        index = json.loads((grid.results_of(setting) / "index.json").read_text(encoding="utf-8"))
        rows += [{**setting.overrides, **row} for row in index]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    grid.results.mkdir(parents=True, exist_ok=True)
    write_whole(grid.results / "table.csv", stream.getvalue())
    swept = next((key for key, values in _swept(grid).items() if len(values) > 1), None)
    if swept is not None:
        _figure(grid, rows, swept)


def _swept(grid: Grid) -> dict[str, list[float]]:
    """GridSetting → the numbers that it takes."""
    names = list(grid.settings[0].overrides)
    values = {name: [one.overrides[name] for one in grid.settings] for name in names}
    return {name: sorted(set(of)) for name, of in values.items() if all(type(v) in (int, float) for v in of)}


def _figure(grid: Grid, rows: list[dict[str, Any]], swept: str) -> None:
    text = (BOOK / "claims.json").read_text(encoding="utf-8")
    recorded = dict.fromkeys(row["id"] for row in rows)
    shown = [key for key in recorded if json.dumps(key) in text][:9] or list(recorded)[:9]
    others = [name for name in grid.settings[0].overrides if name != swept]
    plots.use_style()
    columns = min(3, len(shown))
    lines_of_panels = -(-len(shown) // columns)
    size = (3.2 * columns, 2.6 * lines_of_panels)
    figure, axes = plt.subplots(lines_of_panels, columns, figsize=size, squeeze=False)
    for axis, key in zip(axes.flat, shown, strict=False):
        lines: dict[str, list[dict[str, Any]]] = {}
        for row in (row for row in rows if row["id"] == key):
            lines.setdefault(", ".join(f"{name}={row[name]}" for name in others), []).append(row)
        for label, points in lines.items():
            points.sort(key=lambda row: row[swept])
            at, middle = [row[swept] for row in points], [row["value"] for row in points]
            apart = [[row["value"] - row["low"] for row in points], [row["high"] - row["value"] for row in points]]
            axis.errorbar(at, middle, apart, marker="o", capsize=3, label=label)
        axis.set(title=key, xlabel=swept)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    if others:
        axes.flat[0].legend()
    figure.savefig(grid.results / "sweep.svg")
    plt.close(figure)
