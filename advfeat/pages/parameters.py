"""The parameters of a chapter: the parameters cell, and how a value typed on a command line is read by its annotation.

One rule holds for every value. Numbers are decimal, such as ``10``, ``-0.5`` or ``1e-3``; leading zeros change nothing.
Truth values are ``true`` and ``false``, the empty value is ``null`` or ``none``, and lists and dicts are written as in
JSON, except that a plain word needs no quotes. Other forms that YAML or Python would accept are refused: other bases,
underscores, times, dates, ``yes`` and ``no``, infinity, a key given twice. A string is taken as it is.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from advfeat.experiments.profiles import PROFILES, get_profile, is_file

DEFAULT_PROFILE = "planted"

KINDS = {"int": int, "float": float, "str": str, "bool": bool, "dict": dict, "list": list}
"""Accepted annotations of a parameter; also ``list[int]`` and the like, and several joined by a bar."""

SEEDS = 2**32
"""Seeds lie in [0, SEEDS): PyTorch's generator on the CPU gives larger seeds the same numbers as smaller ones."""

ACCEPTED = (
    "Numbers are decimal (10, -0.5, 1e-3), truth values true or false, nothing is null, and lists and dicts are "
    'written as in JSON, {"eps": 0.25}, where a plain word needs no quotes'
)

_WHOLE = re.compile(r"[+-]?[0-9]{1,300}")  # a number with more digits may not fit into a float
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAMED = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None, "none": None}
# Words that YAML or a dialect of JSON reads as a value of another type.
_AMBIGUOUS = {"true", "false", "yes", "no", "on", "off", "y", "n", "null", "none", "nan", "inf", "infinity"}


class Refused(ValueError):
    """A wrong chapter, profile or parameter, or a run that is bound to fail. The message names the accepted values."""


class Parameter(NamedTuple):
    """A line of a parameters cell, as text: the annotation ("" where there is none), the default and the comment."""

    kind: str
    default: str
    text: str


def parameters_of(chapter: Path) -> dict[str, Parameter]:
    """Name → parameter, from the chapter's parameters cell.

    Raises:
        Refused: the file is not a notebook, or the cell is not Python.
    """
    source = next((text for text, tags in code_cells(chapter) if "parameters" in tags), "")
    try:
        lines = ast.parse(source).body
    except SyntaxError as error:
        raise Refused(f"{chapter.name}: the parameters cell is no Python: {error}") from error
    words = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {word.start[0]: word.string.lstrip("# ") for word in words if word.type == tokenize.COMMENT}
    found = {}
    for line in lines:
        text = comments.get(line.end_lineno or line.lineno, "")
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            default = ast.get_source_segment(source, line.value) if line.value else ""
            found[line.target.id] = Parameter(ast.unparse(line.annotation), default or "", text)
        elif isinstance(line, ast.Assign):
            names = [target.id for target in line.targets if isinstance(target, ast.Name)]
            found |= {name: Parameter("", ast.get_source_segment(source, line.value) or "", text) for name in names}
    return found


def code_cells(chapter: Path) -> list[tuple[str, list[str]]]:
    """The source and the tags of every code cell of a notebook.

    Raises:
        Refused: the file is not a notebook.
    """
    try:
        cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        return [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in code]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{chapter} is damaged, or no notebook of format 4: {error!r}") from error


def default_of(parameter: Parameter) -> object:
    """The value of a default that is a literal; None for any other expression."""
    try:
        return ast.literal_eval(parameter.default)
    except (ValueError, SyntaxError):
        return None


def listing(chapter: Path) -> str:
    """The parameters of a chapter, one a line."""
    rows = parameters_of(chapter).items()
    return "\n".join(f"  {name}: {kind or '?'} = {default}  # {text}" for name, (kind, default, text) in rows)


def profile_listing() -> str:
    """The profiles, one a line."""
    table = "\n".join(f"  {profile.name}: {profile.description}" for profile in PROFILES.values())
    return f'{table}\n  or a file of your own that ends in .toml, with a line such as: extends = "{DEFAULT_PROFILE}"'


def check_parameters(chapter: Path, given: Mapping[str, str | bool]) -> dict[str, Any]:
    """The values for papermill: each text is read by the module's rule, as the type that the chapter declares.

    ``released``, a folder, becomes absolute, and so does a profile's file: the chapter runs in another folder.

    Raises:
        Refused: unknown name, wrong type, a seed outside [0, 2**32), unknown profile, or overrides that the profile
            does not take, or a profile's file that cannot be used.
    """
    known = parameters_of(chapter)
    checked: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            raise Refused(f"{chapter.stem} has no parameter {name!r}; there are\n{listing(chapter)}")
        kind = known[name].kind
        try:
            value = _read(text, ast.parse(kind or "_", mode="eval").body)
        except LookupError:
            raise Refused(
                f"{chapter.stem}: {name} is annotated with {kind or 'nothing'}; a parameter that is given must be "
                f"annotated with one of {', '.join(KINDS)}, or with some of them joined by a bar, as in float | None"
            ) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise Refused(
                f"{chapter.stem}: {name} must be {kind}, got {text!r}{_because(error)}. {ACCEPTED}; there are\n"
                f"{listing(chapter)}"
            ) from error
        # A default outside the range stands for something else, and may be typed, too.
        if (name == "seed" or name.endswith("_seed")) and value != default_of(known[name]):
            _check_seed(chapter, name, value)
        place = value and (name == "released" or (name == "profile" and is_file(str(value))))
        checked[name] = absolute(str(value)) if place else value
    profile = checked.get("profile", DEFAULT_PROFILE)
    if profile not in PROFILES and not is_file(profile):
        raise Refused(f"no profile {profile!r}; there are\n{profile_listing()}")
    try:
        get_profile(profile, checked.get("overrides") or {})
    except (TypeError, ValueError, OSError) as error:
        raise Refused(f"{chapter.stem}: {error}") from error
    return checked


def absolute(folder: str) -> str:
    """The absolute path of a folder that was given relative to the working folder."""
    return str(Path(folder).expanduser().absolute())


def _because(error: Exception) -> str:
    return f": {error}" if str(error) and not isinstance(error, RecursionError) else ""


def _check_seed(chapter: Path, name: str, value: object) -> None:
    if isinstance(value, int) and not 0 <= value < SEEDS:
        raise Refused(f"{chapter.stem}: {name} must be a whole number in [0, 2**32), got {value}")


def _read(text: str | bool, kind: ast.expr) -> object:
    """A value, read as the type of an annotation.

    Raises:
        LookupError: the annotation is not made of ``KINDS``.
        TypeError, ValueError: the value is of another type, or cannot be read.
    """
    kinds = _alternatives(kind)
    _check_kinds(kinds)
    if not isinstance(text, str):
        return _fitted(text, kinds)
    others = [one for one in kinds if ast.unparse(one) != "str"]
    if not others:
        return text
    try:
        return _fitted(_literal(text), others)
    except (TypeError, ValueError):
        if len(others) < len(kinds):
            return text
        raise


def _alternatives(kind: ast.expr) -> list[ast.expr]:
    if isinstance(kind, ast.BinOp) and isinstance(kind.op, ast.BitOr):
        return [*_alternatives(kind.left), *_alternatives(kind.right)]
    if isinstance(kind, ast.Subscript) and ast.unparse(kind.value) in ("Optional", "typing.Optional"):
        return [*_alternatives(kind.slice), ast.Constant(None)]
    return [kind]


def _check_kinds(kinds: list[ast.expr]) -> None:
    for kind in kinds:
        match kind:
            case ast.Constant(value=None) | ast.Name(id="Any" | "object"):
                pass
            case ast.Name(id=name) if name in KINDS:
                pass
            case ast.Subscript(value=ast.Name(id="list"), slice=item):
                _check_kinds(_alternatives(item))
            case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[ast.Name(id="str"), item])):
                _check_kinds(_alternatives(item))
            case _:
                raise LookupError(ast.unparse(kind))


def _fitted(value: Any, kinds: list[ast.expr]) -> Any:
    """The value as the first of ``kinds`` that it fits: a whole number fits float, and becomes one."""
    for kind in kinds:
        match kind:
            case ast.Name(id="Any" | "object"):
                return value
            case ast.Constant(value=None) if value is None:
                return value
            case ast.Name(id="float") if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
            case ast.Name(id="int") if type(value) is int:
                return value
            case ast.Name(id="str" | "bool" | "dict" | "list" as name) if isinstance(value, KINDS[name]):
                return value
            case ast.Subscript(value=ast.Name(id="list"), slice=item) if isinstance(value, list):
                return [_fitted(entry, _alternatives(item)) for entry in value]
            case ast.Subscript(slice=ast.Tuple(elts=[_, item])) if isinstance(value, dict):
                return {key: _fitted(entry, _alternatives(item)) for key, entry in value.items()}
    raise TypeError


def _literal(text: str) -> object:
    text = text.strip()
    return _structure(text) if text.startswith(("{", "[")) else _scalar(text)


def _scalar(text: str) -> object:
    if text in _NAMED:
        return _NAMED[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    raise ValueError(f"{text!r} is neither a decimal number nor true, false or null")


def _structure(text: str) -> object:
    """A list or dict in YAML's flow style, which includes JSON, but without YAML's special words."""
    import yaml

    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise ValueError("anchors, references and tags have no meaning here")
        return _value(yaml.compose(text, Loader=yaml.SafeLoader), text)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not closed, or not written as in JSON ({getattr(error, 'problem', error)})") from error


def _value(node: Any, text: str) -> object:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _word_or_number(node.value)
    if text[node.start_mark.index] not in "{[":
        raise ValueError("a dict needs braces")
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, text) for item in node.value]
    found: dict[str, object] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        quoted = isinstance(key, yaml.ScalarNode) and key.style
        if not quoted and (not name.isidentifier() or name.lower() in _AMBIGUOUS):
            raise ValueError(f"the key {name!r} must be a word, or stand in quotes")
        if name in found:
            raise ValueError(f"the key {name!r} is given twice")
        found[name] = _value(value, text)
    return found


def _word_or_number(text: str) -> object:
    if text == "":
        raise ValueError("a value is missing")
    if (text[0].isalpha() or text[0] == "_") and text not in _NAMED:
        if text.lower() in _AMBIGUOUS:
            raise ValueError(f"{text!r} can mean two things: write true, false, null, a finite number, or quotes")
        return text
    try:
        return _scalar(text)
    except ValueError as error:
        raise ValueError(f"{error}; any other text must stand in quotes") from error
