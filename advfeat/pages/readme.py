"""The generated parts of the README: Table 1 at a glance, and the verdicts on the claims.

``python -m advfeat.pages.readme`` writes them into the README of the checkout.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from pathlib import Path

from advfeat.experiments.records import BOOK
from advfeat.files import write_whole
from advfeat.pages.front_page import at_a_glance
from advfeat.pages.verdicts import RULE, claim_table, rows_of_book

MADE = "<!-- {}: made by python -m advfeat.pages.readme -->"
END = "<!-- end of {} -->"
"""The marks around each generated part of the README; the name of the part takes the place of the braces."""


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
