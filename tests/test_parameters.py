"""A value typed on a command line is read by one rule, and the special forms of YAML and Python are refused."""

from __future__ import annotations

import json

import nbformat
import pytest

from advfeat.pages.parameters import DEFAULT_PROFILE, SEEDS, Refused, check_parameters, listing, parameters_of

DECLARED = {
    "profile": ("str", '"planted"'),
    "seed": ("int", "0"),
    "source_seed": ("int", "0"),
    "other_seed": ("int", "-1"),
    "count": ("int", "1"),
    "rate": ("float", "0.1"),
    "record": ("bool", "False"),
    "word": ("str", '""'),
    "numbers": ("list", "[]"),
    "settings": ("dict", "{}"),
    "overrides": ("dict", "{}"),
    "limit": ("float | None", "None"),
    "name": ("str | None", "None"),
    "old": ("Optional[int]", "None"),
    "steps": ("list[int]", "[1]"),
    "rates": ("dict[str, float]", "{}"),
    "either": ("int | str", "0"),
    "folder": ("Path", 'Path("x")'),
    "folders": ("list[Path]", "[]"),
}


@pytest.fixture
def chapter(tmp_path):
    """A chapter that declares a parameter of every kind, and two that cannot be given."""
    lines = [f"{name}: {kind} = {default}  # about {name}" for name, (kind, default) in DECLARED.items()]
    cell = nbformat.v4.new_code_cell(
        "\n".join([*lines, "plain = 3  # no annotation"]), metadata={"tags": ["parameters"]}
    )
    path = tmp_path / "42-tiny.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "010", 10),  # YAML's octal: 8
        ("seed", "017", 17),  # and 15
        ("seed", "08", 8),  # for YAML a text, since 8 is no octal digit
        ("seed", " 7 ", 7),
        ("other_seed", "-1", -1),  # its own default, which stands for another seed
        ("other_seed", "3", 3),
        ("seed", str(SEEDS - 1), 2**32 - 1),
        ("count", "+3", 3),
        ("count", "-1", -1),
        ("rate", "1", 1.0),
        ("rate", "010.5", 10.5),
        ("rate", "1e-3", 0.001),
        ("rate", "1E+3", 1000.0),
        ("rate", ".5", 0.5),
        ("rate", "5.", 5.0),
        ("record", "true", True),
        ("record", "False", False),
        ("word", "010", "010"),
        ("word", "yes", "yes"),
        ("word", "none", "none"),
        ("word", "{a: 1}", "{a: 1}"),
        ("numbers", "[010, 1e-3, -0.5, large, 'yes', \"1_000\"]", [10, 0.001, -0.5, "large", "yes", "1_000"]),
        ("settings", "{a: 010, b: 1e-3, c: {d: [017]}}", {"a": 10, "b": 0.001, "c": {"d": [17]}}),
        ("settings", '{"a":0.25,"b":[true,null]}', {"a": 0.25, "b": [True, None]}),
        ("settings", "{'a': 'b', c: None, d: True}", {"a": "b", "c": None, "d": True}),
        ("settings", '{"yes": 1, "1": 2}', {"yes": 1, "1": 2}),
        ("settings", "{}", {}),
        ("limit", "2", 2.0),
        ("limit", "none", None),
        ("limit", "null", None),
        ("name", "None", None),
        ("name", "010", "010"),
        ("old", "010", 10),
        ("old", "null", None),
        ("steps", "[1, 020]", [1, 20]),
        ("rates", "{a: 1}", {"a": 1.0}),
        ("either", "3", 3),
        ("either", "three", "three"),
    ],
)
def test_a_value_is_read_by_the_one_rule(chapter, name, text, value):
    read = check_parameters(chapter, {name: text})[name]
    assert read == value
    # 1 == 1.0 == True; JSON tells them apart, inside lists and dicts, too.
    assert json.dumps(read) == json.dumps(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("seed", text) for text in ("0x10", "0o17", "1_000", "1:30", "1.0", "1e3", "true", "", "None", "١٢", "１０")),
        ("seed", "9" * 5000),
        *(("rate", text) for text in ("inf", "-inf", ".inf", "nan", ".NaN", "1e999", "1_0.5", "1:30", "0x1p3", "true")),
        ("rate", "9" * 400),
        *(("record", text) for text in ("yes", "on", "y", "1", "TRUE", "'true'")),
        *(("limit", text) for text in ("x", "nan", "~")),
        ("old", "1.5"),
        ("steps", "[1.5]"),
        ("steps", "[true]"),
        ("rates", "{a: x}"),
        *(("numbers", text) for text in ("[1,,2]", "(1, 2)", "[a: 1]", "[1", "[1] [2]", "1, 2", "- 1", "[.nan]")),
        *(
            ("settings", f"{{a: {item}}}")
            for item in ("1_000", "0x10", "0o17", "1:30", "2024-01-01", "yes", "No", "on", "off", "TRUE", "~", "")
        ),
        *(("settings", f"{{a: {item}}}") for item in (".inf", "-.inf", "nan", "NaN", "Infinity", "1e999", "(1)")),
        *(("settings", text) for text in ("{a: 1, a: 2}", "{a: 1, 'a': 2}", "{a: {b: 1, b: 2}}", "a: 1", "{a}")),
        *(("settings", text) for text in ("{1: x}", "{yes: x}", "{null: x}", "{eps:0.25}", "{[a]: 1}", "[1]", "{a: 1")),
        *(("settings", text) for text in ("{a: &x 1, b: 2}", "{a: !!str 1}", "{<<: {a: 1}}", "{a: 1} {b: 2}")),
    ],
)
def test_an_ambiguous_value_is_refused_with_the_accepted_forms(chapter, name, text):
    with pytest.raises(Refused, match=f"42-tiny: {name} must be .*Numbers are decimal"):
        check_parameters(chapter, {name: text})


@pytest.mark.parametrize("name", ["seed", "source_seed"])
def test_a_seed_that_would_stand_for_another_is_refused(chapter, name):
    """1 and 2**32 + 1 are one seed to PyTorch's generator on the CPU."""
    for text in ("-1", str(SEEDS), str(SEEDS + 1), "9" * 30):
        with pytest.raises(Refused, match=rf"42-tiny: {name} must be a whole number in \[0, 2\*\*32\), got {text}$"):
            check_parameters(chapter, {name: text})


def test_a_default_that_is_no_seed_lets_no_other_one_pass(chapter):
    with pytest.raises(Refused, match="other_seed must be a whole number"):
        check_parameters(chapter, {"other_seed": "-2"})


def test_a_key_that_is_given_twice_is_named(chapter):
    with pytest.raises(Refused, match="the key 'eps' is given twice"):
        check_parameters(chapter, {"overrides": "{eps: 0.25, eps: 0.5}"})


def test_an_annotation_that_cannot_be_read_is_named_not_called_unknown(chapter):
    for name, kind in (("folder", "Path"), ("folders", r"list\[Path\]"), ("plain", "nothing")):
        with pytest.raises(Refused, match=rf"{name} is annotated with {kind}; .*int, float, str, bool, dict, list"):
            check_parameters(chapter, {name: "1"})
    with pytest.raises(Refused, match="no parameter 'rte'") as refused:
        check_parameters(chapter, {"rte": "1"})
    assert "rate: float = 0.1" in str(refused.value)


def test_every_parameter_is_listed(chapter):
    known = parameters_of(chapter)
    assert set(known) == {*DECLARED, "plain"}
    assert known["limit"] == ("float | None", "None", "about limit")
    assert "  limit: float | None = None  # about limit" in listing(chapter)
    assert "  plain: ? = 3  # no annotation" in listing(chapter)


def test_what_is_no_notebook_is_named(tmp_path):
    for content in ("", "{", "[]", '{"worksheets": []}', '{"cells": [{}]}'):
        path = tmp_path / "42-half.ipynb"
        path.write_text(content)
        with pytest.raises(Refused, match=r"42-half.ipynb is damaged, or no notebook of format 4"):
            parameters_of(path)
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("seed: = 1", metadata={"tags": ["parameters"]})]),
        path,
    )
    with pytest.raises(Refused, match=r"42-half.ipynb: the parameters cell is no Python"):
        parameters_of(path)


def test_the_default_profile_is_there(chapter):
    assert check_parameters(chapter, {"profile": DEFAULT_PROFILE}) == {"profile": DEFAULT_PROFILE}
    with pytest.raises(Refused, match="no profile 'huge'; there are"):
        check_parameters(chapter, {"profile": "huge"})
