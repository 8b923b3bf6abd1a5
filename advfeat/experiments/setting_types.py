"""Types of settings with the values that they accept, and groups that check them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, get_type_hints


class Rule(NamedTuple):
    """The values that a setting accepts, in words, and whether a value is one of them."""

    words: str
    accepts: Callable[[Any], bool]


class ImagesOf(NamedTuple):
    """A setting that counts images: the first of the training or test images, so at most as many as there are."""

    most: str


def choice(*names: str) -> Rule:
    """One of these names."""
    return Rule(f"one of {', '.join(name or '(none)' for name in names)}", names.__contains__)


def is_number(value: Any) -> bool:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_radius(value: Any) -> bool:
    return is_number(value) and 0 <= value < math.inf


def _is_length(value: Any) -> bool:
    return _is_radius(value) and value > 0


Count = Annotated[int, Rule("a whole number, 1 or more", _is_count)]
Numbered = Annotated[int, Rule("a whole number, 0 or more", lambda value: type(value) is int and value >= 0)]
Counts = Annotated[
    tuple[int, ...],
    Rule("one or more whole numbers, each 1 or more", lambda values: bool(values) and all(map(_is_count, values))),
]
TrainImages = Annotated[Count, ImagesOf("train_images")]
TestImages = Annotated[Count, ImagesOf("test_images")]
Length = Annotated[float, Rule("a positive number", _is_length)]
Lengths = Annotated[tuple[float, ...], Rule("positive numbers", lambda values: all(map(_is_length, values)))]
Radii = Annotated[tuple[float, ...], Rule("numbers, each 0 or more", lambda values: all(map(_is_radius, values)))]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Settings that belong together.

    Raises:
        ValueError: a value outside its range, named: chapters would meet it late, or cut off the wrong images.
    """

    def __post_init__(self) -> None:
        for place, hint in hints(type(self)).items():
            value = getattr(self, place)
            for rule in getattr(hint, "__metadata__", ()):
                if isinstance(rule, Rule) and not rule.accepts(value):
                    raise ValueError(f"{recorded_name(type(self), place)}={value!r} must be {rule.words}")


_HINTS: dict[type, Mapping[str, Any]] = {}  # they are asked for with every setting of every profile, on import


def hints(group: type) -> Mapping[str, Any]:
    """Place → annotation of the settings of a class of groups."""
    if group not in _HINTS:
        _HINTS[group] = get_type_hints(group, include_extras=True)
    return _HINTS[group]


def recorded_name(group: type, place: str) -> str:
    """The name under which records know a setting: the text in its annotation, otherwise its own."""
    return next((note for note in getattr(hints(group)[place], "__metadata__", ()) if isinstance(note, str)), place)
