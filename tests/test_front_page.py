"""The front page and the pages around the chapters: what they show is what the records say, and they lead on."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from bs4 import BeautifulSoup
from PIL import Image

from advfeat.experiments.records import load_record
from advfeat.image_files import CIFAR10_CLASSES, cifar10
from advfeat.pages import chapter_files, front_page
from advfeat.pages.addresses import addresses

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
RECORD = BOOK / "results" / front_page.SOURCE_CHAPTER / front_page.SOURCE_PROFILE
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())


def extension(name):
    specification = importlib.util.spec_from_file_location(f"_ext_{name}", ROOT / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_labels_of_the_photographs_are_those_that_the_sets_have():
    assert front_page.CIFAR10_NAMES == CIFAR10_CLASSES
    # As construct.random_target_dataset draws them.
    drawn = torch.randint(10, (50_000,), generator=torch.Generator().manual_seed(0))
    assert tuple(CIFAR10_CLASSES[drawn[row]] for row in front_page.FIRST_ROWS) == front_page.DRAWN
    settings = load_record(front_page.SOURCE_CHAPTER, front_page.SOURCE_PROFILE).first["config"]
    assert (settings["data"], settings["train_images"], settings["source_seed"]) == ("cifar10", 50_000, 0)
    for tile in front_page.front_tiles(BOOK):
        column = next(column for column, seen in front_page.SEEN.items() if seen == tile.seen)
        own, following = CIFAR10_CLASSES[column], CIFAR10_CLASSES[(column + 1) % 10]
        assert tile.label == (following if tile.kind == "D_det" else front_page.DRAWN[column])
        assert tile.label != own, "this photograph shows nothing: its label is right"


def test_the_photographs_are_the_stored_images_and_not_their_originals():
    for tile in front_page.front_tiles(BOOK):
        sheet = np.asarray(Image.open(RECORD / f"{tile.kind}.png").convert("RGB")).astype(int)
        column = next(column for column, seen in front_page.SEEN.items() if seen == tile.seen)
        original, stored = (sheet[row : row + 32, 32 * column : 32 * column + 32] for row in (0, 32))
        assert np.array_equal(np.asarray(tile.picture), stored)
        assert 0 < np.linalg.norm((stored - original) / 255) <= 0.5 + 32 * 3**0.5 / 255  # levels are rounded, twice


@pytest.mark.cifar10
def test_the_sheets_hold_the_first_photograph_of_each_class():
    photographs = cifar10(train=True)
    assert tuple(photographs.of_each_class(1).flatten().tolist()) == front_page.FIRST_ROWS
    sheet = np.asarray(Image.open(RECORD / "D_rand.png").convert("RGB"))
    for column, row in enumerate(front_page.FIRST_ROWS):
        pixels = (photographs.images[row].permute(1, 2, 0) * 255).round().numpy()
        assert np.array_equal(sheet[:32, 32 * column : 32 * column + 32], pixels)


def test_labels_that_a_record_holds_come_first(tmp_path):
    folder = tmp_path / "results" / front_page.SOURCE_CHAPTER / front_page.SOURCE_PROFILE
    folder.mkdir(parents=True)
    labels = [{"label": f"label {column}"} for column in range(10)]
    runs = {"3": {"tables": {}}, "10": {"tables": {}}, "2": {"tables": {"D_rand": labels, "D_det": labels}}}
    (folder / "record.json").write_text(json.dumps({"runs": runs}))
    for kind in front_page.RELABELLED:
        (folder / f"{kind}.png").write_bytes((RECORD / f"{kind}.png").read_bytes())
    assert [tile.label for tile in front_page.front_tiles(tmp_path)] == [
        f"label {column}" for column in front_page.SEEN
    ] * 2


def test_the_card_holds_every_photograph_at_its_place_and_words_between_them():
    shown = front_page.front_tiles(BOOK)
    card = np.asarray(front_page.card(shown, extension("front_page").font()))
    assert card.shape == (630, 1200, 3)
    found = []
    for left in (48, 228, 408, 624, 804, 984):
        patch = card[252 : 252 + 166, left : left + 166]
        found.append([np.array_equal(patch, np.asarray(front_page.enlarged(tile.picture, 166))) for tile in shown])
    assert np.array_equal(found, np.eye(6, dtype=bool))
    for top, bottom in ((20, 80), (160, 200), (430, 500), (550, 600)):
        assert (card[top:bottom] < 128).any(), "a line of words is missing"
    edge = np.concatenate([card[:, :8].ravel(), card[:, -8:].ravel(), card[-8:].ravel()])
    assert (edge == 255).all(), "words run out of the picture"


def test_the_table_has_the_intervals_of_the_record():
    plain, full = (front_page.at_a_glance(BOOK, intervals=of).splitlines() for of in (False, True))
    record = load_record(front_page.SOURCE_CHAPTER, front_page.SOURCE_PROFILE)
    for line, longer, key in zip(plain[2:], full[2:], ("standard", "D_rand", "D_det"), strict=True):
        number = record.summary(f"table1/{key}")
        shown = f"{number.value:.1%} [{number.low:.1%}, {number.high:.1%}]"
        assert longer == line.replace(f"| {number.value:.1%} |", f"| {shown} |")
    named = front_page.at_a_glance(BOOK, names={"D_det": "$x$"}).splitlines()
    assert [line.split(" | ")[0] for line in named[2:]] == ["| D", "| D_rand", "| $x$"]


def test_the_front_page_claims_what_the_records_show():
    """Its first sentence says "more often than chance" of both sets."""
    chance = 1 / len(CIFAR10_CLASSES)
    text = (BOOK / "intro.md").read_text()
    assert "is right about ordinary images more often than chance" in text
    for key in ("D_rand", "D_det"):
        assert load_record(front_page.SOURCE_CHAPTER, front_page.SOURCE_PROFILE).summary(f"table1/{key}").low > chance


# The pages around the chapters.


def test_links_to_hosted_notebooks_are_those_of_the_launch_buttons():
    options = {
        "repository_url": "https://github.com/me/book",
        "repository_branch": "main",
        "launch_buttons": CONFIG["launch_buttons"],
    }
    assert extension("front_page").hosted(options, "book/05-a.ipynb") == {
        "Colab": "https://colab.research.google.com/github/me/book/blob/main/book/05-a.ipynb",
        "Binder": "https://mybinder.org/v2/gh/me/book/main?urlpath=lab/tree/book/05-a.ipynb",
    }


def test_how_built_shows_each_record_once_for_each_circumstance(tmp_path):
    def run(commit, *, dirty=False, engine="torch", chapter=60.0):
        made = {
            "commit": commit * 40, "dirty": dirty, "device": "a processor", "threads": 2, "engine": engine,
            "time": "2026-11-21T09:33:44+00:00", "versions": {"torch": "2.15.0", "python": "3.11.7"},
        }  # fmt: skip
        return {"provenance": made, "seconds": {"chapter": chapter}}

    folder = tmp_path / "05-a" / "cifar10-cpu"
    folder.mkdir(parents=True)
    runs = {"10": run("a"), "2": run("a", chapter=120.0), "3": run("b", dirty=True, engine="winograd")}
    del runs["3"]["seconds"]["chapter"]
    (folder / "record.json").write_text(json.dumps({"runs": runs}))
    first, second = extension("how_built").record_rows(tmp_path, "https://github.com/me/book")
    commit = f"[`aaaaaaa`](https://github.com/me/book/commit/{'a' * 40}), 2026-11-21"
    made = "a processor, 2 threads; PyTorch 2.15.0, Python 3.11.7"
    assert first == ("[](05-a.ipynb), `cifar10-cpu`", "2, 10", commit, made, "2 + 1")
    assert second[1] == "3"
    assert "and changes" in second[2]
    assert second[3] == "a processor, 2 threads, winograd; PyTorch 2.15.0, Python 3.11.7"
    assert second[4] == "–"


def test_how_built_says_of_every_chapter_what_its_last_cell_says():
    rows = extension("how_built").chapter_rows(BOOK)
    assert len(rows) == len(chapter_files.chapters())
    for row in rows:
        assert "–" not in row, "the chapter's last cell does not show it"
        assert row[3].endswith("s for the cells above")


def test_what_a_page_says_of_itself(tmp_path):
    description = extension("previews").description
    page, chapter = tmp_path / "page.md", tmp_path / "05-a.ipynb"
    assert description(page, {"og:description": "A page."}) == "A page."
    assert description(page, {}) == ""
    cells = [{"metadata": {"shows": "a *thing* of `code` and $x$"}}]
    chapter.write_text(json.dumps({"cells": cells}))
    assert description(chapter, {}) == "Chapter 5: a thing of code and x."


def test_old_places_lead_on_and_missing_ones_have_a_page(tmp_path):
    moved = {"b/old.html": "a.html", "a.html#gone": "b/new.html", "a.html#part": "b/new.html#there"}
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / '_ext')!r})\nextensions = ['myst_parser', 'moved_pages']\n"
        f"root_doc = 'a'\nhtml_title = 'Cats & dogs'\nhtml_baseurl = 'https://me.example/book/'\n"
        f"moved_pages = {moved!r}\n"
    )
    (tmp_path / "a.md").write_text("# Front\n\n```{toctree}\nb/new\n```\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "new.md").write_text("# New & old\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "-E", str(tmp_path), str(tmp_path / "html")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    html = tmp_path / "html"
    assert 'content="0; url=../a.html"' in (html / "b" / "old.html").read_text()
    places = re.search(r"\}\)\((\{.*\})\);", (html / "a.html").read_text())[1]
    assert json.loads(places) == {"#gone": "b/new.html", "#part": "b/new.html#there"}
    assert "location.hash" not in (html / "b" / "new.html").read_text()
    missing = (html / "404.html").read_text()
    # It is shown at any depth: nothing in it may depend on where that is.
    links = re.findall(r'(?:href|src|action)="([^"]*)"', missing)
    assert links == [
        "data:,",  # an icon that asks no server
        "https://me.example/book/",
        "https://me.example/book/b/new.html",
        "https://me.example/book/search.html",
    ]
    assert "New &amp; old" in missing
    assert "<title>No such page: Cats &amp; dogs</title>" in missing
    moved["b/new.html"] = "a.html"
    (tmp_path / "conf.py").write_text((tmp_path / "conf.py").read_text() + f"moved_pages = {moved!r}\n")
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "b/new.html is a page of the book" in refused.stderr


def test_the_feature_table_says_of_this_book_what_is_so():
    text = (BOOK / "other-books.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert all(len(row) == 8 for row in rows)
    words = {"yes", "no", "partly", "–"}
    for name, *others, ours in rows[2:]:
        assert set(others) <= words, name
        assert ours.split(":")[0].split(",")[0] in words - {"–"}, name
        assert ours.startswith("no") or ":" in ours, f"{name}: say where it can be seen"
    said = {row[0]: row[7] for row in rows}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert said["a PDF"].startswith("yes") == ("pdf" in targets)


@pytest.mark.pages
def test_built_pages_open_with_the_picture_and_describe_themselves():
    html = chapter_files.STAGE / "_build" / "html"
    front = (html / "book" / "intro.html").read_text()
    assert front.count('class="front-tile') == 6
    assert "location.hash" in front
    assert "<section id=" not in front.partition("front-picture")[0].partition("<h1")[2], "below a heading"
    with Image.open(html / "_static" / "card.png") as card:
        assert card.size == (1200, 630)
    assert (html / "404.html").exists()
    pages = addresses().pages
    for path in (html / "book").glob("*.html"):
        head = BeautifulSoup(path.read_text(), "html.parser").select("meta[content]")
        tags = {tag.get("property") or tag.get("name"): tag["content"] for tag in head}
        assert tags["og:url"] == f"{pages}book/{path.name}"
        assert tags["og:image"] == f"{pages}_static/card.png"
        said = tags["og:description"]
        assert said == tags["description"]
        assert 20 <= len(said) <= 200, path
        assert not re.search(r"np\.|\{|\\|\$|\*|_images|<|Figure size", said), path
        if path.name[0].isdigit():
            text = path.read_text()
            for link in ("colab.research.google.com/github/", "mybinder.org/v2/gh/", "/edit/", "/issues/new"):
                assert link in text, (path, link)
            assert f"_sources/book/{path.stem}.ipynb" in text, "no notebook to download"
            assert "advfeat-book" not in text, "no page shows the first cell for hosted notebooks"
