"""A class is made only with tests that tell the named mistakes from the right solution, in its own world."""

from __future__ import annotations

import json
import shutil

import nbformat
import pytest
from handing_in import CLASS_SEED
from nbformat.v4 import new_code_cell, new_notebook

from advfeat.classroom import grade, release
from advfeat.classroom import mistakes as mistaken
from advfeat.classroom.__main__ import main
from advfeat.classroom.grade import lost
from advfeat.classroom.mistakes import Mistake, make_class, make_mistakes, mistakes, seeds_from, shared_out
from advfeat.classroom.release import Classroom, assignments
from advfeat.classroom.sandbox import Outcome

NEXT = CLASS_SEED + 1_000_003
MISTAKE = """
[[mistake]]
name = "always one"
answer = "tiny-answer"
old = "seed % 2"
new = {new!r}
loses = {{ tiny-hidden = 2 }}
"""


def marked(source, name, **mark):
    kind = {"solution": False, "grade": False, "locked": True, "schema_version": 3, "grade_id": name, **mark}
    return new_code_cell(source, metadata={"nbgrader": kind})


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """One small problem set in the place of all others; in the world of an odd seed its mistake is no mistake."""
    folder = tmp_path / "assignments"
    (folder / "source" / "tiny").mkdir(parents=True)
    (folder / "mistakes").mkdir()
    shutil.copy(release.ASSIGNMENTS / "nbgrader_config.py", folder)
    cells = [
        marked('seed = dict(class_seed=0)["class_seed"]', "tiny-setup"),
        marked("### BEGIN SOLUTION\nanswer = seed % 2\n### END SOLUTION", "tiny-answer", solution=True, locked=False),
        marked("import sys\nprint('only a warning', file=sys.stderr)", "tiny-visible", grade=True, points=1),
        marked(
            "### BEGIN HIDDEN TESTS\nassert answer == seed % 2\n### END HIDDEN TESTS",
            "tiny-hidden",
            grade=True,
            points=2,
        ),
    ]
    nbformat.write(new_notebook(cells=cells), folder / "source" / "tiny" / "tiny.ipynb")
    (folder / "mistakes" / "tiny.toml").write_text(MISTAKE.format(new="1"))
    monkeypatch.setattr(release, "ASSIGNMENTS", folder)
    return folder


def card(classroom):
    return json.loads((classroom.folder / "class.json").read_text())


def test_a_class_gets_another_seed_where_a_mistake_cannot_be_told_apart(tiny, tmp_path):
    classroom = Classroom(tmp_path / "class")
    said = "\n".join(make_class(classroom, class_seed=CLASS_SEED))
    assert "tiny: 'always one' loses 0 and not 2 points at tiny-hidden" in said
    assert f"would not be fair in the world of seed {CLASS_SEED}" in said
    assert "1 wrong solutions lose the points that they should" in said
    assert f"THE CLASS HAS THE SEED {NEXT}, not {CLASS_SEED}" in said
    assert card(classroom) == {"class_seed": NEXT, "asked_for": CLASS_SEED}
    assert f"class_seed={NEXT}" in classroom.notebook("release", "tiny").read_text()
    assert not (classroom.folder / "trial").exists()
    # Called again in the same words, the class is made again with the seed that it has.
    list(make_class(classroom, class_seed=CLASS_SEED, check=False))
    assert classroom.class_seed == NEXT
    with pytest.raises(ValueError, match=f"belongs to the class of seed {NEXT}"):
        list(make_class(classroom, class_seed=CLASS_SEED + 2, check=False))


def test_the_seed_that_was_asked_for_is_tried_first():
    assert seeds_from(CLASS_SEED) == [CLASS_SEED, NEXT, NEXT + 1_000_003]
    assert seeds_from(2**40)[0] == 2**40
    assert all(seed < 2**32 for seed in seeds_from(2**40)[1:])


def test_no_class_is_made_where_no_world_is_fair(tiny, tmp_path):
    (tiny / "mistakes" / "tiny.toml").write_text(MISTAKE.format(new="seed - seed // 2 * 2"))
    classroom = Classroom(tmp_path / "class")
    with pytest.raises(RuntimeError, match=f"no class made: tried 3 seeds from {CLASS_SEED} on"):
        list(make_class(classroom, class_seed=CLASS_SEED))
    assert not (classroom.folder / "class.json").exists()
    assert not (classroom.folder / "release").exists()


def test_a_class_that_has_its_notebooks_keeps_its_seed(tiny, tmp_path, capsys):
    where = ["assignments", "--class-seed", str(CLASS_SEED), "--folder", str(tmp_path / "class")]
    assert main([*where, "--no-check"]) == 0
    assert main(where) == 1
    assert (
        f"class {CLASS_SEED} keeps its notebooks, but its tests fail to do their work here" in capsys.readouterr().err
    )
    assert card(Classroom(tmp_path / "class"))["class_seed"] == CLASS_SEED


def test_points_lost_elsewhere_are_found_too(tiny, tmp_path):
    (tiny / "mistakes" / "tiny.toml").write_text(MISTAKE.format(new="1").replace("tiny-hidden", "tiny-visible"))
    said = make_class(Classroom(tmp_path / "class"), class_seed=2)
    assert "  tiny: 'always one' loses 0 and not 2 points at tiny-visible" in said
    assert "  tiny: 'always one' loses 2 points at tiny-hidden, which is about something else" in said


def test_a_class_whose_own_solution_fails_is_not_made(tiny, tmp_path):
    path = tiny / "source" / "tiny" / "tiny.ipynb"
    path.write_text(path.read_text().replace("assert answer == seed % 2", "assert answer == 0"))
    said = "\n".join(make_class(Classroom(tmp_path / "class"), class_seed=CLASS_SEED))
    assert "tiny: its own solution fails here" in said
    assert f"THE CLASS HAS THE SEED {NEXT}" in said


@pytest.mark.parametrize("assignment", assignments())
def test_every_mistake_is_one_in_its_notebook(assignment):
    source = nbformat.read(release.ASSIGNMENTS / "source" / assignment / f"{assignment}.ipynb", as_version=4)
    marks = [cell.metadata.get("nbgrader", {}) for cell in source.cells]
    worth = {mark["grade_id"]: mark["points"] for mark in marks if "points" in mark}
    found = mistakes(assignment)
    assert len({one.name for one in found}) == len(found) >= 3
    for one in found:
        assert make_mistakes(source, [one]) != source
        assert one.loses
        assert all(0 < points <= worth[test] for test, points in one.loses.items())
    dealt = shared_out(found)
    assert sorted(one.name for student in dealt for one in student) == sorted(one.name for one in found)
    assert not [
        1 for student in dealt for one in student for other in student if one is not other and one.clashes(other)
    ]


def test_a_mistake_that_is_not_in_the_notebook_is_named(tiny):
    source = nbformat.read(tiny / "source" / "tiny" / "tiny.ipynb", as_version=4)
    for answer, old in (("tiny-answer", "nowhere"), ("tiny-setup", "seed"), ("no-answer", "")):
        with pytest.raises(ValueError, match=f"mistake 'odd': the answer {answer} must hold, exactly once, '{old}'"):
            make_mistakes(source, [Mistake("odd", answer, old, "", {})])


@pytest.mark.parametrize("text", ["[[mistake]\n", "[[mistake]]\nname = 'a'\n", "other = 1\n"])
def test_a_file_of_mistakes_that_cannot_be_read_is_named(tiny, text):
    (tiny / "mistakes" / "tiny.toml").write_text(text)
    with pytest.raises(ValueError, match=r"tiny\.toml must hold tables \[\[mistake\]\] with name, answer"):
        mistakes("tiny")


def test_a_set_without_mistakes_has_none(tiny):
    (tiny / "mistakes" / "tiny.toml").unlink()
    assert mistakes("tiny") == []


def test_a_warning_costs_no_points_but_a_test_without_an_execution_does():
    cell = marked("", "a-test", grade=True, points=2)
    cell.execution_count = 1
    cell.outputs = [nbformat.v4.new_output("stream", name="stderr", text="UserWarning")]
    notebook = new_notebook(cells=[cell])
    assert lost(notebook) == {}
    cell.outputs.append(nbformat.v4.new_output("error", ename="AssertionError", evalue="no", traceback=[]))
    assert lost(notebook) == {"a-test": 2}
    assert lost(new_notebook(cells=[marked("", "a-test", grade=True, points=2)])) == {"a-test": 2}


def test_no_class_is_made_by_runs_that_execute_nothing(tiny, tmp_path, monkeypatch):
    """Without an error in any cell the right solution would have every point."""
    for module in (grade, mistaken):
        monkeypatch.setattr(module, "run", lambda *_, **__: Outcome("", 1.0))
    with pytest.raises(RuntimeError, match="no class made"):
        list(make_class(Classroom(tmp_path / "class"), class_seed=CLASS_SEED))
