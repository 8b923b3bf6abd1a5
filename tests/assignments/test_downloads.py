"""Downloads of Canvas, Moodle, Blackboard, Brightspace and of people: everybody is found, and rightly named."""

from __future__ import annotations

import json
import os
import socket
import stat
import unicodedata
import warnings
import zipfile

import nbformat
import pytest
from handing_in import answered, made_class

from advfeat.classroom import downloads as reading
from advfeat.classroom import layouts, rehearse
from advfeat.classroom.collect import gather
from advfeat.classroom.downloads import Unusable, files
from advfeat.classroom.release import Classroom

ASSIGNMENT = "ps4-theory"
NOTEBOOK = f"{ASSIGNMENT}.ipynb"
ANSWER = "ps4-angles"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A class with every problem set made."""
    return made_class(tmp_path_factory)


@pytest.fixture
def classroom(made, tmp_path):
    """A class of its own for each test, in which nothing has been collected."""
    folder = tmp_path / "the class"
    folder.mkdir()
    for name in ("release", "source", "class.json"):
        (folder / name).symlink_to(made.folder / name)
    return Classroom(folder)


@pytest.fixture(scope="module")
def texts(made):
    """Notebooks as files: with all answers, with another last answer, and as handed out; and of another set."""
    right, other = (answered(made, ASSIGNMENT) for _ in range(2))
    rehearse.answers(other)[ANSWER].source = "# another answer"
    release = nbformat.read(made.notebook("release", ASSIGNMENT), as_version=4)
    notebooks = {"right": right, "other": other, "untouched": release, "ps1": answered(made, "ps1-attacks")}
    return {name: nbformat.writes(notebook) for name, notebook in notebooks.items()}


@pytest.fixture
def download(tmp_path, texts):
    """A function that writes a folder ``downloads``: path → text, name of a notebook, or content of a ZIP archive."""

    def write(content):
        folder = tmp_path / "downloads"
        for path, value in content.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(packed(value, texts))
        return folder

    return write


def packed(value, texts):
    """The bytes of a file: a notebook by its name, an archive by its content, or text."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, dict):
        return texts.get(value, value).encode()
    import io

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, inside in value.items():
            bundle.writestr(name, packed(inside, texts))
    return stream.getvalue()


def archive(tmp_path, name, content, texts):
    """A ZIP archive that was downloaded."""
    path = tmp_path / name
    path.write_bytes(packed(content, texts))
    return path


def taken(classroom, student):
    """The files that were collected of a student, but for the notebook."""
    folder = classroom.notebook("submitted", ASSIGNMENT, student).parent
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {NOTEBOOK}


def answer(classroom, student):
    """Which notebook was collected, by its last answer."""
    notebook = nbformat.read(classroom.notebook("submitted", ASSIGNMENT, student), as_version=4)
    source = rehearse.answers(notebook)[ANSWER].source
    return "other" if source == "# another answer" else "untouched" if "YOUR CODE HERE" in source else "right"


def look(classroom, place):
    """Student → problem; the paths of files that should have been used; and of those that need not."""
    collected = gather(classroom, ASSIGNMENT, place)
    found = {one.student: one.problem for one in collected.submissions}
    lost = {one.path: one.why for one in collected.unused if not one.expected}
    others = {one.path: one.why for one in collected.unused if one.expected}
    assert all(one.why for one in collected.unused), "every file that is not used has a reason"
    return found, lost, others


# path → content; the students; which notebook each has; helpers; files lost; files that need not be used
LAYOUTS = {
    "Canvas": (
        {
            "lovelaceada_12345_67890_ps4-theory-1.ipynb": "right",
            "lovelaceada_12345_67891_helpers-1.py": "x = 1",
            "hopperben_LATE_222_333_ps4-theory.ipynb": "other",
            "kingcleo_77_88_work.zip": {"ps4-theory/ps4-theory.ipynb": "right", "ps4-theory/h.py": ""},
        },
        {"lovelaceada": "right", "hopperben": "other", "kingcleo": "right"},
        {"lovelaceada": {"helpers.py"}, "kingcleo": {"h.py"}},
    ),
    "Canvas, two attempts": (
        {"lovelaceada_12345_67890_ps4-theory.ipynb": "right", "lovelaceada_12345_70000_ps4-theory-1.ipynb": "other"},
        {"lovelaceada": "other"},
        {},
    ),
    "Canvas, two of one name": (
        {"lovelaceada_11_1_ps4-theory.ipynb": "right", "lovelaceada_22_2_ps4-theory.ipynb": "other"},
        {"lovelaceada": "right", "lovelaceada-22": "other"},
        {},
    ),
    "Blackboard": (
        {
            "ps4_ada_l_attempt_2026-01-30-12-00-00.txt": "Name: Ada Lovelace (ada_l)\nAssignment: ps4\n",
            "ps4_ada_l_attempt_2026-01-30-12-00-00_ps4-theory.ipynb": "right",
            "ps4_ada_l_attempt_2026-01-31-09-00-00.txt": "Name: Ada Lovelace (ada_l)\nAssignment: ps4\n",
            "ps4_ada_l_attempt_2026-01-31-09-00-00_ps4-theory.ipynb": "other",
            "ps4_ada_l_attempt_2026-01-31-09-00-00_helpers.py": "x = 1",
            "ps4_ben_attempt_2026-01-31-12-00-00.txt": "Name: Ben H (ben)\nAssignment: ps4\n",
            "ps4_ben_attempt_2026-01-31-12-00-00_mine.zip": {"ps4-theory.ipynb": "right"},
        },
        {"ada_l": "other", "ben": "right"},
        {"ada_l": {"helpers.py"}},
    ),
    "Moodle": (
        {
            "Ada Lovelace_123456_assignsubmission_file_/ps1.ipynb": "right",
            "Ada Lovelace_123456_assignsubmission_file_/helpers.py": "x = 1",
            "Ben Hopper_7_assignsubmission_file_/work.zip": {"work/ps4-theory.ipynb": "other", "work/h.py": ""},
            "Cleo King_8_assignsubmission_file_ps4-theory.ipynb": "right",
        },
        {"Ada-Lovelace": "right", "Ben-Hopper": "other", "Cleo-King": "right"},
        {"Ada-Lovelace": {"helpers.py"}, "Ben-Hopper": {"h.py"}},
    ),
    "Moodle, without names": (
        {
            "Participant_1_assignsubmission_file_/ps4-theory.ipynb": "right",
            "Participant_2_assignsubmission_file_/ps4-theory.ipynb": "other",
        },
        {"Participant": "right", "Participant-2": "other"},
        {},
    ),
    "Brightspace": (
        {
            "index.html": "<html></html>",
            "123456-654321 - Ada Lovelace- Jan 30, 2026 1159 PM/ps4-theory.ipynb": "right",
            "123456-654321 - Ada Lovelace- Jan 31, 2026 101 AM/ps4-theory.ipynb": "other",
            "123457-654321 - Anne-Marie Hopper- Jan 31, 2026 1159 PM/mine.zip": {"ps4-theory.ipynb": "right"},
        },
        {"Ada-Lovelace": "other", "Anne-Marie-Hopper": "right"},
        {},
    ),
    "Brightspace, without folders": (
        {
            "index.html": "<html></html>",
            "123456-654321 - Ada Lovelace- Jan 31, 2026 959 AM - ps4-theory.ipynb": "right",
            "123456-654321 - Ada Lovelace- Jan 31, 2026 1159 AM - ps4-theory.ipynb": "other",
            "123456-654321 - Ada Lovelace- Jan 31, 2026 1159 AM - helpers.py": "x = 1",
        },
        {"Ada-Lovelace": "other"},
        {"Ada-Lovelace": {"helpers.py"}},
    ),
    "a folder in a folder": (
        {"homework/ada/ps4-theory.ipynb": "right", "homework/ben/deep/er/ps4-theory.ipynb": "other"},
        {"ada": "right", "ben": "other"},
        {},
    ),
    "Finder": (
        {
            "class/ada/ps4-theory.ipynb": "right",
            "class/ben/ps4-theory.ipynb": "other",
            "class/.DS_Store": "",
            "__MACOSX/class/ada/._ps4-theory.ipynb": "junk",
            "__MACOSX/class/._ada": "junk",
        },
        {"ada": "right", "ben": "other"},
        {},
    ),
    "files with names": (
        {
            "ada_ps4-theory.ipynb": "right",
            "ada_helpers.py": "x = 1",
            "ben_ps4-theory.ipynb.txt": "other",
            "Cleo PS4_Theory (2).ipynb": "right",
            "dana.json": "other",
            "emil_ps4-theory.IPYNB": "right",
            "finn_ps4-theory.ipynb.json": "right",
        },
        {"ada": "right", "ben": "other", "Cleo": "right", "dana": "other", "emil": "right", "finn": "right"},
        {"ada": {"helpers.py"}},
    ),
    "helpers in folders and archives": (
        {
            "ada/ps4-theory.ipynb": "right",
            "ada/mine/__init__.py": "",
            "ada/more.zip": {"more.py": ""},
            "ben_ps4-theory.ipynb": "other",
            "ben_helpers.zip": {"helpers.py": ""},
        },
        {"ada": "right", "ben": "other"},
        {"ada": {"mine/__init__.py", "more.py"}, "ben": {"helpers.py"}},
    ),
    "a copy that was worked on": (
        {"ada/ps4-theory.ipynb": "untouched", "ada/ps4-theory-Copy1.ipynb": "right"},
        {"ada": "right"},
        {},
    ),
    "all sets in one folder": (
        {"ada/ps1-attacks/ps1-attacks.ipynb": "ps1", "ada/ps4-theory/ps4-theory.ipynb": "right"},
        {"ada": "right"},
        {},
    ),
    "checkpoints and caches": (
        {
            "ada/ps4-theory.ipynb": "right",
            "ada/.ipynb_checkpoints/ps4-theory-checkpoint.ipynb": "other",
            "ada/__pycache__/helpers.cpython-312.pyc": "junk",
            "ben/ps4-theory.ipynb": "right",
        },
        {"ada": "right", "ben": "right"},
        {},
    ),
    "other folders beside the class's": (
        {
            "class/ada/ps4-theory.ipynb": "right",
            "class/ben/ps4-theory.ipynb": "other",
            ".git/a/b": "x",
        },
        {"ada": "right", "ben": "other"},
        {},
    ),
    "names with points and commas": (
        {
            "Dr. Ada M. King/ps4-theory.ipynb": "right",
            "O'Neil, Ben Jr./ps4-theory.ipynb": "other",
            "J.R.R. Tolkien.ipynb": "right",
            "30012_ps4-theory.ipynb": "right",
            "ps4-theory_30013.ipynb": "other",
            "c.s.lewis.zip": {"ps4-theory.ipynb": "right"},
        },
        {
            "30012": "right",
            "30013": "other",
            "Dr.-Ada-M.-King": "right",
            "O-Neil-Ben-Jr": "other",
            "J.R.R.-Tolkien": "right",
            "c.s.lewis": "right",
        },
        {},
    ),
    "archives in archives": (
        {
            "all.zip": {
                "class/ada.zip": {"ada/ps4-theory.ipynb": "right"},
                "class/ben.zip": {"ps4-theory.ipynb": "other"},
            }
        },
        {"ada": "right", "ben": "other"},
        {},
    ),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_everybody_is_found_and_named(classroom, download, tmp_path, texts, layout, zipped):
    content, students, helpers = LAYOUTS[layout]
    place = archive(tmp_path, "gradebook.zip", content, texts) if zipped else download(content)
    found, lost, _ = look(classroom, place)
    assert found == dict.fromkeys(students, "")
    assert {student: answer(classroom, student) for student in students} == students
    assert {student: taken(classroom, student) for student in students if taken(classroom, student)} == helpers
    assert not [path for path in lost if "ps1-attacks" not in path]
    used = sum(1 + len(taken(classroom, student)) for student in students)
    number = len(files(place, tmp_path_of(tmp_path)))
    assert number == used + len(gather(classroom, ASSIGNMENT, place).unused), "every file is used or listed"


def tmp_path_of(tmp_path):
    """A fresh folder for archives in archives."""
    folder = tmp_path / f"unpacked-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("submissions.zip", {"ada/ps4-theory.ipynb": "right"}),
        ("submissions.zip", {"class/ada/ps4-theory.ipynb": "right"}),
        ("submissions.zip", {"submissions/submissions/ada/ps4-theory.ipynb": "right"}),
        ("submissions.zip", {"ada/work/ps4-theory.ipynb": "right"}),
        ("submissions.zip", {"class\\ada\\ps4-theory.ipynb": "right", "class\\ada\\helpers.py": ""}),
        ("ada.zip", {"ps4-theory.ipynb": "right"}),
        ("ada.zip", {"ps4-theory/ps4-theory.ipynb": "right"}),
        ("ada.zip", {"ada/work/ps4-theory.ipynb": "right"}),
        ("ada_ps4-theory.zip", {"ps4-theory.ipynb": "right"}),
    ],
)
def test_one_student_alone_keeps_the_name(classroom, tmp_path, texts, name, content):
    found, lost, _ = look(classroom, archive(tmp_path, name, content, texts))
    assert found == {"ada": ""}
    assert not lost


def test_a_folder_or_notebook_of_one_student_can_be_graded_by_itself(classroom, tmp_path, download):
    folder = download({"ada/ps4-theory.ipynb": "right", "ada/helpers.py": "x = 1"})
    assert look(classroom, folder / "ada")[0] == {"ada": ""}
    assert taken(classroom, "ada") == {"helpers.py"}
    (folder / "ada" / NOTEBOOK).rename(tmp_path / f"ben_{NOTEBOOK}")
    assert look(classroom, tmp_path / f"ben_{NOTEBOOK}")[0] == {"ben": ""}


def test_names_keep_their_letters(classroom, tmp_path, texts):
    """Decomposed as macOS writes them, in an archive that does not say that its names are in UTF-8."""
    name = unicodedata.normalize("NFD", "José Ñandú")
    data = packed({f"{name}/ps4-theory.ipynb": "right", "漢字/ps4-theory.ipynb": "other"}, texts)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr("x", "")
    unsaid = bytearray(data)
    for start, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := unsaid.find(start, at + 1)) >= 0:
            unsaid[at + flags + 1] &= ~0x08 & 0xFF
    for content in (data, bytes(unsaid)):
        (tmp_path / "class.zip").write_bytes(content)
        assert look(classroom, tmp_path / "class.zip")[0] == {"José-Ñandú": "", "漢字": ""}


def test_names_without_letters_stop_nobody(classroom, download):
    folder = download(
        {"---/ps4-theory.ipynb": "right", "!!!/ps4-theory.ipynb": "other", "ada.ipynb": "right", "___.ipynb": "right"}
    )
    found, lost, _ = look(classroom, folder)
    assert len(found) == 4
    assert not lost
    assert sorted(name.startswith("unnamed-") for name in found) == [False, True, True, True]
    assert look(classroom, folder)[0] == found, "they are called the same the next time"


@pytest.mark.parametrize("other", ["ADA", unicodedata.normalize("NFD", "Zoé"), "anna_ps4-theory"])
def test_one_student_twice_is_refused_with_both_places(classroom, download, other):
    """Names that a file system may take for one, and of which no system says which counts."""
    first = {"ADA": "ada", "anna_ps4-theory": "anna"}.get(other, unicodedata.normalize("NFC", "Zoé"))
    folder = download({f"{first}/ps4-theory.ipynb": "right", f"{other}.zip": {"ps4-theory.ipynb": "other"}})
    with pytest.raises(ValueError, match=r"two submissions of .*\.zip'.*keep the one that counts"):
        gather(classroom, ASSIGNMENT, folder)
    assert not (classroom.folder / "submitted").exists()


def test_a_namesake_in_a_later_download_is_somebody_else(classroom, tmp_path, texts):
    names = ["lovelaceada_11_1_ps4-theory.ipynb", "lovelaceada_22_2_ps4-theory.ipynb"]
    assert look(classroom, archive(tmp_path, "1.zip", {names[0]: "right"}, texts))[0] == {"lovelaceada": ""}
    assert look(classroom, archive(tmp_path, "2.zip", {names[1]: "other"}, texts))[0] == {"lovelaceada-22": ""}
    assert look(classroom, archive(tmp_path, "3.zip", {names[0]: "right"}, texts))[0] == {"lovelaceada": ""}
    assert answer(classroom, "lovelaceada") == "right"
    assert answer(classroom, "lovelaceada-22") == "other"


def test_a_student_cannot_hand_in_for_another(classroom, download):
    """Names of systems count on top only: inside a student's folder they are names as others."""
    folder = download(
        {
            "ada/ps4-theory.ipynb": "right",
            "ben/lovelaceada_1_2_ps4-theory.ipynb": "other",
            "x_attempt_2026-01-01-00-00-00_y_attempt_2026-01-02-00-00-00_ps4-theory.ipynb": "other",
        }
    )
    assert set(look(classroom, folder)[0]) == {"ada", "ben", "x"}


def test_what_is_not_used_is_listed(classroom, download):
    folder = download(
        {
            "ada/ps4-theory.ipynb": "right",
            "ada/data.csv": "1,2",
            "ada/more/notes.pdf": "%PDF",
            "ben/ps4-theory.ipynb": "x" * (reading.LARGEST + 1),
            "cleo/work.tar.gz": "junk",
            "dana_ps4-theory.docx": "PK",
            "emil.zip": {"empty.txt": ""},
            "finn/ps4-theory.ipynb": "ps1",
            "ps4-theory.ipynb": "right",
            "roster.xlsx": "PK",
            "Thumbs.db": "",
        }
    )
    found, lost, others = look(classroom, folder)
    assert found.pop("ada") == ""
    expected = {
        "ben": f"larger than {reading.LARGEST:,} bytes",
        "cleo": "work.tar.gz: an archive of a kind that is not opened",
        "dana": "dana_ps4-theory.docx",
        "emil": "no notebook",
        "finn": "no cell of ps4-theory in it, but of ps1-attacks",
    }
    assert found.keys() == expected.keys()
    assert {student: text for student, text in expected.items() if text not in found[student]} == {}, found
    assert "whose" in lost["ps4-theory.ipynb"]
    assert "whose" in lost["roster.xlsx"]
    assert {"ada/data.csv", "ada/more/notes.pdf", "cleo/work.tar.gz", "emil.zip/empty.txt"} <= set(lost)
    assert set(others) == {"Thumbs.db"}


def test_what_lies_beside_the_folder_of_a_class_is_nobodys(classroom, tmp_path, texts):
    content = {"class/ada/ps4-theory.ipynb": "right", "class/ben.ipynb": "other", "more/notes/a.txt": "x", "b.txt": "x"}
    found, lost, _ = look(classroom, archive(tmp_path, "submissions.zip", content, texts))
    assert found == {"ada": "", "ben": ""}
    assert set(lost) == {"more/notes/a.txt", "b.txt"}


def test_two_answers_that_differ_are_not_chosen_between(classroom, download):
    folder = download({"ada/a/ps4-theory.ipynb": "right", "ada/b/ps4-theory.ipynb": "other", "ben.ipynb": "right"})
    found, lost, _ = look(classroom, folder)
    assert found["ada"] == "several notebooks: ada/a/ps4-theory.ipynb, ada/b/ps4-theory.ipynb"
    assert found["ben"] == ""
    assert set(lost) == {"ada/a/ps4-theory.ipynb", "ada/b/ps4-theory.ipynb"}


def test_an_attempt_that_cannot_be_graded_does_not_take_the_place_of_one_that_can(classroom, download):
    name = "ps4_ada_attempt_2026-01-{}-12-00-00_{}"
    folder = download({name.format(30, NOTEBOOK): "right", name.format(31, "essay.pdf"): "%PDF"})
    collected = gather(classroom, ASSIGNMENT, folder)
    (ada,) = collected.submissions
    assert (ada.student, ada.problem) == ("ada", "")
    assert "a later attempt cannot be graded" in ada.notes[0]
    assert [one.path for one in collected.unused if not one.expected] == [name.format(31, "essay.pdf")]


def test_links_and_devices_are_refused_by_name(classroom, download, tmp_path):
    folder = download({"ada/ps4-theory.ipynb": "right", "hard/other.txt": "x"})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / NOTEBOOK).write_bytes((folder / "ada" / NOTEBOOK).read_bytes())
    (outside / "secret.py").write_text("secret = 1")
    (folder / "linked").mkdir()
    (folder / "linked" / NOTEBOOK).symlink_to(outside / NOTEBOOK)
    (folder / "far").symlink_to(outside, target_is_directory=True)
    (folder / "near").mkdir()
    (folder / "near" / NOTEBOOK).symlink_to(folder / "ada" / NOTEBOOK)
    (folder / "ada" / "helpers.py").symlink_to(outside / "secret.py")
    os.link(outside / NOTEBOOK, folder / "hard" / NOTEBOOK)
    os.mkfifo(folder / "ada" / "pipe.py")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()  # noqa: PTH109 - a socket's path must be short
        os.chdir(folder / "ada")
        server.bind("s.py")
        os.chdir(here)
        found, lost, _ = look(classroom, folder)
    assert found["ada"] == ""
    assert taken(classroom, "ada") == set()
    assert "symbolic link" in found["linked"]
    assert "symbolic link" in found["near"]
    assert "hard link" in found["hard"]
    assert "symbolic link" in found["far"]
    assert "symbolic link" in lost["ada/helpers.py"]
    assert {lost[f"ada/{name}"] for name in ("pipe.py", "s.py")} == {"it is neither a file nor a folder"}
    assert not (classroom.folder / "submitted" / "linked").exists()


def test_members_of_archives_that_lead_elsewhere_are_refused_by_name(classroom, tmp_path, texts):
    link, device = zipfile.ZipInfo("linked.py"), zipfile.ZipInfo("device.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    device.external_attr = (stat.S_IFCHR | 0o666) << 16
    members = {
        "../up.py": "",
        "/absolute.py": "",
        "C:\\drive.py": "",
        "..\\back.py": "",
        NOTEBOOK: "right",
        "fine.py": "",
    }
    with zipfile.ZipFile(tmp_path / "ada.zip", "w") as bundle:
        for name, value in members.items():
            bundle.writestr(name, packed(value, texts))
        bundle.writestr(link, "/etc/hostname")
        bundle.writestr(device, "")
    place = tmp_path / "downloads"
    place.mkdir()
    (tmp_path / "ada.zip").rename(place / "ada.zip")
    found, lost, _ = look(classroom, place)
    assert found == {"ada": ""}
    assert taken(classroom, "ada") == {"fine.py"}
    assert len(lost) == 6
    assert sorted(why.partition("'")[0] for why in lost.values()) == [
        *["it is a symbolic link, which could lead anywhere", "it is neither a file nor a folder"],
        *["its path in the archive, "] * 4,
    ]


def test_what_unpacks_to_too_much_is_refused_by_its_size(classroom, tmp_path, texts, monkeypatch):
    """An archive of zeros is small; no more than the limit of one file is ever unpacked at once."""
    zeros = "0" * 10_000_000
    content = {NOTEBOOK: "right", **{f"h{number}.py": zeros for number in range(11)}}
    place = archive(tmp_path, "all.zip", {"ada.zip": content, "ben.zip": {NOTEBOOK: "other"}}, texts)
    found, _, _ = look(classroom, place)
    assert found["ben"] == ""
    assert f"may have {reading.MOST_FILES:,} files with {reading.LARGEST_SUBMISSION:,} bytes" in found["ada"]
    assert "12 files with 110," in found["ada"]
    many = {NOTEBOOK: "right", **{f"h{number}.py": "" for number in range(reading.MOST_FILES)}}
    found, _, _ = look(
        classroom, archive(tmp_path, "many.zip", {"cleo.zip": many, "ben.zip": {NOTEBOOK: "right"}}, texts)
    )
    assert "2,001 files" in found["cleo"]


def test_a_size_that_an_archive_does_not_keep_is_found(tmp_path):
    """The size in the directory is the archive's own claim."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("a.py", "0" * 1000)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data)
    (entry,) = files(tmp_path / "a.zip", tmp_path)
    with pytest.raises(Unusable, match=r"a\.py cannot be read"):
        entry.read()
    small = reading.Entry(("b.py",), 10, tmp_path / "b.py")
    (tmp_path / "b.py").write_text("0" * 1000)
    with pytest.raises(Unusable, match=r"b\.py is larger than 100 bytes"):
        small.read(100)


def test_what_is_no_archive_is_not_unpacked(classroom, tmp_path, texts):
    """A file of zeros by the name of an archive, in an archive."""
    content = {"ada.zip": b"0" * 30_000_000, "ben.ipynb": "right", "cleo.json": b"0" * 30_000_000}
    found, lost, _ = look(classroom, archive(tmp_path, "all.zip", content, texts))
    assert found["ben"] == ""
    assert found["ada"].startswith("no notebook; ada.zip: it unpacks from")
    assert "cleo.json" in lost
    before = set(tmp_path.rglob("*"))
    files(tmp_path / "all.zip", tmp_path_of(tmp_path))
    assert len(set(tmp_path.rglob("*")) - before) == 1


def test_a_damaged_list_of_numbers_is_named(classroom, download):
    (classroom.folder / "students.json").write_text('{"ps4-theory": 5}')
    with pytest.raises(ValueError, match=r"students\.json is damaged .* delete it"):
        gather(classroom, ASSIGNMENT, download({"ada.ipynb": "right"}))
    assert not (classroom.folder / "submitted").exists()


def test_archives_are_opened_so_deep_and_no_deeper(classroom, tmp_path, texts):
    inner = {"ada.zip": {"b.zip": {"c.zip": {NOTEBOOK: "right"}}}, "ben.ipynb": "right"}
    found, lost, _ = look(classroom, archive(tmp_path, "all.zip", inner, texts))
    assert found["ben"] == ""
    assert "no more are opened" in found["ada"]
    assert list(lost) == ["ada.zip/b.zip/c.zip"]


def test_nothing_of_the_set_changes_nothing(classroom, download, tmp_path, texts):
    """A folder of another set, given by mistake."""
    assert look(classroom, download({"ada/ps4-theory.ipynb": "right"}))[0] == {"ada": ""}
    mistake = archive(tmp_path, "ps1.zip", {"ada/ps1-attacks.ipynb": "ps1", "ben/ps1-attacks.ipynb": "ps1"}, texts)
    with pytest.raises(
        ValueError, match=r"can be graded as ps4-theory, so nothing was changed:\n  ada: no cell of ps4"
    ):
        gather(classroom, ASSIGNMENT, mistake)
    assert answer(classroom, "ada") == "right"
    mixed = archive(tmp_path, "mixed.zip", {"ada/ps1-attacks.ipynb": "ps1", "ben/ps4-theory.ipynb": "other"}, texts)
    assert look(classroom, mixed)[0] == {"ada": "no cell of ps4-theory in it, but of ps1-attacks", "ben": ""}
    assert answer(classroom, "ada") == "right", "an earlier submission stays"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_notebooks_that_an_editor_has_saved_are_read(classroom, download, texts, encoding):
    folder = download({"ada_ps4-theory.ipynb.txt": texts["right"].encode(encoding)})
    assert look(classroom, folder)[0] == {"ada": ""}


def test_notebooks_of_colab_and_of_old_formats_are_brought_up_to_date(classroom, download, texts):
    """Colab keeps widgets without their state, its own format is 4.0, and cells have no identifiers."""
    notebook = json.loads(texts["right"])
    notebook["nbformat_minor"] = 0
    notebook["metadata"]["widgets"] = {
        "application/vnd.jupyter.widget-state+json": {"abc": {"model_name": "HBoxModel"}}
    }
    notebook["metadata"]["colab"] = {"provenance": []}
    for cell in notebook["cells"]:
        del cell["id"]
    assert look(classroom, download({"ada.ipynb": json.dumps(notebook)}))[0] == {"ada": ""}
    written = nbformat.read(classroom.notebook("submitted", ASSIGNMENT, "ada"), as_version=4)
    assert "widgets" not in written.metadata
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nbformat.validate(written)


@pytest.mark.parametrize(
    ("name", "student", "file"),
    [
        ("lovelaceada_12345_67890_ps1-attacks-1.ipynb", "lovelaceada", "ps1-attacks.ipynb"),
        ("lovelaceada_LATE_12345_67890_ps1-attacks.ipynb", "lovelaceada", "ps1-attacks.ipynb"),
        ("lovelaceada_12345_text.html", "lovelaceada", "text.html"),
        ("ps1_username_attempt_2026-01-31-12-00-00_ps1-attacks.ipynb", "ps1_username", "ps1-attacks.ipynb"),
        ("Ada Lovelace_123456_assignsubmission_file_", "Ada Lovelace", ""),
        ("123456-654321 - Ada Lovelace- Jan 31, 2026 1159 PM", "Ada Lovelace", ""),
        ("123-456 - N0123456 - Ada Lovelace - 31 January, 2026 23:59 - a - b.ipynb", "Ada Lovelace", "a - b.ipynb"),
    ],
)
def test_names_of_systems_are_read(name, student, file):
    found = layouts.label(name)
    assert (found.student, found.file) == (student, file)


@pytest.mark.parametrize(
    "name", ["ada.ipynb", "ada_ps4-theory.ipynb", "2026_01_31_notes.ipynb", "Ada Lovelace", "ada-1"]
)
def test_names_of_people_are_not_taken_for_those_of_systems(name):
    assert layouts.label(name) is None


def test_usernames_may_hold_underscores():
    assert layouts.usernames(["ps1_jane_doe", "ps1_john_doe"], [], "x") == {
        "ps1_jane_doe": "jane_doe",
        "ps1_john_doe": "john_doe",
    }
    page = "Name: Jane Doe (jane_doe)\nAssignment: Set 1\n"
    assert layouts.usernames(["Set_1_jane_doe"], [page], "x") == {"Set_1_jane_doe": "jane_doe"}
    assert layouts.usernames(["ps1-attacks_jane_doe"], [], "ps1-attacks") == {"ps1-attacks_jane_doe": "jane_doe"}
