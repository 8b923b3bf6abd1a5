"""Make the students' notebooks of one class from the sources, and the archive to hand out."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from advfeat.checkout import CHECKOUT
from advfeat.classroom.course import class_world
from advfeat.classroom.repair import ids
from advfeat.classroom.scratch import short_folder

ASSIGNMENTS = CHECKOUT / "book" / "assignments"

_SEED = re.compile(r"\bclass_seed=\d+")
_REGION = re.compile(r"### BEGIN (SOLUTION|HIDDEN TESTS)\n(.*?)### END \1", re.DOTALL)


class Leak(RuntimeError):
    """A notebook for students holds a line of a solution or of a hidden test."""


@dataclass(frozen=True)
class Classroom:
    """The folder of one class: ``source``, ``release``, ``submitted``, ``autograded``, ``feedback``, a grade book.

    Attributes:
        folder: path of the folder. ``release`` and ``source`` can be made again; the rest is the work of the class.
    """

    folder: Path

    @property
    def class_seed(self) -> int:
        """The seed that the notebooks were made with.

        Raises:
            FileNotFoundError: the folder is not that of a class.
        """
        return self._card()["class_seed"]

    def seed_for(self, asked_for: int) -> int:
        """The seed of the class if the class was made for the seed ``asked_for``; otherwise ``asked_for``."""
        card = self._card()
        return card["class_seed"] if card.get("asked_for") == asked_for else asked_for

    def _card(self) -> dict[str, int]:
        try:
            card: dict[str, int] = json.loads((self.folder / "class.json").read_bytes())
            return card
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.folder} is not the folder of a class; run `assignments` first") from None

    @property
    def store(self) -> Path:
        """Trained networks of the class's world."""
        return self.folder / "store"

    def notebook(self, step: str, assignment: str, student: str = ".") -> Path:
        """The notebook of ``assignment`` in ``source``, ``release``, or a student's in one of the other steps."""
        return self.folder / step / student / assignment / f"{assignment}.ipynb"

    def config(self) -> Config:
        """Settings of nbgrader; the folder holds a file with the same settings for direct use of nbgrader."""
        settings = Config()
        settings.CourseDirectory.root = str(_plain(self.folder.absolute()))
        settings.CourseDirectory.course_id = "advfeat"
        settings.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}
        settings.Application.log_level = settings.NbGraderAPI.log_level = "ERROR"
        return settings

    def course(self) -> CourseDirectory:
        """nbgrader's view of the folder."""
        return CourseDirectory(config=self.config())


@functools.cache
def _plain(folder: Path) -> Path:
    """``folder`` under a path without special characters: nbgrader uses paths as patterns and in addresses.

    If the path has special characters, the result is a link to it, which is removed when the program ends.
    """
    if re.fullmatch(r"[\w\s./@+~:-]*", str(folder)):
        return folder
    place = Path(tempfile.mkdtemp(prefix="advfeat-", dir=short_folder()))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    link = place / "class"
    link.symlink_to(folder, target_is_directory=True)
    return link


def assignments() -> list[str]:
    """Names of the problem sets, in order."""
    return sorted(path.parent.name for path in (ASSIGNMENTS / "source").glob("*/*.ipynb"))


def make_sources(classroom: Classroom, *, class_seed: int, asked_for: int | None = None) -> None:
    """Write every problem set in full, for the class of ``class_seed``, to ``source``.

    ``asked_for`` is the seed that was asked for, if it differs (see ``mistakes.make_class``).

    Raises:
        ValueError: the seed is out of range, or the folder belongs to a class of another seed.
    """
    class_world(class_seed)  # refuses a seed before anything is written
    classroom.folder.mkdir(parents=True, exist_ok=True)
    card = classroom.folder / "class.json"
    if card.exists() and classroom.class_seed != class_seed:
        raise ValueError(
            f"{classroom.folder} belongs to the class of seed {classroom.class_seed}; "
            f"take another folder for {class_seed}"
        )
    if not card.exists():
        facts = {"class_seed": class_seed, "asked_for": class_seed if asked_for is None else asked_for}
        card.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    for assignment in assignments():
        source = nbformat.read(ASSIGNMENTS / "source" / assignment / f"{assignment}.ipynb", as_version=4)
        place = classroom.notebook("source", assignment)
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(for_class(source, class_seed), place)


def make(classroom: Classroom, *, class_seed: int, asked_for: int | None = None) -> None:
    """Make every problem set for the class of ``class_seed``: in full to ``source``, for students to ``release``.

    Raises:
        ValueError: as in ``make_sources``.
        Leak: a students' notebook would hold part of a solution.
        RuntimeError: nbgrader could not make a notebook, with its reason.
    """
    make_sources(classroom, class_seed=class_seed, asked_for=asked_for)
    shutil.copy(ASSIGNMENTS / "nbgrader_config.py", classroom.folder)
    # nbgrader calls a program of its environment for a new grade book, and the environment may not be activated.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    api = NbGraderAPI(classroom.course(), config=classroom.config())
    for assignment in assignments():
        result = api.generate_assignment(assignment, force=True)
        if not result["success"]:
            raise RuntimeError(f"{assignment}: {result.get('log', '')}{result.get('error', '')}")
        source = nbformat.read(classroom.notebook("source", assignment), as_version=4)
        found = leaks(source, classroom.notebook("release", assignment).read_text(encoding="utf-8"))
        if found:
            shutil.rmtree(classroom.notebook("release", assignment).parent)
            raise Leak(f"{assignment}: the students' notebook would hold {found[0]!r}")


def for_class(source: NotebookNode, class_seed: int) -> NotebookNode:
    """``source`` with every ``class_seed=...`` in its code set to that of the class, and a list of its marked cells."""
    source.metadata["advfeat"] = {"cells": ids(source)}
    for cell in source.cells:
        if cell.cell_type == "code":
            cell.source = _SEED.sub(f"class_seed={class_seed}", cell.source)
    return source


def leaks(source: NotebookNode, text: str) -> list[str]:
    """Lines of solutions and hidden tests of ``source`` that occur in ``text``, but in no open part of ``source``.

    Very short lines are skipped, because they reveal nothing. A written answer counts as a solution.
    """
    closed, opened = [], []
    for cell in source.cells:
        mark = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and mark.get("solution"):
            closed.append(cell.source)
            continue
        closed += [body for _, body in _REGION.findall(cell.source)]
        opened.append(_REGION.sub("", cell.source))
    plain = "\n".join(opened)
    lines = {line.strip() for body in closed for line in body.splitlines()}
    revealing = {line for line in lines if len(re.sub(r"\W", "", line)) >= 12 and line not in plain}
    marks = {"BEGIN SOLUTION", "END SOLUTION", "BEGIN HIDDEN TESTS", "END HIDDEN TESTS"}
    # In a notebook file a line is a JSON string.
    return sorted(line for line in revealing | marks if json.dumps(line, ensure_ascii=False)[1:-1] in text)


def pack(classroom: Classroom, archive: Path) -> Path:
    """Write the archive for students: notebooks, the library, versions of its dependencies, and instructions.

    Raises:
        FileNotFoundError: no notebooks have been made there.
        Leak: a file of the archive holds part of a solution.
    """
    class_seed = classroom.class_seed
    sheets = {f"{name}/{name}.ipynb": classroom.notebook("release", name) for name in assignments()}
    files = {name: sheet.read_text(encoding="utf-8") for name, sheet in sheets.items()}
    readme = (ASSIGNMENTS / "for-students.md").read_text(encoding="utf-8")
    files["README.md"] = readme.replace("CLASS_SEED", str(class_seed))
    environment = (CHECKOUT / "environment.yml").read_text(encoding="utf-8")
    files["environment.yml"] = environment.replace("[book,test]", "[student]")
    for name in ("pyproject.toml", "constraints.txt", "LICENSE"):
        files[name] = (CHECKOUT / name).read_text(encoding="utf-8")
    for path in sorted(path for path in (CHECKOUT / "advfeat").rglob("*") if path.suffix in (".py", ".c")):
        files[path.relative_to(CHECKOUT).as_posix()] = path.read_text(encoding="utf-8")
    for assignment in assignments():
        # Only notebooks and README are checked: the library is public, and implements some of the tasks in its own way.
        source = nbformat.read(classroom.notebook("source", assignment), as_version=4)
        for name in (f"{assignment}/{assignment}.ipynb", "README.md"):
            if found := leaks(source, files[name]):
                raise Leak(f"{name} would hold a line of the solution of {assignment}: {found[0]!r}")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in files.items():
            bundle.writestr(f"{archive.stem}/{name}", text)
    return archive
