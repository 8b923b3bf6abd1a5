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
from advfeat.experiments.profiles import get_profile, profile_name
from advfeat.pages.chapter_files import RUNS, find_chapter
from advfeat.pages.parameters import Refused, parameters_of
from advfeat.paper.trials import BASE, TRIALS, trial_record


@dataclass(frozen=True)
class GridSetting:
    """One point of a grid.

    Attributes:
        name: of its folder, such as ``eps=0.25``; ``as-is`` or, beside variants, ``base`` where nothing is replaced.
        overrides: the numbers of the profile that it replaces.
        about: the setting in words, for figures.
    """

    name: str
    overrides: Mapping[str, Any]
    about: str = ""


@dataclass(frozen=True)
class Grid:
    """What is run.

    Attributes:
        name: stem of the file.
        profile: name of a profile, or the path of its file.
        chapters: stems of the chapters' files; of a trial alone the name under which it is recorded.
        seeds: every chapter is run once for each, with the same number as the seed of its sources.
        settings: every chapter is run at each.
        results: the folder of the joined records; with several settings, the folder that holds one for each.
        trial: name of the trial that is made in place of chapters; empty: none. Its record holds all settings.
    """

    name: str
    profile: str
    chapters: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: tuple[GridSetting, ...]
    results: Path
    trial: str = ""

    @property
    def folder(self) -> Path:
        """The folder of the plan, the notes of finished jobs, their logs, and the records of single seeds."""
        return RUNS / "paper" / self.name

    def results_of(self, setting: GridSetting) -> Path:
        """The folder of a setting's joined records."""
        return self.results if len(self.settings) == 1 else self.results / setting.name

    def results_of_seed(self, setting: str, chapter: str, seed: int) -> Path:
        """The folder of results that one run of a chapter records to, alone."""
        return self.folder / "records" / setting / f"{chapter}.seed={seed}"

    def record_of(self, setting: str, chapter: str, seed: int) -> Path:
        """The record in that folder."""
        return self.results_of_seed(setting, chapter, seed) / chapter / profile_name(self.profile) / "record.json"

    def setting(self, name: str) -> GridSetting:
        """The setting of that name.

        Raises:
            ValueError: there is none.
        """
        for one in self.settings:
            if one.name == name:
                return one
        raise ValueError(f"setting must be one of {', '.join(one.name for one in self.settings)}, got {name!r}")

    def parameters(self, chapter: str, setting: str, seed: int) -> list[tuple[str, str]]:
        """The parameters of a chapter's run, as they are typed."""
        known = parameters_of(find_chapter(chapter))
        overrides = self.setting(setting).overrides
        given = {"seed": str(seed), **({"overrides": json.dumps(dict(overrides))} if overrides else {})}
        if missing := sorted(given.keys() - known.keys()):
            raise ValueError(f"chapter {chapter} has no parameter {', '.join(missing)}")
        return list(given.items())


_KEYS = ("chapters", "trial", "profile", "seeds", "sweep", "variant", "results")


def read_grid(path: Path | str) -> Grid:
    """The grid in a file.

    The file names ``chapters`` (``["03", "05"]``) and ``seeds`` (``[0, 1, 2]``), and may name a ``profile`` (default
    ``planted``; the path of a profile's file is seen from the folder of the grid), ``results`` (a folder, seen from the
    checkout) and a table ``sweep``: setting of the profile → list of values. Every combination of values is run.

    In place of a ``sweep`` there may be tables ``[[variant]]``, each with a ``name`` of its folder, ``settings`` of the
    profile and perhaps words ``about`` it: the profile as it is, called ``base``, is run, and so is each variant. In
    place of ``chapters`` it may name a ``trial`` (see ``trials.TRIALS``), at whose profile images are held out.

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
    seeds: list[int] = _list_of(int, "seeds", given, "a list of whole numbers such as [0, 1]")
    for seed in seeds:
        inputs.seed(seed)
    results = given.get("results", "")
    inputs.instance("results", results, str, "the path of a folder")
    settings = _variants(given["variant"]) if "variant" in given else _combinations(given.get("sweep", {}))
    if "variant" in given and "sweep" in given:
        raise ValueError("there must be a sweep or variants, got both")
    at = [get_profile(profile, setting.overrides) for setting in settings]
    trial = given.get("trial", "")
    if "trial" in given:
        inputs.one_of("trial", trial, TRIALS)
        if "chapters" in given:
            raise ValueError("there must be chapters or a trial, got both")
        if not all(one.data.held_out_from for one in at):
            raise ValueError("a trial chooses settings, so its profile must hold images out; set data.held_out_from")
        stems: tuple[str, ...] = (trial_record(trial),)
    else:
        chapters: list[str] = _list_of(str, "chapters", given, 'a list such as ["03", "05"]')
        stems = tuple(find_chapter(name).stem for name in chapters)
        for stem in stems:
            if "seed" not in parameters_of(find_chapter(stem)):
                raise ValueError(f"chapter {stem} has no seed")
    names = [setting.name for setting in settings]
    for what, given_names in (("chapters", list(stems)), ("seeds", list(map(str, seeds))), ("settings", names)):
        if len(set(given_names)) < len(given_names):
            raise ValueError(f"{what} must name each thing once, got {', '.join(given_names)}")
    folder = CHECKOUT / results if results else RUNS / "paper" / path.stem / "results"
    return Grid(path.stem, profile, stems, tuple(seeds), settings, folder, trial)


def _combinations(sweep: object) -> tuple[GridSetting, ...]:
    """Every combination of the values of a sweep."""
    if not isinstance(sweep, dict) or not all(isinstance(values, list) and values for values in sweep.values()):
        raise ValueError(f"sweep must be a table of lists such as eps = [0.25, 0.5], got {sweep!r}")
    return tuple(
        GridSetting(_named(overrides), overrides)
        for values in itertools.product(*sweep.values())
        for overrides in [dict(zip(sweep, values, strict=True))]
    )


def _variants(given: object) -> tuple[GridSetting, ...]:
    """The profile as it is, and each variant of it."""
    if not isinstance(given, list) or not given or not all(isinstance(one, dict) for one in given):
        raise ValueError(f"variant must be tables [[variant]], got {given!r}")
    settings = [GridSetting(BASE, {}, "as it is")]
    for one in given:
        if unknown := sorted(one.keys() - {"name", "settings", "about"}):
            raise ValueError(f"unknown {', '.join(map(repr, unknown))} in a variant; there are name, settings, about")
        name, overrides, about = one.get("name"), one.get("settings"), one.get("about", "")
        inputs.instance("about", about, str, "a few words")
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.,=-]*", name):
            raise ValueError(f"a variant's name must be letters, digits, '.', ',', '=', '-' and '_', got {name!r}")
        if not isinstance(overrides, dict) or not overrides:
            raise ValueError(f"variant {name} must have settings such as {{ eps = 0.25 }}, got {overrides!r}")
        settings.append(GridSetting(name, overrides, about or name))
    return tuple(settings)


def _list_of(kind: type, key: str, given: Mapping[str, Any], accepted: str) -> list[Any]:
    value = given.get(key)
    if not isinstance(value, list) or not value or any(type(item) is not kind for item in value):
        raise ValueError(f"{key} must be {accepted}, got {value!r}")
    return value


def _named(overrides: Mapping[str, Any]) -> str:
    """The name of a setting, which is that of a folder."""
    parts = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in overrides.items()]
    return re.sub(r"[^\w.,=-]+", "_", ",".join(parts)) or "as-is"
