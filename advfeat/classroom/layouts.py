"""The owner of a file by its name: names made by Canvas, Moodle, Blackboard and Brightspace, and by people."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from advfeat.classroom.downloads import composed, stem

# Each pattern begins with the system's part of the name; the student's own file name comes last, so that it cannot
# imitate the system's part. The fixed words are in English, the dates in the language of the site.
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
# The endings that browsers and programs append to the name of a copy.
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
    """The parts of the name that a system gave to a file or folder.

    Attributes:
        student: the student's name, as written there.
        id: number by which the system tells students of one name apart; empty if there is none.
        when: time of the attempt, in an order that can be compared; None if the name has no time, and empty if the time
            cannot be read.
        serial: higher for later files of one name.
        file: the student's own name of the file; empty for a folder.
        receipt: whether the file is the system's page about an attempt.
    """

    student: str
    id: str = ""
    when: tuple[int, ...] | None = None
    serial: int = 0
    file: str = ""
    receipt: bool = False


def label(name: str) -> Label | None:
    """The parts of a ``name`` made by one of the four systems; None for any other name.

    For Blackboard, ``student`` also holds the name of the column; see ``usernames``.
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
        receipts: texts of the pages that Blackboard adds about each attempt; they name the user.
        assignment: the problem set, which may also be the name of the column.
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
    """A name without the problem set and the number of a copy; empty if the rest does not name a person."""
    pieces = re.split(_pattern(assignment), _COPY_NUMBER.sub("", name), maxsplit=1, flags=re.IGNORECASE)
    before, *after = (_COPY_NUMBER.sub("", piece).strip(" _-.") for piece in pieces)
    version = bool(after) and after[0].isdecimal() and len(after[0]) <= 2
    found = "_".join(piece for piece in (before, *(() if version else after)) if piece)
    return "" if found.casefold() in _NOBODY else found


def names_set(name: str, assignment: str) -> bool:
    """Whether the name of a file is that of the problem set, with or without the number of a copy."""
    return not re.sub(rf"{_pattern(assignment)}(?:{_COPY})*(?:-\d+)?", "", stem(name), count=1, flags=re.IGNORECASE)


def mentions_set(name: str, assignment: str) -> bool:
    """Whether ``name`` contains the name of the problem set."""
    return bool(re.search(_pattern(assignment), name, re.IGNORECASE))


def fit_for_path(student: str) -> str:
    """The name of a student's folder. A name without usable characters is replaced by a number, a hash of the name."""
    bare = _FORBIDDEN.sub("-", composed(student)).strip("-.@ ")
    number = hashlib.sha256(student.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    if not re.search(r"[^\W_]", bare):
        return f"unnamed-{number}"
    return bare if len(bare) <= _LONGEST else f"{bare[:_LONGEST]}-{number}"


def _shared(names: list[list[str]]) -> int:
    """The number of words with which all names begin; for a single name, all its words."""
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
