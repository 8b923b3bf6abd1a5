"""The book as a PDF, from the pages that were built last. ``_ext/printed.py`` says what differs on paper."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from advfeat.pages.build import jupyter_book
from advfeat.pages.chapter_files import STAGE
from advfeat.pages.execution import Failed
from advfeat.pages.parameters import Refused

PROGRAMS = {
    "xelatex": "texlive-xetex texlive-latex-extra texlive-fonts-recommended",
    "latexmk": "latexmk",
    "rsvg-convert": "librsvg2-bin",
}
"""Each program that makes the PDF, with the packages of Debian and Ubuntu that hold it and what it reads."""

FONTS = {
    "texgyrepagella-regular.otf": "fonts-texgyre",
    "texgyrepagella-math.otf": "fonts-texgyre-math",
    "DejaVuSansMono.ttf": "fonts-dejavu",
}
"""Each font, by its file, with its package."""

WIDEST_SPILL = 12.0
"""Points by which a line may be too long: two letters, which the margin hides."""


def build_pdf() -> Path:
    """Print the pages that ``make book`` has built last; return the path of the PDF.

    Raises:
        Refused: there are no pages.
        Failed: LaTeX reported an error, or the PDF would have a fault that ``faults_in_log`` names.
    """
    if not (STAGE / "_build" / "html" / "index.html").exists():
        raise Refused("no pages to print yet: make book")
    command = [jupyter_book(), "build", str(STAGE), "--all", "--builder", "latex", "-n", "-W", "--keep-going"]
    if subprocess.run(command, check=False).returncode:
        raise Failed("jupyter-book reported errors or warnings, see above")
    folder = STAGE / "_build" / "latex"
    print("LaTeX: a minute or two")
    done = subprocess.run(
        ["latexmk", "-xelatex", "-silent", "-interaction=nonstopmode", "-halt-on-error", "advfeat.tex"],
        cwd=folder,
        # A warning is one line of the log; and Sphinx's own settings of latexmk ask for two variables.
        env={"LATEXOPTS": "", "XINDYOPTS": "", **os.environ, "max_print_line": "1000"},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    log = folder / "advfeat.log"
    lines = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if done.returncode:
        reason = re.search(r"^!.*(?:\n.*){0,8}", lines, re.MULTILINE)
        raise Failed(f"LaTeX stopped, see {log}\n{reason[0] if reason else ''}")
    if found := faults_in_log(lines):
        raise Failed(f"the PDF would have these faults, see {log}\n" + "\n".join(found))
    return folder / "advfeat.pdf"


def check_programs() -> None:
    """Whether everything that makes the PDF is there.

    Raises:
        Refused: names what is missing, and how Debian and Ubuntu install it.
    """
    missing = {name: package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    if shutil.which("kpsewhich"):  # it comes with xelatex, and knows the fonts that xelatex can read
        missing |= {name: package for name, package in FONTS.items() if not _font_is_there(name)}
    elif missing:
        missing |= FONTS
    if missing:
        packages = " ".join(sorted({package for names in missing.values() for package in names.split()}))
        raise Refused(f"the PDF needs {', '.join(missing)}; on Debian and Ubuntu:\n  apt install {packages}")


def _font_is_there(name: str) -> bool:
    return subprocess.run(["kpsewhich", name], capture_output=True, check=False).returncode == 0


def faults_in_log(log: str) -> list[str]:
    """What a reader would stumble over, from LaTeX's log: it stops at none of this.

    A reference that leads nowhere, a letter that its font lacks, a line that runs into the margin.
    """
    told = re.compile(r"[Rr]eference .* undefined|Citation .* undefined|multiply defined|^Missing character")
    found = {line for line in log.splitlines() if told.search(line)}
    for wide in re.finditer(r"^Overfull \\hbox \(([\d.]+)pt too wide\).*$", log, re.MULTILINE):
        if float(wide[1]) > WIDEST_SPILL:
            found.add(wide[0])
    return sorted(found)
