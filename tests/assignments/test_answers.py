"""How the tests in the problem sets take answers, and that the functions they exchange are called as students' are."""

from __future__ import annotations

import ast

import nbformat
import numpy as np
import pytest
import torch

from advfeat.classroom import release
from advfeat.classroom.answers import close, exchanged, number, tensor

HALVES = [
    0.5,
    np.float32(0.5),
    np.float64(0.5),
    np.array(0.5),
    np.array([0.5]),
    torch.tensor(0.5),
    torch.tensor([[0.5]]),
]


@pytest.mark.parametrize("value", [*HALVES, torch.tensor(0.5, requires_grad=True), torch.tensor(0.5).double()])
def test_a_number_is_a_number_however_it_is_stored(value):
    assert number(value) == 0.5
    assert close(value, 0.5004, within=1e-3)
    assert not close(value, 0.502, within=1e-3)


@pytest.mark.parametrize("value", ["0.5", "see above", None, [0.5], torch.zeros(2), np.zeros((1, 2)), 0.5j, {}])
def test_what_is_no_number_is_refused_and_is_close_to_nothing(value):
    with pytest.raises(TypeError, match="a number is needed here, got"):
        number(value)
    assert not close(value, 0.5, within=1e9)


def test_not_a_number_is_close_to_nothing():
    assert not close(float("nan"), 0.5, within=1e9)


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(2, 3, requires_grad=True),
        torch.ones(2, 3, dtype=torch.float16),
        np.ones((2, 3), dtype=np.float32),
        [[1, 1, 1], [1, 1, 1]],
        [torch.ones(3), torch.ones(3)],
        torch.ones(3, 2).T,
    ],
)
def test_a_tensor_comes_in_double_precision_and_without_a_graph(value):
    got = tensor(value)
    assert torch.equal(got, torch.ones(2, 3, dtype=torch.float64))
    assert not got.requires_grad


@pytest.mark.parametrize(
    ("value", "said"),
    [("text", "a tensor is needed"), (None, "a tensor is needed"), (torch.ones(2) * 1j, "take .real")],
)
def test_what_is_no_tensor_is_refused(value, said):
    with pytest.raises(TypeError, match=said):
        tensor(value)


def asked(image, weight, *, scale=1.0):
    return "a student's"


def known(image, weight, *, scale=1.0):
    return (image * weight).sum() * scale


def renamed(x, w, s=2.0):
    return "a student's"


def decorated(*given, **named):
    return "a student's"


def longer(image, weight, scale=1.0, sign=1):
    return "a student's"


def test_a_known_function_is_called_as_the_one_in_its_place():
    image, weight = torch.full((2,), 3.0), torch.ones(2)
    notebook = {"part": asked}
    with exchanged(notebook, part=known):
        part = notebook["part"]
        assert part(image, weight) == part(image=image, weight=weight) == part(weight=weight, image=image, scale=1) == 6
        with pytest.raises(TypeError, match="unexpected keyword argument 'labels'"):
            part(image, weight, labels=weight)
    assert notebook == {"part": asked}


def test_names_and_defaults_are_those_of_the_notebook():
    def three(image, weight, scale):
        return (image * weight).sum() * scale

    image, weight = torch.full((2,), 3.0), torch.ones(2)
    notebook = {"part": renamed}
    with exchanged(notebook, part=three):
        assert notebook["part"](image, w=weight) == 12
        assert notebook["part"](s=0.5, x=image, w=weight) == 3
    notebook = {"part": decorated}
    with exchanged(notebook, part=three):
        assert notebook["part"](image, weight=weight, scale=1) == 6


def test_a_function_with_more_parameters_stays_the_students_own():
    notebook = {"part": longer}
    with exchanged(notebook, part=known):
        assert notebook["part"](None, None, sign=-1) == "a student's"


def test_arrays_are_answered_with_arrays():
    notebook = {"part": asked}
    with exchanged(notebook, part=lambda image, weight, scale: image @ weight * scale):
        got = notebook["part"](np.eye(2), weight=np.ones((2, 2)))
    assert isinstance(got, np.ndarray)
    assert (got == 1).all()


@pytest.mark.parametrize("notebook", [{}, {"part": None}, {"part": "no function"}])
def test_what_was_there_before_comes_back_even_after_an_error(notebook):
    before = dict(notebook)

    def fail_on_the_way():
        with exchanged(notebook, part=known):
            assert notebook["part"](torch.ones(1), torch.ones(1)) == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_on_the_way()
    assert notebook == before


def functions(cells):
    """Name → parameters of the functions that are defined at the top of some cells."""
    tops = [node for cell in cells for node in ast.parse(cell.source).body]
    return {node.name: node.args for node in tops if isinstance(node, ast.FunctionDef)}


def stand_ins(cells):
    """(name in the notebook, the known function) of every exchange in some cells."""
    calls = [node for cell in cells for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id == "exchanged":
            assert ast.unparse(call.args[0]) == "globals()"
            yield from ((keyword.arg, ast.unparse(keyword.value)) for keyword in call.keywords)


@pytest.mark.parametrize(
    ("assignment", "exchanges"),
    [("ps1-attacks", 9), ("ps2-features", 0), ("ps3-datasets", 1), ("ps4-theory", 2), ("ps5-project", 0)],
)
def test_every_stand_in_has_the_parameters_of_the_function_that_it_stands_for(assignment, exchanges):
    path = release.ASSIGNMENTS / "source" / assignment / f"{assignment}.ipynb"
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    asked_for = functions(cell for cell in cells if cell.metadata.get("nbgrader", {}).get("solution"))
    all_of_them = functions(cells)
    pairs = list(stand_ins(cells))
    assert len(pairs) == exchanges
    for name, stand_in in pairs:
        assert ast.unparse(all_of_them[stand_in]) == ast.unparse(asked_for[name]), f"{stand_in} stands for {name}"


def test_every_problem_set_has_had_its_stand_ins_compared():
    (compared,) = test_every_stand_in_has_the_parameters_of_the_function_that_it_stands_for.pytestmark
    assert [name for name, _ in compared.args[1]] == release.assignments()


def test_hidden_tests_do_not_take_the_names_of_students():
    """A helper of the tests called ``sample`` or ``worth`` would replace a student's function of that name."""
    for assignment in release.assignments():
        path = release.ASSIGNMENTS / "source" / assignment / f"{assignment}.ipynb"
        for cell in nbformat.read(path, as_version=4).cells:
            if "### BEGIN HIDDEN TESTS" not in cell.source:
                continue
            for node in ast.parse(cell.source).body:
                names = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
                names += [node.name] if hasattr(node, "name") else []
                ours = ("test_", "hidden_", "known_", "points_", "Hidden")
                assert [name for name in names if not name.startswith(ours)] == [], (assignment, ast.unparse(node))
