"""Results with their provenance: the only file that knows git, the date and the versions of the book's packages.

A record is one folder, ``book/results/<chapter>/<profile>/``: ``record.json`` with one run per seed, and picture
sheets (PNG) for the panels that the chapter shows. ``book/results/index.json`` lists every recorded number and is
generated from the records.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Float
from PIL import Image
from scipy.stats import norm, t
from torch import Tensor

_CHECKOUT = Path(__file__).resolve().parent.parent
BOOK = _CHECKOUT / "book"
"""Folder of the chapters."""
_PACKAGES = ("advfeat", "torch", "torchvision", "numpy", "scipy")


@dataclass(frozen=True)
class Measured:
    """One recorded number: its value, the images behind it, and what was measured how.

    A rate in [0, 1] needs no more, for its interval follows from n. Any other number brings its 95 % interval, ``low``
    and ``high``, and perhaps the bounds ``within`` which it lies whatever happens. ``seed`` is that of the network.
    Runs of several seeds may share one network, the source of a constructed dataset, say; it counts once.
    """

    value: float
    n: int
    network: str
    attack: str = "none"
    seed: int = 0
    low: float | None = None
    high: float | None = None
    within: Sequence[float] | None = None

    @property
    def rate(self) -> bool:
        """Whether this is a share in [0, 1], which brings no interval."""
        return self.low is None and self.high is None

    @property
    def accepted(self) -> bool:
        """Whether the numbers fit together: a rate in [0, 1], or a finite value inside its interval; n at least 1."""
        if self.low is None or self.high is None:
            return self.rate and 0 <= self.value <= 1 and self.n >= 1
        finite = all(map(math.isfinite, (self.low, self.value, self.high)))
        return finite and self.low <= self.value <= self.high and self.n >= 1


def signless_zero(spec: str) -> str:
    """The format ``spec`` of a number with a z behind alignment and sign: what rounds to zero has no minus."""
    return re.sub(r"^((?:.?[<>=^])?[-+ ]?)z?", r"\1z", spec, count=1)


@dataclass(frozen=True)
class Summary:
    """A recorded number over all seeds, with its 95 % interval. A ``rate`` prints in percent."""

    value: float
    low: float
    high: float
    n: int
    seeds: int
    network: str
    attack: str
    rate: bool = True

    def __str__(self) -> str:
        return format(self, ".1%" if self.rate else ".3f")

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        spec = signless_zero(spec)
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


@dataclass(frozen=True)
class Record:
    """All runs of one chapter at one profile, and where its sheets lie.

    Attributes:
        runs: seed → ``{"provenance", "config", "values", "series", "seconds"}``, perhaps ``"tables"``, in JSON types.
    """

    chapter: str
    profile: str
    runs: Mapping[int, Mapping[str, Any]]
    folder: Path

    @property
    def first(self) -> Mapping[str, Any]:
        """The run of the lowest seed: its curves and pictures are shown, and its settings are those of all."""
        return self.runs[min(self.runs)]

    def only(self, seed: int) -> Record:
        """The same record with the run of one seed: its intervals leave out the spread between seeds.

        Raises:
            KeyError: that seed is not recorded.
        """
        return replace(self, runs={seed: self.runs[seed]})

    def ids(self) -> list[str]:
        """The ids of all recorded values."""
        return sorted({key for run in self.runs.values() for key in run["values"]})

    def summary(self, key: str) -> Summary:
        """The mean over seeds of one value; runs that share a network count as one, at their mean.

        The interval adds two independent sources of error: the choice of test images (for a rate Wilson's interval,
        else the recorded one, averaged) and, from two seeds on, the spread between seeds (Student's t). With two seeds
        the second is wide, and it should be: two runs say little about a third.

        Raises:
            KeyError: no run recorded ``key``; the message lists what there is.
        """
        measured = [Measured(**run["values"][key]) for run in self.runs.values() if key in run["values"]]
        if not measured:
            raise KeyError(f"{self.chapter}/{self.profile} holds no {key!r}, only {', '.join(self.ids())}")
        by_seed = [[item for item in measured if item.seed == seed] for seed in {item.seed: None for item in measured}]

        def of_each(part: str) -> np.ndarray:
            return np.array([np.mean([getattr(item, part) for item in shared]) for shared in by_seed])

        values = of_each("value")
        mean, n, seeds = float(values.mean()), min(item.n for item in measured), len(by_seed)
        spread = t.ppf(0.975, seeds - 1) * float(values.std(ddof=1)) / math.sqrt(seeds) if seeds > 1 else 0.0
        rate = all(item.rate for item in measured)
        if rate:
            # Wilson's interval for the images: unlike the usual half-width it does not vanish at 0 and 1.
            low, high = _wilson(mean, n)
        else:
            # The seeds saw the same images, so their errors may agree: averaged, not divided by the root of the number.
            low, high = float(of_each("low").mean()), float(of_each("high").mean())
        low, high = mean - math.hypot(mean - low, spread), mean + math.hypot(high - mean, spread)
        least, most = (0.0, 1.0) if rate else measured[0].within or (-math.inf, math.inf)
        low, high = max(least, low), min(most, high)
        return Summary(mean, low, high, n, seeds, measured[0].network, measured[0].attack, rate)

    def sheet(self, name: str) -> Path:
        """Path of a picture sheet.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        path = self.folder / f"{name}.png"
        if not path.exists():
            raise FileNotFoundError(f"{self.folder} holds no sheet {name!r}")
        return path


def results_root() -> Path:
    """Folder of the records: ``ADVFEAT_RESULTS``, or ``book/results`` in the checkout."""
    given = os.environ.get("ADVFEAT_RESULTS")
    return Path(given).expanduser() if given else BOOK / "results"


@contextmanager
def results_in(folder: Path) -> Iterator[None]:
    """Let ``results_root`` be another folder: what is saved within is no part of the book."""
    before = os.environ.get("ADVFEAT_RESULTS")
    os.environ["ADVFEAT_RESULTS"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("ADVFEAT_RESULTS")
        if before is not None:
            os.environ["ADVFEAT_RESULTS"] = before


def provenance(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Where and with what a result is computed: commit, dirty flag, versions, device, threads, time (UTC).

    ``dirty`` says that the commit is not all that was run: a tracked file had been changed, records aside, or git could
    not tell.
    """
    kind = torch.device(device).type
    commit = _git("rev-parse", "HEAD")
    # Records are what runs leave behind: with the first seed's among the changes, the second would never be clean.
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
        provenance: what ``provenance()`` said when the run began, and the data's fingerprint.
        config: every setting, in JSON types.
        seconds: stage → wall time.
        series: curves that the chapter draws, such as accuracy by epoch.
        sheets: name → grid of images in [0, 1], kept as one PNG each; of several seeds those of the lowest.
        tables: name → rows in JSON types, for what is no number with an interval.

    Raises:
        ValueError: a value is neither a rate in [0, 1] nor inside its interval, ``n`` is not positive, a number
            anywhere is not finite, or another seed was recorded with other settings: a mean over both would mean
            nothing.
        TypeError: something that JSON does not know.
    """
    for key, item in values.items():
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
    run = _plain_json(run, f"seed {seed}")  # as it will be read: a tuple is a list
    path = folder / "record.json"
    with FileLock(results_root() / ".lock"):
        known = json.loads(path.read_text())["runs"] if path.exists() else {}
        for other in known.keys() - {str(seed)}:
            if known[other]["config"] != run["config"]:
                raise ValueError(
                    f"{path} holds seed {other} with other settings than seed {seed}; record this run elsewhere "
                    "(ADVFEAT_RESULTS names the folder), or delete the old one"
                )
        runs = dict(sorted({**known, str(seed): run}.items(), key=lambda item: int(item[0])))
        _plain_json(runs, str(path))  # what other seeds left there, too
        if str(seed) == next(iter(runs)):
            for name, grid in (sheets or {}).items():
                _write_sheet(folder / f"{name}.png", grid)
        _write_json(path, {"chapter": chapter, "profile": profile, "runs": runs})
        write_index()
    return path


def write_index() -> None:
    """Bring ``index.json`` up to date, after a record was copied here from another machine, say."""
    _write_json(results_root() / "index.json", index_rows())


def load_record(chapter: str, profile: str) -> Record:
    """The record of a chapter at a profile.

    Raises:
        FileNotFoundError: nothing is recorded there; the message says how to record it.
    """
    folder = results_root() / chapter / profile
    path = folder / "record.json"
    if not path.exists():
        raise FileNotFoundError(
            f"no record of {chapter} at profile {profile!r}; "
            f"`make record CHAPTER={chapter[:2]} PROFILE={profile}` makes one"
        )
    runs = json.loads(path.read_text())["runs"]
    return Record(chapter, profile, {int(seed): run for seed, run in runs.items()}, folder)


def index_rows() -> list[dict[str, object]]:
    """One row per recorded number of every record, sorted by id and profile: what ``index.json`` holds.

    Device and commit are those of the record's first run.
    """
    rows = []
    for path in sorted(results_root().glob("*/*/record.json")):
        record = load_record(path.parent.parent.name, path.parent.name)
        made = record.first["provenance"]
        for key in record.ids():
            summary = asdict(record.summary(key))
            del summary["rate"]
            about = {"profile": record.profile, "device": made["device"], "commit": made["commit"]}
            rows.append({"id": key, **summary, **about})
    return sorted(rows, key=lambda row: (row["id"], row["profile"]))


def _written(item: Measured) -> dict[str, object]:
    return {key: value for key, value in asdict(item).items() if value is not None}


def _wilson(rate: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate over n images; the rate may be a mean over seeds, so no whole count."""
    z = float(norm.ppf(0.975))
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half


def _write_sheet(path: Path, grid: Tensor) -> None:
    rows, columns, channels, height, width = grid.shape
    canvas = grid.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    pixels = (canvas.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    partial = path.with_name(f".{path.name}.part")
    Image.fromarray(pixels).save(partial, format="PNG", optimize=True)
    partial.replace(path)


def _plain_json(value: Any, named: str) -> Any:
    """``value`` as JSON gives it back: tuples as lists, keys as words.

    Raises:
        ValueError: a number that JSON does not know (NaN, infinity), named by the way to it.
        TypeError: a type that JSON does not know, named likewise.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain_json(item, f"{named}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(item, f"{named}[{place}]") for place, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{named} must be a finite number to be recorded, got {value}")
    if value is not None and not isinstance(value, str | bool | int | float):
        raise TypeError(f"{named} must be a JSON type to be recorded, got {type(value).__name__}: {value!r}")
    return value


def _write_json(path: Path, content: object) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    partial.replace(path)


def _git(*words: str) -> str | None:
    """What git says in the checkout, or None where it fails or this is no checkout (but lies, say, in another's)."""
    if not (_CHECKOUT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *words], cwd=_CHECKOUT, capture_output=True, text=True, check=False)
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
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
