"""Serve MathJax from the pages themselves, so that formulas show without a network.

The files come from an installed package; only the script and its fonts are copied, which the pages load.
"""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

SCRIPT = "tex-mml-chtml.js"
FONTS = "output/chtml/fonts/woff-v2"


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("config-inited", lambda _app, config: setattr(config, "mathjax_path", f"mathjax/{SCRIPT}"))
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def copy_mathjax(app: Any, error: Exception | None) -> None:
    """Put the script and its fonts beside the pages."""
    if error is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "mathjax"
    with as_file(files("mathjax") / "static" / "mathjax" / "es5") as source:
        shutil.copytree(source / FONTS, target / FONTS, dirs_exist_ok=True)
        shutil.copy2(source / SCRIPT, target / SCRIPT)
