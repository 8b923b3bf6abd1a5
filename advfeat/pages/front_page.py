"""The front page's picture and table: photographs beside their labels in D_rand and D_det, and Table 1 at a glance.

It needs neither PyTorch nor the data: the photographs are those of chapter 5's recorded sheets.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from advfeat.pages.verdicts import published_value

SOURCE_CHAPTER, SOURCE_PROFILE = "05-non-robust-features", "cifar10-cpu"
PHOTOGRAPH_SIDE = 32  # pixels of a photograph
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The classes of CIFAR-10, as in ``image_files``, which needs PyTorch; a column of a sheet shows one of each."""
FIRST_ROWS = (29, 4, 6, 9, 3, 27, 0, 7, 8, 1)
"""Row of each class's first training image: the photographs of the sheets."""
DRAWN = ("airplane", "cat", "horse", "cat", "airplane", "truck", "deer", "cat", "horse", "truck")
"""Labels that ``construct.random_target_dataset`` draws for these rows with seed 0, for records without labels."""
SEEN = {1: "car", 7: "horse", 8: "ship"}
"""Column of a sheet → what a person sees there: photographs that are recognised at a glance at 32×32 pixels."""
RELABELLED = {"D_rand": "labels drawn at random", "D_det": "every label moved to the next class"}
"""The two relabelled sets of the paper, and how their labels come about."""


@dataclass(frozen=True)
class Tile:
    """One photograph of a relabelled training set: its set, what it shows, its label there, and its pixels."""

    kind: str
    seen: str
    label: str
    picture: Image.Image


def front_tiles(book: Path) -> list[Tile]:
    """The photographs of the front page, those of D_rand before those of D_det.

    Args:
        book: folder of the book, with the record of chapter 5.

    Raises:
        FileNotFoundError: there is no such record.
    """
    folder = book / "results" / SOURCE_CHAPTER / SOURCE_PROFILE
    runs = json.loads((folder / "record.json").read_bytes())["runs"]
    first = runs[min(runs, key=int)]
    found = []
    for kind in RELABELLED:
        known = [row["label"] for row in first.get("tables", {}).get(kind, [])]
        labels = known or {"D_rand": DRAWN, "D_det": (*CIFAR10_NAMES[1:], *CIFAR10_NAMES[:1])}[kind]
        with Image.open(folder / f"{kind}.png") as sheet:
            for column, seen in SEEN.items():
                box = (
                    column * PHOTOGRAPH_SIDE,
                    PHOTOGRAPH_SIDE,
                    (column + 1) * PHOTOGRAPH_SIDE,
                    2 * PHOTOGRAPH_SIDE,
                )  # the lower row: what the set holds
                found.append(Tile(kind, seen, labels[column], sheet.convert("RGB").crop(box)))
    return found


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    """A picture at ``side`` pixels, each old pixel a square."""
    return picture.resize((side, side), Image.Resampling.NEAREST)


def card(shown: Sequence[Tile], font: Path) -> Image.Image:
    """All tiles with their words in one picture of 1200×630 pixels: the preview of a link, and the printed front page.

    Args:
        shown: of ``front_tiles``.
        font: file of a TrueType font.
    """
    paper = Image.new("RGB", (1200, 630), "white")
    draw, ink, red = ImageDraw.Draw(paper), "#1F2937", "#B91C1C"
    title, text, small = (ImageFont.truetype(str(font), size) for size in (40, 26, 22))
    draw.text((600, 28), "Adversarial Examples Are Not Bugs, They Are Features", ink, title, anchor="ma")
    draw.text((600, 88), "Labels that look wrong to everyone, and yet teach a network", ink, text, anchor="ma")
    side, gap, edge = 166, 14, 48
    for place, tile in enumerate(shown):
        group, inside = divmod(place, len(SEEN))
        left = edge + group * (len(SEEN) * (side + gap) + 36) + inside * (side + gap)
        if not inside:
            middle = left + (len(SEEN) * (side + gap) - gap) / 2
            draw.text((middle, 168), f"{tile.kind}: {RELABELLED[tile.kind]}", ink, small, anchor="ma")
        paper.paste(enlarged(tile.picture, side), (left, 252))
        draw.text((left + side / 2, 216), tile.seen, ink, small, anchor="ma")
        draw.text((left + side / 2, 436), "label:", ink, small, anchor="ma")
        draw.text((left + side / 2, 466), f"“{tile.label}”", red, text, anchor="ma")
    draw.text((600, 560), "An executable edition of Ilyas et al. (2019)", ink, text, anchor="ma")
    return paper


def at_a_glance(book: Path, *, names: Mapping[str, str] = MappingProxyType({}), intervals: bool = False) -> str:
    """Table 1 as a Markdown table: the committed chapter 5, its record, and the paper.

    Args:
        book: folder of the book.
        names: ``D``, ``D_rand``, ``D_det`` → how the table calls the set, by default so.
        intervals: whether a recorded number is followed by its 95% interval.

    Raises:
        FileNotFoundError: the chapter or its record is missing.
    """
    live = glued(json.loads((book / f"{SOURCE_CHAPTER}.ipynb").read_bytes()))
    paper, index = (json.loads((book / name).read_bytes()) for name in ("paper.json", "results/index.json"))
    recorded = {row["id"]: row for row in index if row["profile"] == SOURCE_PROFILE}
    ours = ("planted world (live, chapter 5)", "CIFAR-10, small networks on a CPU (recorded)")
    lines: list[Sequence[str]] = [("trained on", *ours, "paper, CIFAR-10, ResNet-50"), ("---",) * 4]
    for name, key in (("D", "standard"), ("D_rand", "D_rand"), ("D_det", "D_det")):
        published = published_value(paper, f"table1/{key}")[0]
        row = recorded[f"table1/{key}"]
        number = f"{row['value']:.1%}" + (f" [{row['low']:.1%}, {row['high']:.1%}]" if intervals else "")
        lines.append((names.get(name, name), live[f"ch05_table1/{key}"], number, published))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def glued(notebook: Mapping[str, Any]) -> dict[str, str]:
    """Name → text of the numbers that a notebook's cells make available to the prose, see ``notebook.glue``."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    kind = "application/papermill.record/text/plain"
    return {
        output["metadata"]["scrapbook"]["name"]: str(ast.literal_eval("".join(output["data"][kind])))
        for output in outputs
        if "scrapbook" in output.get("metadata", {})
    }
