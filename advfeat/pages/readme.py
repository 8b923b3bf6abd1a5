"""The generated parts of the README: Table 1 at a glance, and the verdicts on the claims.

``python -m advfeat.pages.readme`` writes them into the README of the checkout.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from advfeat.experiments.records import BOOK
from advfeat.files import write_whole
from advfeat.pages.verdicts import RULE, claim_table, published_value, rows_of_book

MADE = "<!-- {}: made by python -m advfeat.pages.readme -->"
END = "<!-- end of {} -->"
"""The marks around each generated part of the README; the name of the part takes the place of the braces."""


def at_a_glance(book: Path) -> str:
    """Table 1 as the README shows it: the committed chapter 5, its record, and the paper.

    Raises:
        FileNotFoundError: the chapter or its record is missing.
    """
    chapter = json.loads((book / "05-non-robust-features.ipynb").read_bytes())
    outputs = [output for cell in chapter["cells"] for output in cell.get("outputs", [])]
    kind = "application/papermill.record/text/plain"
    live = {
        output["metadata"]["scrapbook"]["name"]: "".join(output["data"][kind]).strip("'")
        for output in outputs
        if "scrapbook" in output.get("metadata", {})
    }
    paper, index = (json.loads((book / name).read_bytes()) for name in ("paper.json", "results/index.json"))
    recorded = {row["id"]: row["value"] for row in index if row["profile"] == "cifar10-cpu"}
    ours = ("planted world (live, chapter 5)", "CIFAR-10, small networks on a CPU (recorded)")
    lines: list[Sequence[str]] = [("trained on", *ours, "paper, CIFAR-10, ResNet-50"), ("---",) * 4]
    for name, key in (("D", "standard"), ("D_rand", "D_rand"), ("D_det", "D_det")):
        published = published_value(paper, f"table1/{key}")[0]
        lines.append((name, live[f"ch05_table1/{key}"], f"{recorded[f'table1/{key}']:.1%}", published))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_parts(readme: str, parts: Mapping[str, str]) -> str:
    """A README with each generated part, name → text, between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    for name, text in parts.items():
        begin, end = MADE.format(name), END.format(name)
        before, found, rest = readme.partition(begin)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise ValueError(f"the README has no {end if found else begin!r}")
        readme = f"{before}{begin}\n{text}\n{end}{after}"
    return readme


def parts_of(book: Path) -> dict[str, str]:
    """Name → text of the generated parts of the README, from the folder of the book."""
    front = claim_table([row for row in rows_of_book(book, book / "results") if row.front], chapters=True)
    return {
        "results at a glance": at_a_glance(book),
        "what came out": f"{front}\n\n{textwrap.fill(RULE, 119)}",
    }


def main() -> None:
    """Bring the README of the checkout up to date."""
    argparse.ArgumentParser(prog="python -m advfeat.pages.readme", description=main.__doc__).parse_args()
    readme = BOOK.parent / "README.md"
    text = with_parts(readme.read_text(encoding="utf-8"), parts_of(BOOK))
    write_whole(readme, text)


if __name__ == "__main__":
    main()
