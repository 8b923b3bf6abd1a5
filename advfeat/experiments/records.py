"""Results with their provenance: the only file that knows git, the date and the versions of the book's packages.

A record is one folder, ``book/results/<chapter>/<profile>/``: ``record.json`` with one run per seed, and picture
sheets (PNG) for the panels that the chapter shows. ``book/results/index.json`` lists every recorded number and is
generated from the records.
"""

from __future__ import annotations

import datetime
import io
import json
import math
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from advfeat import inputs
from advfeat.checkout import CHECKOUT
from advfeat.estimates import Measured, Summary, summarise
from advfeat.files import sweep, write_whole

BOOK = CHECKOUT / "book"
"""Folder of the chapters."""
_PACKAGES = ("advfeat", "torch", "torchvision", "numpy", "scipy")


@dataclass(frozen=True)
class Record:
    """All runs of one chapter at one profile, and the folder of its sheets.

    Attributes:
        runs: seed → ``{"provenance", "config", "values", "series", "seconds"}``, perhaps ``"tables"``, in JSON types.
    """

    chapter: str
    profile: str
    runs: Mapping[int, Mapping[str, Any]]
    folder: Path

    @property
    def first(self) -> Mapping[str, Any]:
        """The run of the lowest seed: its curves and pictures are shown; all runs have its settings."""
        return self.runs[min(self.runs)]

    def only(self, seed: int) -> Record:
        """The same record with the run of one seed only: its intervals leave out the spread between seeds.

        Raises:
            KeyError: the seed is not recorded.
        """
        if seed not in self.runs:
            raise KeyError(f"seed must be one of {', '.join(map(str, self.runs))}, got {seed!r}")
        return replace(self, runs={seed: self.runs[seed]})

    def ids(self) -> list[str]:
        """The ids of all recorded values."""
        return sorted({key for run in self.runs.values() for key in run["values"]})

    def summary(self, key: str) -> Summary:
        """The mean over seeds of one value, with its interval: see ``estimates.summarise``.

        Raises:
            KeyError: no run recorded ``key``; the message lists the recorded ids.
        """
        measured = [Measured(**run["values"][key]) for run in self.runs.values() if key in run["values"]]
        if not measured:
            raise KeyError(f"{self.chapter}/{self.profile} holds no {key!r}, only {', '.join(self.ids())}")
        return summarise(measured)

    def sheet(self, name: str) -> Path:
        """Path of a picture sheet.

        Raises:
            FileNotFoundError: the record has no sheet of that name.
        """
        path = self.folder / f"{name}.png"
        if not path.exists():
            raise FileNotFoundError(f"{self.folder} holds no sheet {name!r}")
        return path


def results_root() -> Path:
    """Folder of the records: ``ADVFEAT_RESULTS``, or ``book/results`` in the checkout.

    For an installed package without a checkout it is ``results`` in the working folder.
    """
    given = os.environ.get("ADVFEAT_RESULTS")
    return Path(given).expanduser() if given else (BOOK if BOOK.is_dir() else Path.cwd()) / "results"


@contextmanager
def results_in(folder: Path) -> Iterator[None]:
    """Make ``results_root`` another folder, so that records saved inside the block are not part of the book."""
    before = os.environ.get("ADVFEAT_RESULTS")
    os.environ["ADVFEAT_RESULTS"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("ADVFEAT_RESULTS")
        if before is not None:
            os.environ["ADVFEAT_RESULTS"] = before


def provenance(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The circumstances of a computation: commit, dirty flag, versions, device, threads, time (UTC).

    ``dirty`` is true if the code may differ from the commit: a tracked file other than a record has been changed, or
    git gave no answer.
    """
    kind = torch.device(device).type
    commit = _git("rev-parse", "HEAD")
    # Records are left out: the record of the first seed is a change, so the second seed could never be clean.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)book/results")
    return {
        "commit": commit or "unknown",
        "dirty": not commit or changed != "",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "device": torch.cuda.get_device_name() if kind == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


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
            anywhere is not finite, or another seed was recorded with other settings, so that a mean over both would
            mean nothing. Also if the present record cannot be read; then this run is kept beside it.
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
            if known[other]["config"] != run["config"]:
                raise ValueError(
                    f"{path} holds seed {other} with other settings than seed {seed}; record this run elsewhere "
                    "(ADVFEAT_RESULTS names the folder), or delete the old one"
                )
        runs = dict(sorted({**known, str(seed): run}.items(), key=lambda item: int(item[0])))
        if str(seed) == next(iter(runs)):
            for name, grid in (sheets or {}).items():
                _write_sheet(folder / f"{name}.png", grid)
        _write_json(path, {"chapter": chapter, "profile": profile, "runs": runs})
        write_index()
    return path


def write_index() -> None:
    """Bring ``index.json`` up to date, for example after a record was copied here from another machine.

    A record that cannot be read is left out, with a warning that names it. Mend the record and call this function
    again to get its numbers back into the index.
    """
    _write_json(results_root() / "index.json", index_rows())


def load_record(chapter: str, profile: str) -> Record:
    """The record of a chapter at a profile.

    Raises:
        FileNotFoundError: nothing is recorded there; the message says how to record it.
        ValueError: the file is damaged, no longer a record after an edit by hand, or of a later version; the message
            names the file and the cure.
    """
    inputs.text("chapter", chapter)
    inputs.text("profile", profile)
    path = results_root() / chapter / profile / "record.json"
    if not path.exists():
        raise FileNotFoundError(
            f"no record of {chapter} at profile {profile!r}; "
            f"`make record CHAPTER={chapter[:2]} PROFILE={profile}` makes one"
        )
    try:
        runs = json.loads(path.read_bytes(), parse_constant=_no_number)["runs"]
        if any(str(int(seed)) != seed for seed in runs):
            raise ValueError(f"seeds must be whole numbers, got {', '.join(runs)}")
        record = Record(chapter, profile, {int(seed): run for seed, run in runs.items()}, path.parent)
        _check(record)
    except (AttributeError, LookupError, OSError, OverflowError, RecursionError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(
            f"{path} is no record that this version can read ({reason}); mend it, take it back from git, or delete it"
        ) from error
    return record


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number that JSON knows")


def readable_records(chapter: str = "*") -> list[Record]:
    """Every record, or those of one chapter; an unreadable record is left out, with a warning that names it."""
    found = []
    for path in sorted(results_root().glob(f"{chapter}/*/record.json")):
        try:
            found.append(load_record(path.parent.parent.name, path.parent.name))
        except ValueError as error:
            warnings.warn(f"{error}. It is left out.", stacklevel=2)
    return found


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


def _check(record: Record) -> None:
    """Raise an error for the first fault of a record that was read from a file."""
    if not record.runs:
        raise ValueError("it holds no run")
    for seed, run in record.runs.items():
        parts = {"provenance": dict, "config": dict, "values": dict, "series": dict, "seconds": dict}
        for part, kind in {**parts, **({"tables": dict} if "tables" in run else {})}.items():
            if not isinstance(run[part], kind):
                raise TypeError(f"{part} of seed {seed} is a {type(run[part]).__name__}")
        for key, value in run["values"].items():
            if not Measured(**value).accepted:
                raise ValueError(f"{key} of seed {seed} is neither a rate in [0, 1] nor inside its interval: {value}")
    if missing := {"device", "commit"} - record.first["provenance"].keys():
        raise KeyError(*missing)
    for key in record.ids():
        record.summary(key)


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


def _git(*words: str) -> str | None:
    """The output of git in the checkout; None if git fails, or if the package lies in no checkout of its own."""
    if not (CHECKOUT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    except OSError:  # a reader without git still gets a run card
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
