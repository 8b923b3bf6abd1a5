"""List and read the files of a download. Archives count as folders; no file outside the download is ever read."""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

LARGEST = 20_000_000
"""Bytes of one file; a larger one is not read."""
LARGEST_SUBMISSION = 100_000_000
"""The most bytes of all files of one submission together, unpacked."""
MOST_FILES = 2_000
"""The most files of one submission."""
DEEPEST = 3
"""The most archives inside one another that are opened."""

_SYSTEM_NAMES = {"__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin"}
_OTHER_ARCHIVES = (".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst")
_NOTEBOOK = re.compile(r"\.ipynb(\.(txt|json))?$", re.IGNORECASE)
_MAYBE_NOTEBOOK = re.compile(r"(^[^.]+|\.json|\.txt|\.ipynb[^/]*)$", re.IGNORECASE)
_BEGINNING = 4096
# An archive inside an archive hardly shrinks, so a large member that unpacks to many times its size is refused.
_MOST_COMPRESSION, _HARMLESS_SIZE = 20, 1_000_000
_UTF8_NAMES = 0x800  # bit of a member's flags: its name is in UTF-8
_ENCRYPTED = 0x1


class Unusable(ValueError):
    """Why something that was handed in cannot be graded."""


def one_line(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@dataclass(frozen=True)
class Entry:
    """A file of a download.

    Attributes:
        parts: path in the download, in Unicode's composed form; an archive is a folder of the archive's name.
        size: bytes, unpacked.
        path: the file, or the archive on disk that holds it.
        member: number in that archive; -1 for a file on disk.
        refused: why the file must not be read; empty if it may be.
    """

    parts: tuple[str, ...]
    size: int
    path: Path
    member: int = -1
    refused: str = ""

    def __str__(self) -> str:
        return "/".join(self.parts)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.parts[-1]

    def read(self, limit: int = LARGEST) -> bytes:
        """All bytes.

        Raises:
            Unusable: the file is refused, larger than ``limit`` (whatever the archive says), or damaged.
        """
        if self.refused:
            raise Unusable(self.refused)
        data = b"" if self.size > limit else self._read(limit + 1)
        if max(self.size, len(data)) > limit:
            raise Unusable(f"{self.name} is larger than {limit:,} bytes")
        return data

    def start(self) -> bytes:
        """The first few thousand bytes.

        Raises:
            Unusable: the file is refused or damaged.
        """
        if self.refused:
            raise Unusable(self.refused)
        return self._read(_BEGINNING)

    def _read(self, count: int) -> bytes:
        try:
            if self.member >= 0:
                with zipfile.ZipFile(self.path) as bundle, bundle.open(bundle.infolist()[self.member]) as stream:
                    return stream.read(count)
            # A link or a pipe is refused, even if the file has become one since it was listed.
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as file:
                if problem := _not_plain(os.fstat(descriptor)):
                    raise Unusable(problem)
                return file.read(count)
        except Unusable:
            raise
        except Exception as error:  # any failure, such as a truncated stream, unknown compression, wrong checksum
            raise Unusable(f"{self.name} cannot be read: {one_line(error)}") from error


def files(download: Path, scratch: Path) -> list[Entry]:
    """Every file of ``download``, a folder, a ZIP archive or a notebook, in order of paths.

    Archives in it are opened, too, up to ``DEEPEST`` inside one another; an archive inside an archive is first copied
    to ``scratch``.

    Raises:
        Unusable: ``download`` is a file, but neither a ZIP archive nor a notebook.
    """
    if download.is_dir():
        found = _folder(download.resolve(), (), scratch)
    elif _NOTEBOOK.search(download.name):
        path = download.resolve()
        found = iter([Entry((composed(download.name),), path.stat().st_size, path)])
    else:
        found = _archive(download.resolve(), download.name, (), scratch, 1)
    entries = sorted(found, key=lambda entry: entry.parts)
    if len(entries) == 1 and not entries[0].parts:
        raise Unusable(entries[0].refused)
    return entries


def composed(name: str) -> str:
    """A name in Unicode's composed form: macOS writes decomposed names, which look the same."""
    return unicodedata.normalize("NFC", name)


def of_the_system(parts: tuple[str, ...]) -> str:
    """Why a file cannot be a student's work, from its path alone; empty if it can."""
    for part in parts:
        if part.casefold() in _SYSTEM_NAMES or part.startswith("."):
            return f"{part} is made by programs, not by students"
    return ""


def is_archive(name: str) -> bool:
    """Whether a file of this name is opened as a ZIP archive."""
    return name.lower().endswith(".zip")


def is_other_archive(name: str) -> bool:
    """Whether a file of this name is an archive of a kind that is not opened."""
    return name.lower().endswith(_OTHER_ARCHIVES)


def stem(name: str) -> str:
    """A name without the ending of a notebook or an archive."""
    bare = _NOTEBOOK.sub("", name)
    return bare if bare != name else PurePosixPath(name).stem


def decoded(data: bytes) -> str:
    """The text of a JSON file, in whichever form of Unicode an editor saved it."""
    return data.decode(json.detect_encoding(data))


def is_notebook(entry: Entry) -> bool:
    """Whether a file is a notebook by its name, even if a browser or mail program has added an ending.

    A file with the ending ``.json`` or ``.txt``, or with none, is a notebook if it begins like one.
    """
    if _NOTEBOOK.search(entry.name):
        return True
    if entry.refused or not _MAYBE_NOTEBOOK.search(entry.name):
        return False
    try:
        beginning = entry.start()
        content = beginning.decode(json.detect_encoding(beginning), "ignore")
    except Unusable:
        return False
    return content.lstrip().startswith("{") and ('"nbformat"' in content or '"cells"' in content)


def _folder(folder: Path, parts: tuple[str, ...], scratch: Path) -> Iterator[Entry]:
    try:
        inside = sorted(os.scandir(folder), key=lambda item: item.name)
    except OSError as error:
        yield Entry(parts, 0, folder, refused=f"the folder cannot be opened: {one_line(error)}")
        return
    if not inside:
        yield Entry((*parts, "(nothing)"), 0, folder, refused="the folder is empty")
    for item in inside:
        names, path = (*parts, composed(item.name)), Path(item.path)
        if item.is_dir(follow_symlinks=False):
            yield from _folder(path, names, scratch)
            continue
        status = item.stat(follow_symlinks=False)
        problem = _not_plain(status)
        if not problem and is_archive(item.name) and not of_the_system(names):
            yield from _archive(path, item.name, names, scratch, 1)
        else:
            yield Entry(names, status.st_size, path, refused=problem)


def _not_plain(status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link, which could lead anywhere"
    if not stat.S_ISREG(status.st_mode):
        return "it is neither a file nor a folder"
    if status.st_nlink > 1:
        return "it is a hard link, a second name of a file elsewhere; grade a copy of the folder"
    return ""


def _archive(archive: Path, name: str, parts: tuple[str, ...], scratch: Path, depth: int) -> Iterator[Entry]:
    """The files of the ZIP archive at ``archive``, called ``name``; ``parts`` is its path in the download."""
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = bundle.infolist()
    except Exception as error:  # noqa: BLE001 - any failure refuses the archive
        problem = f"{name} is not a ZIP file that can be opened: {one_line(error)}"
        yield Entry(parts, 0, archive, refused=problem)
        return
    for number, member in enumerate(members):
        path, problem = _member(member, name)
        entry = Entry((*parts, *path), member.file_size, archive, number, problem)
        folder = member.filename.endswith(("/", "\\")) or stat.S_ISDIR(member.external_attr >> 16)
        if not path or (folder and not problem):
            continue
        if not is_archive(path[-1]) or problem or of_the_system(path):
            yield entry
        elif depth == DEEPEST:
            yield _refuse(entry, f"it lies in {depth} archives one inside another; no more are opened")
        elif member.file_size > _MOST_COMPRESSION * member.compress_size + _HARMLESS_SIZE:
            yield _refuse(entry, f"it unpacks from {member.compress_size:,} to {member.file_size:,} bytes")
        else:
            try:
                data = entry.read(LARGEST_SUBMISSION)
            except Unusable as error:
                yield _refuse(entry, str(error))
                continue
            inner = scratch / f"{len(list(scratch.iterdir()))}.zip"
            inner.write_bytes(data)
            yield from _archive(inner, path[-1], entry.parts, scratch, depth + 1)


def _member(member: zipfile.ZipInfo, archive: str) -> tuple[tuple[str, ...], str]:
    """Path of a member in its archive, and the reason why it must not be read."""
    name = member.orig_filename.partition("\0")[0]
    if not member.flag_bits & _UTF8_NAMES:
        with suppress(UnicodeError):  # Finder and others write UTF-8 without saying so
            name = name.encode("cp437").decode("utf-8")
    name = composed(name).replace("\\", "/")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    mode = member.external_attr >> 16
    problem = ""
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts:
        problem = f"its path in the archive, {name!r}, leads out of it"
    elif stat.S_ISLNK(mode):
        problem = "it is a symbolic link, which could lead anywhere"
    elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "it is neither a file nor a folder"
    elif member.flag_bits & _ENCRYPTED:
        problem = f"{archive} is not a ZIP file that can be opened without a password"
    return tuple("(parent)" if part == ".." else part for part in parts), problem


def _refuse(entry: Entry, problem: str) -> Entry:
    return Entry(entry.parts, entry.size, entry.path, entry.member, problem)
