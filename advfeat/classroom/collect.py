"""Find the notebooks of a class in the instructor's download, and put them where the grade book expects them."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from advfeat.classroom import layouts
from advfeat.classroom.collected import Collected, Submission, Unused
from advfeat.classroom.contents import Contents, read_notebook
from advfeat.classroom.downloads import (
    LARGEST_SUBMISSION,
    MOST_FILES,
    Entry,
    Unusable,
    files,
    is_archive,
    is_notebook,
    is_other_archive,
    of_the_system,
    one_line,
    stem,
)
from advfeat.classroom.owners import File, Owner, Sorter, known_students, named, remember
from advfeat.classroom.release import Classroom
from advfeat.classroom.repair import repair

_Helpers = dict[tuple[str, ...], bytes]


def collect(classroom: Classroom, assignment: str, downloads: Path) -> list[Submission]:
    """``gather`` without the files that were not taken."""
    return gather(classroom, assignment, downloads).submissions


def gather(classroom: Classroom, assignment: str, downloads: Path) -> Collected:
    """Copy every submission for ``assignment`` from ``downloads`` into the folder of the class.

    ``downloads`` is a folder, or a ZIP of one: the download of Canvas, Moodle, Blackboard or Brightspace; or a folder
    or ZIP per student, with the notebook somewhere inside; or a notebook per student, ``NAME.ipynb`` or
    ``NAME_..._ASSIGNMENT.ipynb``. Of several attempts the latest counts, of several notebooks the one that was worked
    on. Python files beside the notebook and below are copied, too. Marked cells are restored to their original form.

    The folder of the class changes only after the whole download has been checked. An earlier submission of a student
    is kept unless a submission that can be graded replaces it.

    Raises:
        FileNotFoundError: ``downloads`` does not exist, or holds no file.
        ValueError: nothing in it can be graded as ``assignment``, two submissions would belong to the same student, or
            ``downloads`` is a file, but neither a ZIP file nor a notebook.
    """
    if not downloads.exists():
        raise FileNotFoundError(f"submissions must be a folder or a ZIP file, got {downloads}")
    with tempfile.TemporaryDirectory(prefix="advfeat-") as unpacked:
        return _Gathering(classroom, assignment, downloads).collected(files(downloads, Path(unpacked)))


class _Gathering:
    """The state of one pass through a download; ``unused`` always holds the reason against each file not yet taken."""

    def __init__(self, classroom: Classroom, assignment: str, downloads: Path) -> None:
        self.classroom, self.assignment, self.downloads = classroom, assignment, downloads
        self.contents = Contents(classroom, assignment)
        self.unused: dict[Entry, Unused] = {}
        self.notebooks: set[Entry] = set()

    def collected(self, entries: Sequence[Entry]) -> Collected:
        work = []
        for entry in entries:
            if why := of_the_system(entry.parts):
                self._leave(entry, why, expected=True)
            else:
                work.append(entry)
        if not work:
            raise FileNotFoundError(
                f"{self.downloads} holds no notebooks and no folders; expected one for each student"
            )
        self.notebooks = {entry for entry in work if is_notebook(entry)}
        sorter = Sorter(
            self.assignment,
            self.downloads,
            self.notebooks,
            fits=lambda entry: (self.contents.look(entry).fits, self.contents.look(entry).worked_on),
            leave=lambda entry, why, expected: self._leave(entry, entry.refused or why, expected=expected),
        )
        known = known_students(self.classroom.folder, self.assignment)
        owners = named(sorter.owners(work), known, self.downloads)
        submissions, chosen = [], {}
        for owner in owners:
            try:
                notebook, helpers, notes = self._chosen(owner)
                chosen[owner.student] = notebook, helpers
                submissions.append(Submission(owner.student, notes=tuple(notes)))
            except Unusable as problem:
                submissions.append(Submission(owner.student, str(problem)))
        unused = sorted(self.unused.values(), key=lambda one: one.path)
        if not chosen:
            said = [f"  {one.student}: {one.problem}" for one in submissions]
            said += [f"  {one.path}: {one.why}" for one in unused if not one.student and not one.expected]
            nothing = f"nothing in {self.downloads} can be graded as {self.assignment}, so nothing was changed:"
            raise ValueError("\n".join([nothing, *said]))
        for student, (notebook, helpers) in chosen.items():
            self._write(student, notebook, helpers)
        remember(self.classroom.folder, self.assignment, owners)
        return Collected(sorted(submissions, key=lambda one: one.student), unused)

    def _chosen(self, owner: Owner) -> tuple[NotebookNode, _Helpers, list[str]]:
        """The notebook that counts, the Python files that belong to it, and the repairs.

        Raises:
            Unusable: no notebook can be graded.
        """
        for file in owner.files:  # until it is taken
            self._leave(file.entry, self._why_not(file), owner.student)
        problems = []
        attempts = self._attempts(owner)
        for number in range(len(attempts)):
            attempt = attempts[number]
            try:
                taken = self._notebook(attempt, owner)
                notebook = read_notebook(taken.entry)
                notes = repair(notebook, self.contents.release)
                break
            except Unusable as problem:
                problems.append(str(problem))
            except Exception as error:  # noqa: BLE001 - any failure in one file, so that the others are graded
                problems.append(f"cannot be opened: {one_line(error)}")
        else:
            raise Unusable(problems[0])
        for earlier in attempts[number + 1 :]:
            for file in earlier:
                self._leave(file.entry, "a later attempt takes its place", owner.student, expected=True)
        del self.unused[taken.entry]
        notes += [f"a later attempt cannot be graded, so an earlier one is: {problem}" for problem in problems]
        return notebook, self._helpers(taken, attempts[number], owner), notes

    def _attempts(self, owner: Owner) -> list[list[File]]:
        """The student's files by attempt, the latest first."""
        attempts = defaultdict(list)
        for file in owner.files:
            attempts[file.label.when if file.label else None].append(file)
        if len(attempts) > 1 and () in attempts:
            raise Unusable(f"several attempts, and not all dates can be read: {', '.join(sorted(owner.tops))}")
        return [attempts[when] for when in sorted(attempts, key=lambda when: when or (), reverse=True)]

    def _notebook(self, attempt: Sequence[File], owner: Owner) -> File:
        """The notebook that counts among the files of one attempt.

        Raises:
            Unusable: there is none, several could be meant, or the files are too many.
        """
        size = sum(file.entry.size for file in attempt)
        if size > LARGEST_SUBMISSION or len(attempt) > MOST_FILES:
            raise Unusable(
                f"{len(attempt):,} files with {size:,} bytes, unpacked; "
                f"a submission may have {MOST_FILES:,} files with {LARGEST_SUBMISSION:,} bytes"
            )
        found = [file for file in attempt if file.entry in self.notebooks]
        fitting = [file for file in found if self.contents.look(file.entry).fits]
        if found and not fitting:
            raise Unusable("; ".join(dict.fromkeys(self.contents.look(file.entry).problem for file in found)))
        if not found:
            named_files = [file for file in attempt if file.entry.size or is_archive(file.entry.name)]
            hints = [f"{file.entry.name}: {self._why_not(file)}" for file in named_files[:3]]
            raise Unusable("; ".join(["no notebook", *hints]))
        best = [file for file in fitting if self.contents.look(file.entry).worked_on] or fitting
        best = [file for file in best if layouts.names_set(file.inner[-1], self.assignment)] or best
        best = [file for file in best if stem(file.inner[-1]) == self.assignment] or best
        best = [file for file in best if file.serial == max(one.serial for one in best)]
        if len({self.contents.look(file.entry).texts for file in best}) > 1:
            raise Unusable(f"several notebooks: {', '.join(str(file.entry) for file in best)}")
        taken = min(best, key=lambda file: (len(file.inner), file.inner))
        for file in fitting:
            look, same = self.contents.look(file.entry), self.contents.look(taken.entry).texts
            superseded = 0 < file.serial < taken.serial
            why = "as it was handed out" if not look.worked_on else "the same" if look.texts == same else ""
            expected = bool(why) or superseded
            why = why or ("an earlier one" if superseded else "under another name")
            self._leave(file.entry, f"{taken.entry} is taken; this one is {why}", owner.student, expected)
        return taken

    def _helpers(self, notebook: File, attempt: Iterable[File], owner: Owner) -> _Helpers:
        """Python files beside the notebook and below; archives do not count as folders."""
        beside = _unpacked(notebook.inner)[:-1]
        taken: _Helpers = {}
        for file in sorted(attempt, key=lambda one: one.serial, reverse=True):
            path = _unpacked(file.inner)
            if not path[-1].lower().endswith(".py"):
                continue
            inside = path[len(beside) :]
            if path[: len(beside)] != beside:
                self._leave(file.entry, "it does not lie beside the notebook, nor below", owner.student)
            elif inside in taken:
                self._leave(file.entry, "a later file has its name", owner.student, file.serial > 0)
            else:
                try:
                    taken[inside] = file.entry.read()
                    del self.unused[file.entry]
                except Unusable as problem:
                    self._leave(file.entry, str(problem), owner.student)
        return taken

    def _why_not(self, file: File) -> str:
        if file.entry.refused:
            return file.entry.refused
        if file.entry in self.notebooks:
            return self.contents.look(file.entry).problem or "no notebook of this student was taken"
        if is_other_archive(file.entry.name):
            return "an archive of a kind that is not opened; only ZIP is"
        return "no notebook" if not file.entry.name.lower().endswith(".py") else "no notebook was taken with it"

    def _leave(self, entry: Entry, why: str, student: str = "", expected: bool = False) -> None:
        self.unused[entry] = Unused(str(entry), why, student, expected)

    def _write(self, student: str, notebook: NotebookNode, helpers: _Helpers) -> None:
        """Replace the student's earlier submission by this one, once this one is completely written."""
        path = self.classroom.notebook("submitted", self.assignment, student)
        fresh, old = (path.parent.with_name(f"{self.assignment}.{kind}") for kind in ("new", "old"))
        for folder in (fresh, old):
            shutil.rmtree(folder, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name, data in helpers.items():
            file = fresh.joinpath(*name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        nbformat.write(notebook, fresh / path.name)
        if path.parent.exists():
            path.parent.rename(old)
        fresh.rename(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def _unpacked(inner: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for part in inner[:-1] if not is_archive(part)) + inner[-1:]
