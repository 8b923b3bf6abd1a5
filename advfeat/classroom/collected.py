"""The result of a download: the submission of every student, and the files that were not used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Submission:
    """The submission of one student.

    Attributes:
        student: name of the student's folder.
        problem: why the submission cannot be graded; empty if it can.
        notes: repairs of the notebook, in sentences.
    """

    student: str
    problem: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unused:
    """A file of the download that was not taken.

    Attributes:
        path: path in the download.
        why: the reason.
        student: the owner; empty if unknown.
        expected: whether the file is no student's work, or another file holds the same or later work.
    """

    path: str
    why: str
    student: str = ""
    expected: bool = False


@dataclass(frozen=True)
class Collected:
    """Every submission, in order of students, and every file that was not used, in order of paths."""

    submissions: list[Submission]
    unused: list[Unused]

    def remarks(self) -> Iterator[str]:
        """Repairs, and files that were not used: one by one if an instructor should look at them."""
        for submission in self.submissions:
            yield from (f"  {submission.student}: {note}" for note in submission.notes)
        surprising = [one for one in self.unused if not one.expected]
        if surprising:
            yield "files that were not used:"
        yield from (f"  {one.path}: {one.why}" for one in surprising)
        for why in dict.fromkeys(one.why for one in self.unused if one.expected):
            yield f"not used, {why}{first_five([one.path for one in self.unused if one.expected and one.why == why])}"


def first_five(names: Sequence[str]) -> str:
    """Up to five of the names after a colon; empty if there are none."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f": {', '.join(names[:5])}{more}" if names else ""
