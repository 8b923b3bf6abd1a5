"""A profile with some of its settings replaced, as they are typed on a command line or stand in a file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from advfeat.experiments.setting_types import Rule, hints, is_number
from advfeat.experiments.settings import GROUPS, PLACES, Profile, counting


def change(profile: Profile, changes: Mapping[str, Any], *, fixed: tuple[str, ...], word: str) -> Profile:
    """The profile with some settings replaced: by their names in records, or in a mapping by the name of a group.

    Where there are to be fewer training or test images, settings that count them follow, unless they are given.

    Args:
        fixed: names in records of settings that must stay.
        word: the name for a change in messages.

    Raises:
        ValueError: an unknown name, with the list of those that exist; a value outside its range; more images than
            there are; a setting given twice; an architecture with anything but a mapping.
        TypeError: a value of another type than the one it replaces, or for a group anything but a mapping.
    """
    fresh: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
    open_to = [name for name in PLACES if name not in fixed]
    for key, value in changes.items():
        if key in GROUPS and isinstance(value, Mapping):
            names = {place: name for name, (group, place) in PLACES.items() if group == key and name in open_to}
            given = [(names.get(place), place, item, key) for place, item in value.items()]
        else:
            names = {name: name for name in open_to}
            given = [(names.get(key), key, value, "profile")]
            if key in GROUPS and key not in PLACES:
                within = ", ".join(sorted(place for group, place in PLACES.values() if group == key))
                raise TypeError(f"{word} {key!r} in profile must be a table of {within}, got {value!r}")
        for name, typed, item, where in given:
            if name is None:
                tables = "" if where in GROUPS else f", and the tables {', '.join(GROUPS)}"
                raise ValueError(f"unknown {word} {typed!r} in {where}; there are {', '.join(sorted(names))}{tables}")
            group, place = PLACES[name]
            if place in fresh[group]:
                raise ValueError(f"{word} {typed!r} in {where} is given twice, as {name} and as {group}.{place}")
            kind = hints(GROUPS[group])[place]
            fresh[group][place] = _fitted(getattr(getattr(profile, group), place), item, kind, typed, where, word)
    for most in ("train_images", "test_images"):
        there = fresh["data"].get(most, math.inf)
        for group, place in counting(most).values():
            if getattr(getattr(profile, group), place) > there:
                fresh[group].setdefault(place, there)
    made: dict[str, Any] = {
        group: dataclasses.replace(getattr(profile, group), **items) for group, items in fresh.items() if items
    }
    return dataclasses.replace(profile, **made)


def _fitted(old: Any, value: Any, kind: Any, key: str, where: str, word: str) -> Any:
    """The value as one of the kind of ``old``, which it replaces or changes in part."""
    inside = key if where == "profile" or where in GROUPS else f"{where}.{key}"
    if dataclasses.is_dataclass(old) and not isinstance(old, type) and isinstance(value, Mapping):
        hints = {one.name: one.type for one in dataclasses.fields(old)}
        for name in value:
            if name not in hints:
                raise ValueError(f"unknown {word} {name!r} in {inside}; there are {', '.join(sorted(hints))}")
        items = {
            name: _fitted(getattr(old, name), item, hints[name], name, inside, word) for name, item in value.items()
        }
        try:
            return dataclasses.replace(old, **items)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{inside}: {error}") from error
    if isinstance(old, Mapping) and isinstance(value, Mapping):
        if unknown := value.keys() - old.keys():
            raise ValueError(f"unknown {word} {min(unknown)!r} in {inside}; there are {', '.join(sorted(old))}")
        for name, item in value.items():
            if not isinstance(item, Mapping):
                raise ValueError(f"{word} {name!r} in {inside} must be like {{'width': 16}}, got {item!r}")
        return {**old, **{name: _fitted(old[name], item, None, name, inside, word) for name, item in value.items()}}
    if isinstance(old, tuple) and isinstance(value, list | tuple) and all(map(is_number, value)):
        whole = old and all(isinstance(item, int) for item in (*old, *value))
        return tuple(int(item) if whole else float(item) for item in value)
    if isinstance(old, float) and is_number(value):
        return float(value)
    if type(old) is type(value) or (kind == "int | None" and (value is None or type(value) is int)):
        return value
    raise TypeError(f"{word} {key!r} in {where} must be {_accepted(old, kind)}, got {value!r}")


def _accepted(old: Any, kind: Any) -> str:
    """The values that a setting takes, in words."""
    if rules := [note.words for note in getattr(kind, "__metadata__", ()) if isinstance(note, Rule)]:
        return rules[0]
    if dataclasses.is_dataclass(old):
        return f"a table of {', '.join(sorted(one.name for one in dataclasses.fields(old)))}"
    if old is None:
        return "left out, since there is none to change"
    return f"like {old!r}"
