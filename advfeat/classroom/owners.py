"""Sort the files of a download by students, and give every student the name of a folder."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from advfeat.classroom import layouts
from advfeat.classroom.downloads import Entry, Unusable, is_archive, stem
from advfeat.files import write_whole

_SAMPLE = 5
"""Number of notebooks of one folder that are read to find out whose folder it is."""


@dataclass(frozen=True)
class File:
    """A file of a student: its path among the student's files, and the parts of a name that a system gave."""

    entry: Entry
    inner: tuple[str, ...]
    label: layouts.Label | None = None

    @property
    def serial(self) -> int:
        """Higher for later files of one name."""
        return self.label.serial if self.label else 0


@dataclass
class Owner:
    """A student: the name in the download, the number that a system gave, and all files.

    ``tops`` are the top-level files and folders of the student in the download; ``student`` is the name of the
    student's folder.
    """

    name: str
    id: str = ""
    files: list[File] = field(default_factory=list)
    tops: set[str] = field(default_factory=set)
    student: str = ""


@dataclass(frozen=True)
class Sorter:
    """Sorts the files of one download.

    Attributes:
        assignment: the problem set, whose name may be part of file names.
        download: the path that the instructor gave.
        notebooks: the files that are notebooks.
        fits: whether a notebook holds cells of the problem set, and whether these were worked on.
        leave: called with a file without owner, the reason, and whether that was expected.
    """

    assignment: str
    download: Path
    notebooks: Collection[Entry]
    fits: Callable[[Entry], tuple[bool, bool]]
    leave: Callable[[Entry, str, bool], None]

    def owners(self, entries: Sequence[Entry]) -> list[Owner]:
        """All students who own files."""
        folder = self._folder(entries)
        depth = len(folder)
        inside = [entry for entry in entries if entry.parts[:depth] == folder and len(entry.parts) > depth]
        for entry in set(entries) - set(inside):
            self.leave(entry, "it lies outside the folder that holds the notebooks", False)
        users = self._usernames(inside, depth)
        owners: dict[tuple[str, ...], Owner] = {}
        loose = []
        for entry in inside:
            top, *rest = entry.parts[depth:]
            its = layouts.label(top)
            if its and its.receipt:
                self.leave(entry, "the system's page about an attempt", True)
                continue
            if its:
                name = users.get(its.student, its.student)
                key: tuple[str, ...] = ("system", its.id, "" if its.id else _folded(name))
                inner = (its.file or top,) if not rest else (its.file, *rest) if its.file else tuple(rest)
            elif rest:
                name, key, inner = self._person(top) or top, ("folder", top), tuple(rest)
            else:
                loose.append(entry)
                continue
            owner = owners.setdefault(key, Owner(name, its.id if its else ""))
            owner.files.append(File(entry, inner, its))
            owner.tops.add(top)
        self._share_out(loose, owners)
        return _joined(list(owners.values()), self.notebooks)

    def _share_out(self, loose: Iterable[Entry], owners: dict[tuple[str, ...], Owner]) -> None:
        """Find the owners of files that lie in no folder and have no name from a system."""
        nameless, others = [], []
        for entry in loose:
            person = layouts.person(stem(entry.name), self.assignment)
            work = entry in self.notebooks or is_archive(entry.name) or (entry.refused and "." not in entry.name)
            if not work and not (person and layouts.mentions_set(entry.name, self.assignment)):
                others.append(entry)
            elif not person and re.search(r"[^\W_]", stem(entry.name)):
                nameless.append(entry)
            else:
                name = person or stem(entry.name)
                owner = owners.setdefault(("file", _folded(name)), Owner(name))
                owner.files.append(File(entry, (entry.name,)))
                owner.tops.add(entry.name)
        path = self.download.resolve()
        name = layouts.person(stem(path.name) if path.is_file() else path.name, self.assignment)
        if nameless and name and not owners:  # the folder or archive of one student
            owners["file", _folded(name)] = Owner(name, "", [File(entry, (entry.name,)) for entry in nameless])
            nameless = []
        for entry in nameless:
            self.leave(entry, "its name does not say whose it is", False)
        for entry in others:
            whose = _beginning(entry.name, owners.values())
            if whose:
                whose.files.append(File(entry, (entry.name[len(whose.name) :].lstrip(" _.-"),)))
            elif len(owners) == 1 and ("file", *_folded_names(owners.values())) in owners:
                next(iter(owners.values())).files.append(File(entry, (entry.name,)))
            elif entry.name.casefold() == "index.html":
                self.leave(entry, "the system's list of submissions", True)
            else:
                self.leave(entry, "it is no notebook, and its name does not say whose it is", False)

    def _usernames(self, entries: Iterable[Entry], depth: int) -> dict[str, str]:
        columns, pages = set(), []
        for entry in entries:
            its = layouts.label(entry.parts[depth])
            if its and its.when is not None and not its.id:
                columns.add(its.student)
                if its.receipt:
                    try:
                        pages.append(entry.read().decode("utf-8-sig", "replace"))
                    except Unusable:
                        continue
        return layouts.usernames(columns, pages, self.assignment)

    def _folder(self, entries: Sequence[Entry]) -> tuple[str, ...]:
        """The innermost folder that holds all notebooks and does not belong to a student."""
        paths = [entry.parts for entry in entries if entry in self.notebooks] or [entry.parts for entry in entries]
        depth = 0
        while all(len(path) > depth + 1 for path in paths) and len({path[depth] for path in paths}) == 1:
            if not self._holds_a_class(paths[0][depth], depth, paths):
                break
            depth += 1
        return paths[0][:depth]

    def _holds_a_class(self, top: str, depth: int, paths: Sequence[tuple[str, ...]]) -> bool:
        """Whether the only folder at its place is not a student's."""
        if layouts.label(top):
            return False
        level = depth + 1
        while all(len(path) > level + 1 for path in paths) and {self._person(path[level]) for path in paths} == {""}:
            level += 1
        below = {path[level] for path in paths}
        if any(layouts.label(name) for name in below):
            return True
        is_the_download = depth == 0 and _folded(stem(self.download.name)) in map(_folded, (top, stem(top)))
        if not self._person(top) or is_the_download:
            return True
        folders = {path[level] for path in paths if len(path) > level + 1}
        if len(below) == 1:  # an archive of a folder has that folder on top
            return any(map(self._person, folders)) and (self.download.is_file() or is_archive(top))
        candidates = folders | {name for name in below - folders if layouts.mentions_set(name, self.assignment)}
        fitting, worked_on = set(), set()
        for name in sorted(candidates):
            some = [entry for entry in self.notebooks if entry.parts[level] == name]
            looks = [self.fits(entry) for entry in sorted(some, key=lambda entry: entry.parts)[:_SAMPLE]]
            person = self._person(name) if name in folders else layouts.person(stem(name), self.assignment)
            fitting |= {person} if any(fits for fits, _ in looks) else set()
            worked_on |= {person} if any(worked for _, worked in looks) else set()
            if len(worked_on - {""}) > 1:
                return True
        return not worked_on and len(fitting - {""}) > 1

    def _person(self, folder: str) -> str:
        """The person after whom a folder or an archive is named; empty if the name does not name one."""
        return layouts.person(stem(folder) if is_archive(folder) else folder, self.assignment)


def named(owners: Iterable[Owner], known: Mapping[str, str], download: Path) -> list[Owner]:
    """Give every owner the name of a folder, so that no two students share one.

    Args:
        owners: all owners in a download.
        known: students with an earlier submission → the number that a system gave them.
        download: the path named in error messages.

    Raises:
        ValueError: two submissions are of one student, and no system tells which counts.
    """
    taken: dict[str, Owner] = {}
    for owner in sorted(owners, key=lambda one: (one.name, one.id)):
        name = layouts.fit_for_path(owner.name)
        before = [student for student, number in known.items() if owner.id and number == owner.id]
        spelled = next((student for student in known if _folded(student) == _folded(name)), name)
        namesakes = {known.get(spelled, ""), taken[_folded(name)].id if _folded(name) in taken else ""}
        if before:
            owner.student = before[0]
        elif owner.id and namesakes - {"", owner.id}:
            owner.student = f"{name}-{owner.id}"
        else:
            owner.student = spelled
        other = taken.setdefault(_folded(owner.student), owner)
        if other is not owner:
            both = ", ".join(map(repr, sorted(other.tops | owner.tops)))
            raise ValueError(
                f"two submissions of {owner.student!r} in {download}: {both}; keep the one that counts, "
                "or give them names that differ by more than capitals"
            )
    return list(taken.values())


def known_students(folder: Path, assignment: str) -> dict[str, str]:
    """Students with a submission for ``assignment`` → the number that a system gave them."""
    collected = {path.parent.name: "" for path in (folder / "submitted").glob("*/*/") if path.name == assignment}
    return collected | _numbers(folder / "students.json").get(assignment, {})


def remember(folder: Path, assignment: str, owners: Iterable[Owner]) -> None:
    """Save the numbers that a system gave, so that a namesake in a later download is not taken for the same person."""
    path = folder / "students.json"
    numbers = _numbers(path)
    numbers.setdefault(assignment, {}).update({owner.student: owner.id for owner in owners if owner.id})
    if numbers[assignment]:
        write_whole(path, json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")


def _numbers(path: Path) -> dict[str, dict[str, str]]:
    """Problem set → student → number.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {assignment: dict(students) for assignment, students in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and check the names of namesakes") from error


def _joined(owners: list[Owner], notebooks: Collection[Entry]) -> list[Owner]:
    """Give folders and archives of helper files that are named ``NAME_...`` after a student to that student."""
    for owner in list(owners):
        holds_work = any(file.entry in notebooks for file in owner.files)
        whose = None if holds_work or owner.id else _beginning(owner.name, (one for one in owners if one is not owner))
        if whose:
            whose.files += owner.files
            owners.remove(owner)
    return owners


def _beginning(name: str, owners: Iterable[Owner]) -> Owner | None:
    """The owner after whom a file is named, ``OWNER_...``."""
    fitting = [one for one in owners if re.match(rf"{re.escape(one.name)}[ _.-]", name, re.IGNORECASE)]
    return max(fitting, key=lambda one: len(one.name), default=None)


def _folded_names(owners: Iterable[Owner]) -> list[str]:
    return [_folded(owner.name) for owner in owners]


def _folded(name: str) -> str:
    """A form of a name that is equal for names that a file system may take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
