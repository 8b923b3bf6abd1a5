"""Find the notebooks of a class in what the instructor downloaded, and put them where the grade book expects them."""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from advfeat.classroom.release import Classroom

_FORBIDDEN = re.compile(r"[^\w.@-]+")
LARGEST = 20_000_000
"""Bytes of a notebook; a larger one is not opened."""


class Unusable(ValueError):
    """Why something that was handed in cannot be graded."""


@dataclass(frozen=True)
class Submission:
    """What one student handed in; ``problem`` says why it cannot be graded, and is empty if it can."""

    student: str
    problem: str = ""


def collect(classroom: Classroom, assignment: str, downloads: Path) -> list[Submission]:
    """Copy every submission for ``assignment`` from ``downloads`` into the folder of the class, in order of students.

    ``downloads`` is a folder, or a ZIP of one, in any of these forms: a folder or ZIP per student, with the notebook
    somewhere inside; or a notebook per student, ``NAME.ipynb`` or ``NAME_..._ASSIGNMENT.ipynb``. Python files beside a
    notebook come along. Locked cells that a student deleted are put back in their places.

    Raises:
        FileNotFoundError: ``downloads`` does not exist, or holds nothing that looks like a submission.
        ValueError: two submissions would belong to the same student, or ``downloads`` is a file but no ZIP file.
    """
    if not downloads.exists():
        raise FileNotFoundError(f"submissions must be a folder or a ZIP file, got {downloads}")
    release = nbformat.read(classroom.notebook("release", assignment), as_version=4)
    with tempfile.TemporaryDirectory(prefix="advfeat-") as unpacked:
        if downloads.is_file():
            downloads = _unpack(downloads, Path(unpacked) / "all")
        taken: dict[str, Submission] = {}
        for entry in sorted(downloads.iterdir()):
            student = _student(entry.stem if entry.is_file() else entry.name, assignment)
            if entry.suffix not in (".ipynb", ".zip") and not (entry.is_dir() and entry.name[0] not in "._"):
                continue
            if student in taken:
                raise ValueError(f"two submissions of {student!r} in {downloads}; keep the one that counts")
            try:
                folder = _unpack(entry, Path(unpacked) / student) if entry.suffix == ".zip" else entry
                notebook = entry if entry.suffix == ".ipynb" else _notebook(folder, assignment)
                _take(notebook, release, classroom.notebook("submitted", assignment, student))
                if notebook != entry:
                    for extra in notebook.parent.glob("*.py"):
                        shutil.copy(extra, classroom.notebook("submitted", assignment, student).parent)
                taken[student] = Submission(student)
            except Unusable as problem:
                taken[student] = Submission(student, str(problem))
            except Exception as error:  # noqa: BLE001 - whatever a library meets in one file, the others are graded
                taken[student] = Submission(student, f"cannot be opened: {reason(error)}")
    if not taken:
        raise FileNotFoundError(f"{downloads} holds no notebooks and no folders; expected one for each student")
    return [taken[student] for student in sorted(taken)]


def reason(error: BaseException) -> str:
    """What an exception says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _student(name: str, assignment: str) -> str:
    """The student that a file or folder name stands for: without the assignment, and fit for a path."""
    bare = name.replace(assignment, "").strip(" _-.")
    return _FORBIDDEN.sub("-", bare or name).strip("-.") or "unnamed"


def _unpack(archive: Path, place: Path) -> Path:
    """Unpack notebooks and Python files; ``zipfile`` keeps paths that lead outside from doing so."""
    place.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as bundle:
            for member in bundle.infolist():
                if member.filename.endswith((".ipynb", ".py", ".zip")) and member.file_size <= LARGEST:
                    bundle.extract(member, place)
    except Exception as error:  # whatever it is: a password, a stream cut off, a method of compression
        raise Unusable(f"{archive.name} is not a ZIP file that can be opened: {reason(error)}") from error
    entries = list(place.iterdir())
    # The archive of a folder holds that folder and nothing else.
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else place


def _notebook(folder: Path, assignment: str) -> Path:
    """The notebook called as the assignment, or else the only one."""
    notebooks = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    found = [path for path in notebooks if path.stem == assignment] or notebooks
    if len(found) != 1:
        names = ", ".join(path.name for path in found)
        raise Unusable(f"several notebooks: {names}" if found else "no notebook")
    return found[0]


def _take(source: Path, release: NotebookNode, place: Path) -> None:
    shutil.rmtree(place.parent, ignore_errors=True)
    if source.stat().st_size > LARGEST:
        raise Unusable(f"the notebook is larger than {LARGEST:,} bytes")
    notebook = nbformat.read(source, as_version=4)
    nbformat.validate(notebook)
    if not {_id(cell) for cell in release.cells} & {_id(cell) for cell in notebook.cells} - {""}:
        raise Unusable(f"no cell of {place.stem} in it")
    restore(notebook, release)
    place.parent.mkdir(parents=True)
    nbformat.write(notebook, place)


def restore(notebook: NotebookNode, release: NotebookNode) -> None:
    """Put cells of ``release`` that ``notebook`` has lost back behind the cell that they followed."""
    present = {_id(cell): index for index, cell in enumerate(notebook.cells) if _id(cell)}
    before = ""
    for cell in release.cells:
        name = _id(cell)
        if not name:
            continue
        if name not in present:
            where = present[before] + 1 if before else 0
            notebook.cells.insert(where, cell)
            present = {_id(cell): index for index, cell in enumerate(notebook.cells) if _id(cell)}
        before = name


def _id(cell: NotebookNode) -> str:
    return cell.metadata.get("nbgrader", {}).get("grade_id") or ""
