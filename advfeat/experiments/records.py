"""Recorded results, and where they lie.

A record is one folder, ``book/results/<chapter>/<profile>/``: ``record.json`` with one run per seed, and picture
sheets (PNG) for the panels that the chapter shows. ``book/results/index.json`` lists every recorded number and is
generated from the records.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advfeat import inputs
from advfeat.checkout import CHECKOUT
from advfeat.estimates import Measured, Summary, summarise
from advfeat.variables import variable

BOOK = CHECKOUT / "book"
"""Folder of the chapters."""


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

    @property
    def data(self) -> str:
        """The data set, as a profile's ``data`` has it; empty where the record names none."""
        return str(self.first["config"].get("data", ""))

    @property
    def title(self) -> str:
        """The name of its images, and the profile: ``CIFAR-10 (cifar10-cpu)``; the profile alone if it adds nothing."""
        name = self.first["provenance"].get("data") if self.data else None
        return f"{name} ({self.profile})" if name not in (None, self.profile) else self.profile

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

    def matching(self, pattern: str) -> dict[tuple[str, ...], Summary]:
        """The summaries of all ids that fit a pattern such as ``fig3/*/transfer``, by the parts at its stars.

        A star stands for a part of an id without a slash, two stars for one that may hold slashes; neither for nothing.
        """
        inputs.text("pattern", pattern)
        kinds = {"*": "([^/]+)", "**": "(.+)"}
        fits = re.compile("".join(kinds.get(part) or re.escape(part) for part in re.split(r"(\*\*?)", pattern)))
        found = {key: fits.fullmatch(key) for key in self.ids()}
        return {tuple(fit.groups()): self.summary(key) for key, fit in found.items() if fit}

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


def results_in(folder: Path) -> AbstractContextManager[None]:
    """Make ``results_root`` another folder, so that records saved inside the block are not part of the book."""
    return variable("ADVFEAT_RESULTS", str(folder))


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


def engine_of(run: Mapping[str, Any]) -> str:
    """The engine of a recorded run without its instructions; runs from before there were several name none."""
    return str(run["provenance"].get("engine", "torch")).partition(",")[0]
