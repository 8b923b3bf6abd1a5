"""Whose is a file? Names as Canvas, Moodle, Blackboard and Brightspace give them, and names that people give."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from advfeat.classroom.downloads import composed, stem

# Each begins with what the system writes; whatever a student's own file name holds comes last, so it cannot take the
# place of it. The systems' names are in English, their dates in the language of the site.
_BLACKBOARD = re.compile(
    r"(?P<student>.+?)_attempt_(?P<when>\d{4}(?:-\d{1,2}){5})(?:_(?P<file>.+)|(?P<receipt>\.txt))?"
)
_MOODLE = re.compile(r"(?P<student>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+(?:_(?P<file>.*))?")
_BRIGHTSPACE = re.compile(
    r"(?P<id>\d+)-\d+ - (?:\S*\d\S* - )?(?P<student>.+?) ?- (?P<when>[^-]*?\b\d{4}\b,?(?: [^-]*?)?)(?: - (?P<file>.+))?"
)
_CANVAS = re.compile(
    r"(?P<student>(?=[^_]*[^\W\d_])\S+?)(?:_LATE)?_(?P<id>\d+)(?:_(?P<serial>\d+)_(?P<file>.+)|_(?P<typed>text\.html))",
    re.IGNORECASE,
)
_CANVAS_AGAIN = re.compile(r"-\d+(\.\w+)$")  # a name that the student has used before
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLOCK = re.compile(r"\b(\d{1,2}):?(\d\d)(?::?(\d\d))?\s*([ap])?\.?m?\b", re.IGNORECASE)
# What browsers and programs append to the name of a copy.
_COPY = r"(?:[ _-]*\(\d+\)|[ _-]+(?:copy|kopie|copie|copia)[ _-]*\d*)"
_COPY_NUMBER = re.compile(rf"{_COPY}+$", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[^\w.@-]+")
_LONGEST = 80
_NOBODY = {
    *("abgaben", "archive", "archiv", "assignment", "assignments", "class", "code", "course", "download", "downloads"),
    *("export", "files", "hand-in", "handin", "homework", "kurs", "notebook", "notebooks", "solution", "solutions"),
    *("src", "student", "students", "submission", "submissions", "submitted", "upload", "uploads", "work"),
}


@dataclass(frozen=True)
class Label:
    """What the name of a file or folder says.

    Attributes:
        student: whose it is, as it stands there.
        id: by which the system tells students of one name apart; empty if it does not.
        when: of which attempt, in an order that can be compared; None where the name does not say so, and empty where
            it does in a way that cannot be read.
        serial: which of several files of one name is the latest.
        file: the name that the student gave it; empty for a folder.
        receipt: it is a page of the system's about an attempt.
    """

    student: str
    id: str = ""
    when: tuple[int, ...] | None = None
    serial: int = 0
    file: str = ""
    receipt: bool = False


def label(name: str) -> Label | None:
    """What one of the four systems says by ``name``; None if it comes from none of them.

    Of Blackboard's, ``student`` also holds the name of the column; see ``usernames``.
    """
    if found := _BLACKBOARD.fullmatch(name):
        when = tuple(map(int, found["when"].split("-")))
        return Label(found["student"], "", when, 0, found["file"] or "", bool(found["receipt"]))
    if found := _MOODLE.fullmatch(name):
        return Label(found["student"], found["id"], file=found["file"] or "")
    if found := _BRIGHTSPACE.fullmatch(name):
        return Label(found["student"].strip(), found["id"], _moment(found["when"]), file=found["file"] or "")
    if found := _CANVAS.fullmatch(name):
        file = _CANVAS_AGAIN.sub(r"\1", found["file"] or found["typed"])
        return Label(found["student"], found["id"], serial=int(found["serial"] or 0), file=file)
    return None


def usernames(columns: Iterable[str], receipts: Iterable[str], assignment: str) -> dict[str, str]:
    """Blackboard's ``COLUMN_USERNAME`` → username, where either may hold underscores.

    Args:
        columns: all such names of a download.
        receipts: texts of the pages that it adds about each attempt; they name the user.
        assignment: the problem set, after which the column may be called.
    """
    columns = set(columns)
    first_lines = [re.match(r"[^:\n]*:.*\(([^()\s]+)\)\s*$", text, re.MULTILINE) for text in receipts]
    users = [found[1] for found in first_lines if found]
    shared = _shared([column.split("_")[:-1] for column in sorted(columns)])
    result = {}
    for column in columns:
        ends = [user for user in users if column.endswith(f"_{user}")]
        if ends:
            result[column] = max(ends, key=len)
        elif column.casefold().startswith(f"{assignment}_".casefold()):
            result[column] = column[len(assignment) + 1 :]
        else:
            result[column] = "_".join(column.split("_")[shared:])
    return result


def person(name: str, assignment: str) -> str:
    """What is left of a name without the problem set and the number of a copy; empty if it says nothing of a person."""
    pieces = re.split(_pattern(assignment), _COPY_NUMBER.sub("", name), maxsplit=1, flags=re.IGNORECASE)
    before, *after = (_COPY_NUMBER.sub("", piece).strip(" _-.") for piece in pieces)
    version = bool(after) and after[0].isdecimal() and len(after[0]) <= 2
    found = "_".join(piece for piece in (before, *(() if version else after)) if piece)
    return "" if found.casefold() in _NOBODY else found


def names_set(name: str, assignment: str) -> bool:
    """Whether a file is called as the problem set, and no more than that but for the number of a copy."""
    return not re.sub(rf"{_pattern(assignment)}(?:{_COPY})*(?:-\d+)?", "", stem(name), count=1, flags=re.IGNORECASE)


def mentions_set(name: str, assignment: str) -> bool:
    """Whether the name of the problem set stands in ``name``."""
    return bool(re.search(_pattern(assignment), name, re.IGNORECASE))


def fit_for_path(student: str) -> str:
    """The name of a student's folder. Names of which nothing would be left get a number made from all they hold."""
    bare = _FORBIDDEN.sub("-", composed(student)).strip("-.@ ")
    number = hashlib.sha256(student.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    if not re.search(r"[^\W_]", bare):
        return f"unnamed-{number}"
    return bare if len(bare) <= _LONGEST else f"{bare[:_LONGEST]}-{number}"


def _shared(names: list[list[str]]) -> int:
    """How many words all names begin with; of a single name all."""
    return next(
        (n for n, words in enumerate(zip(*names, strict=False)) if len(set(words)) > 1), min(map(len, names), default=0)
    )


def _pattern(assignment: str) -> str:
    return r"[-_ ]?".join(re.escape(word) for word in re.split(r"[-_ ]", assignment))


def _moment(text: str) -> tuple[int, ...]:
    """A date and time as Brightspace writes them, "Jan 31, 2026 1159 PM"; empty if it cannot be read."""
    date = re.search(r"\b([^\W\d]{3,})\.? (\d{1,2}),? (\d{4})\b|\b(\d{1,2})\.? ([^\W\d]{3,})\.?,? (\d{4})\b", text)
    clock = _CLOCK.search(text[date.end() :]) if date else None
    if not date or not clock:
        return ()
    month, day, year = (date[1], date[2], date[3]) if date[1] else (date[5], date[4], date[6])
    if month[:3].lower() not in _MONTHS:
        return ()
    hour = int(clock[1])
    if clock[4]:
        hour = hour % 12 + 12 * (clock[4].lower() == "p")
    return int(year), _MONTHS.index(month[:3].lower()) + 1, int(day), hour, int(clock[2]), int(clock[3] or 0)
