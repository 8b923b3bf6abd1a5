"""A grid: the chapters, seeds and settings that are run. It is a TOML file, such as those in ``workflow/``."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advfeat import inputs
from advfeat.checkout import CHECKOUT
from advfeat.experiments.profiles import get_profile
from advfeat.pages.chapter_files import RUNS, find_chapter
from advfeat.pages.parameters import Refused, parameters_of


@dataclass(frozen=True)
class GridSetting:
    """One point of a grid.

    Attributes:
        name: of its folder, such as ``eps=0.25``; ``as-is`` where nothing is replaced.
        overrides: the numbers of the profile that it replaces.
    """

    name: str
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """What is run.

    Attributes:
        name: stem of the file.
        profile: name of a profile, or the path of its file.
        chapters: stems of the chapters' files.
        seeds: every chapter is run once for each, with the same number as the seed of its sources.
        settings: every chapter is run at each.
        results: the folder of the joined records; with several settings, the folder that holds one for each.
    """

    name: str
    profile: str
    chapters: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: tuple[GridSetting, ...]
    results: Path

    @property
    def folder(self) -> Path:
        """The folder of the plan, the notes of finished jobs, their logs, and the records of single seeds."""
        return RUNS / "paper" / self.name

    def results_of(self, setting: GridSetting) -> Path:
        """The folder of a setting's joined records."""
        return self.results if len(self.settings) == 1 else self.results / setting.name


_KEYS = ("chapters", "profile", "seeds", "sweep", "results")


def read_grid(path: Path | str) -> Grid:
    """The grid in a file.

    The file names ``chapters`` (``["03", "05"]``) and ``seeds`` (``[0, 1, 2]``), and may name a ``profile`` (default
    ``planted``; the path of a profile's file is seen from the folder of the grid), ``results`` (a folder, seen from the
    checkout) and a table ``sweep``: setting of the profile → list of values. Every combination of values is run.

    Raises:
        Refused: the file cannot be read, or holds something else; the message names it and what is accepted.
    """
    path = Path(path)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused(f"grid {path} cannot be read: {error}") from error
    if not re.fullmatch(r"\w[\w.-]*", path.stem):
        raise Refused(
            f"a grid's file must be named by letters, digits, '.', '-' and '_', as its folder will be: {path.stem!r}"
        )
    try:
        return _checked(path, given)
    except (ValueError, TypeError, OSError) as error:
        raise Refused(f"grid {path}: {error}") from error


def _checked(path: Path, given: Mapping[str, Any]) -> Grid:
    unknown = sorted(given.keys() - set(_KEYS))
    if unknown:
        raise ValueError(f"unknown {', '.join(map(repr, unknown))}; there are {', '.join(_KEYS)}")
    profile = given.get("profile", "planted")
    inputs.text("profile", profile)
    if profile.endswith(".toml"):
        profile = str((path.parent / profile).resolve())
    sweep = given.get("sweep", {})
    chapters: list[str] = _list_of(str, "chapters", given, 'a list such as ["03", "05"]')
    seeds: list[int] = _list_of(int, "seeds", given, "a list of whole numbers such as [0, 1]")
    for seed in seeds:
        inputs.seed(seed)
    if not isinstance(sweep, dict) or not all(isinstance(values, list) and values for values in sweep.values()):
        raise ValueError(f"sweep must be a table of lists such as eps = [0.25, 0.5], got {sweep!r}")
    results = given.get("results", "")
    inputs.instance("results", results, str, "the path of a folder")
    settings = tuple(
        GridSetting(_named(overrides), overrides)
        for values in itertools.product(*sweep.values())
        for overrides in [dict(zip(sweep, values, strict=True))]
    )
    for setting in settings:
        get_profile(profile, setting.overrides)
    stems = tuple(find_chapter(name).stem for name in chapters)
    names = [setting.name for setting in settings]
    for what, given_names in (("chapters", list(stems)), ("seeds", list(map(str, seeds))), ("sweep", names)):
        if len(set(given_names)) < len(given_names):
            raise ValueError(f"{what} must name each thing once, got {', '.join(given_names)}")
    for stem in stems:
        if "seed" not in parameters_of(find_chapter(stem)):
            raise ValueError(f"chapter {stem} has no seed")
    folder = CHECKOUT / results if results else RUNS / "paper" / path.stem / "results"
    return Grid(path.stem, profile, stems, tuple(seeds), settings, folder)


def _list_of(kind: type, key: str, given: Mapping[str, Any], accepted: str) -> list[Any]:
    value = given.get(key)
    if not isinstance(value, list) or not value or any(type(item) is not kind for item in value):
        raise ValueError(f"{key} must be {accepted}, got {value!r}")
    return value


def _named(overrides: Mapping[str, Any]) -> str:
    """The name of a setting, which is that of a folder."""
    parts = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in overrides.items()]
    return re.sub(r"[^\w.,=-]+", "_", ",".join(parts)) or "as-is"
