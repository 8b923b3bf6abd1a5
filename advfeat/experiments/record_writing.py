"""Writes records: the run of one seed into its record, and the index of all recorded numbers."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from advfeat import inputs
from advfeat.estimates import Measured
from advfeat.experiments.records import engine_of, load_record, readable_records, results_in, results_root
from advfeat.files import sweep, write_whole


def save_record(
    chapter: str,
    profile: str,
    *,
    seed: int,
    values: Mapping[str, Measured],
    provenance: Mapping[str, object],
    config: Mapping[str, object],
    seconds: Mapping[str, float],
    series: Mapping[str, list[float]] | None = None,
    sheets: Mapping[str, Float[Tensor, "rows columns 3 h w"]] | None = None,
    tables: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
) -> Path:
    """Add the run of one seed to a record (or replace it) and bring the index up to date.

    Args:
        chapter: stem of the chapter's file.
        values: id → measured number; ids read like paths, ``table1/D_rand``.
        provenance: the answer of ``provenance()`` when the run began, and the data's fingerprint.
        config: every setting, in JSON types.
        seconds: stage → wall time.
        series: curves that the chapter draws, such as accuracy by epoch.
        sheets: name → grid of images in [0, 1], kept as one PNG each; of several seeds only those of the lowest.
        tables: name → rows in JSON types, for results that are not a number with an interval.

    Raises:
        ValueError: a value is neither a rate in [0, 1] nor inside its interval, ``n`` is not positive, a number
            anywhere is not finite, or another seed was recorded with other settings or another engine, so that a mean
            over both would mean nothing. Also if the present record cannot be read; then this run is kept beside it.
        TypeError: a value whose type JSON does not know.
    """
    inputs.text("chapter", chapter)
    inputs.text("profile", profile)
    inputs.seed(seed)
    inputs.instance("values", values, Mapping, "a mapping from ids to Measured")
    for key, item in values.items():
        inputs.instance(f"values[{key!r}]", item, Measured, "a records.Measured")
        if not item.accepted:
            raise ValueError(f"{key} must be a rate in [0, 1], or lie in [low, high], over n >= 1 images, got {item}")
    folder = results_root() / chapter / profile
    folder.mkdir(parents=True, exist_ok=True)
    run = {
        "provenance": dict(provenance),
        "config": dict(config),
        "seconds": dict(seconds),
        "values": {key: _written(item) for key, item in sorted(values.items())},
        "series": dict(series or {}),
        **({"tables": {name: [dict(row) for row in rows] for name, rows in tables.items()}} if tables else {}),
    }
    run = _plain_json(run, f"seed {seed}")  # as JSON will read it back: a tuple becomes a list
    path = folder / "record.json"
    with FileLock(results_root() / ".lock"):
        for swept in (folder, results_root()):
            sweep(swept)
        try:
            before = load_record(chapter, profile).runs if path.exists() else {}
            known = {str(other): saved for other, saved in before.items()}
        except ValueError as error:
            kept = folder / f"record.seed{seed}.json"
            _write_json(kept, {"chapter": chapter, "profile": profile, "runs": {str(seed): run}})
            raise ValueError(f"{error}; this run is kept in {kept}") from error
        for other in known.keys() - {str(seed)}:
            if differ := _incomparable(other, known[other], seed, run):
                raise ValueError(
                    f"{path} holds {differ}; record this run elsewhere (ADVFEAT_RESULTS names the folder), or delete "
                    "the old one"
                )
        runs = dict(sorted({**known, str(seed): run}.items(), key=lambda item: int(item[0])))
        if str(seed) == next(iter(runs)):
            for name, grid in (sheets or {}).items():
                _write_sheet(folder / f"{name}.png", grid)
        _write_json(path, {"chapter": chapter, "profile": profile, "runs": runs})
        write_index()
    return path


def join_record(chapter: str, profile: str, folders: Sequence[Path]) -> Path:
    """Make one record of the runs in several folders of results, in place of any that is there.

    Args:
        chapter: stem of the chapter's file.
        folders: each a folder as ``ADVFEAT_RESULTS`` names one, with a record of this chapter and profile in it.

    Raises:
        FileNotFoundError: a folder holds no such record.
        ValueError: a record cannot be read; two hold the same seed; or their settings or engines differ.
    """
    found = []
    for folder in folders:
        with results_in(folder):
            found.append(load_record(chapter, profile))
    if not found:
        raise ValueError(f"folders must name at least one folder of results, got {folders!r}")
    runs: dict[int, Mapping[str, Any]] = {}
    for record in found:
        for seed, run in record.runs.items():
            if seed in runs:
                raise ValueError(f"seed {seed} of {chapter} is recorded twice, the second time in {record.folder}")
            for other in list(runs)[:1]:
                if differ := _incomparable(other, runs[other], seed, run):
                    raise ValueError(f"{record.folder} cannot be joined with the others of {chapter}: {differ}")
            runs[seed] = run
    target = results_root() / chapter / profile
    target.mkdir(parents=True, exist_ok=True)
    with FileLock(results_root() / ".lock"):
        sheets = {sheet.name: sheet for sheet in min(found, key=lambda one: min(one.runs)).folder.glob("*.png")}
        for old in target.glob("*.png"):
            if old.name not in sheets:
                old.unlink()
        for name, sheet in sheets.items():
            write_whole(target / name, sheet.read_bytes())
        content = {str(seed): runs[seed] for seed in sorted(runs)}
        _write_json(target / "record.json", {"chapter": chapter, "profile": profile, "runs": content})
        write_index()
    return target / "record.json"


def _incomparable(seed: int | str, one: Mapping[str, Any], other_seed: int, other: Mapping[str, Any]) -> str:
    """How two runs differ so that a mean over both would mean nothing, in words; "" if they do not."""
    if one["config"] != other["config"]:
        return f"seed {seed} with other settings than seed {other_seed}"
    engine, another = engine_of(one), engine_of(other)
    if engine != another:
        return f"seed {seed} computed with the engine {engine}, but seed {other_seed} was computed with {another}"
    return ""


def write_index() -> None:
    """Bring ``index.json`` up to date, for example after a record was copied here from another machine.

    A record that cannot be read is left out, with a warning that names it. Mend the record and call this function
    again to get its numbers back into the index.
    """
    _write_json(results_root() / "index.json", index_rows())


_COLUMNS = ("value", "low", "high", "n", "seeds", "network", "attack")


def index_rows() -> list[dict[str, object]]:
    """One row per recorded number of every readable record, sorted by id and profile; the content of ``index.json``.

    Device and commit are those of the record's first run.
    """
    rows = []
    for record in readable_records():
        made = record.first["provenance"]
        for key in record.ids():
            summary = record.summary(key)
            about = {"profile": record.profile, "device": made["device"], "commit": made["commit"]}
            rows.append({"id": key, **{name: getattr(summary, name) for name in _COLUMNS}, **about})
    return sorted(rows, key=lambda row: (row["id"], row["profile"]))


def _written(item: Measured) -> dict[str, object]:
    return {key: value for key, value in asdict(item).items() if value is not None}


def _write_sheet(path: Path, grid: Tensor) -> None:
    rows, columns, channels, height, width = grid.shape
    canvas = grid.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    pixels = (canvas.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    write_whole(path, stream.getvalue())


def _plain_json(value: Any, named: str) -> Any:
    """``value`` as JSON reads it back: tuples as lists, keys as strings.

    Raises:
        ValueError: a number that JSON does not know (NaN, infinity); the message gives the path to it.
        TypeError: a type that JSON does not know; the message gives the path to it.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain_json(item, f"{named}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(item, f"{named}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{named} must be a finite number to be recorded, got {value}")
    if value is not None and not isinstance(value, str | bool | int | float):
        raise TypeError(f"{named} must be a JSON type to be recorded, got {type(value).__name__}: {value!r}")
    return value


def _write_json(path: Path, content: object) -> None:
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
