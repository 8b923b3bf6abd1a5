"""The executed copy of a chapter: its name, whether it is whole, and one form for equal runs.

papermill's notes about the cells are ignored: after a dead kernel, a timeout or ``sys.exit(0)`` papermill reports cells
as completed that never ran. A run is whole if every code cell was executed and none of them shows an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from advfeat.pages.parameters import Refused, code_cells


class Incomplete(NamedTuple):
    """The first code cell of a notebook that was not executed, or shows an error."""

    where: str
    source: str
    why: str


def incomplete(notebook: Path) -> Incomplete | None:
    """The first cell without an execution count or with an error; None if the run is whole.

    Raises:
        Refused: the file is not a notebook.
    """
    code_cells(notebook)
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        source = "".join(cell["source"])
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        if not source.strip() or (cell["execution_count"] is not None and not errors):
            continue
        why = f"{errors[0]['ename']}: {errors[0]['evalue']}" if errors else "The cell was not executed."
        return Incomplete(f"in cell {number} of {len(cells)}", source, why)
    return None


def normalise(copy: Path, inputs: str = "") -> None:
    """Remove all differences between two equal runs from an executed notebook: times, paths, versions, random ids.

    ``inputs``, the digest of the run's dependencies, is noted in the metadata.
    """
    notebook = json.loads(copy.read_text(encoding="utf-8"))
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"},
        **({"advfeat": {"inputs": inputs}} if inputs else {}),
    }
    for cell in notebook["cells"]:
        metadata = cell["metadata"]
        for key in ("papermill", "execution"):
            metadata.pop(key, None)
        if "injected-parameters" in metadata.get("tags", []):
            cell["id"] = "injected-parameters"
            metadata["tags"].append("hide-input")  # papermill does not copy the tags of the parameters cell
        if not metadata.get("tags", True):
            del metadata["tags"]
    copy.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def finished_with(copy: Path) -> str:
    """The ``inputs`` noted in a whole copy; "" if there is no whole copy."""
    try:
        return "" if incomplete(copy) else json.loads(copy.read_bytes())["metadata"]["advfeat"]["inputs"]
    except (OSError, Refused, KeyError, TypeError):
        return ""


def file_name(chapter: Path, given: Mapping[str, object], defaults: Mapping[str, object]) -> str:
    """Name of the executed copy: the chapter's own, with every parameter but the profile that is not at its default.

    An example is ``05-non-robust-features.seed=1.ipynb``; a long value is replaced by the first digits of its hash.
    """
    parts = [chapter.stem]
    for name, value in sorted(given.items()):
        if name == "profile" or (value == defaults.get(name) and type(value) is type(defaults.get(name))):
            continue
        text = value if isinstance(value, str) and value != "null" else json.dumps(value, sort_keys=True)
        short = len(text) <= 20 and text == text.lower() and text.replace("_", "").replace(".", "").isalnum()
        parts.append(f"{name}={text if short else hashlib.sha256(text.encode()).hexdigest()[:8]}")
    return ".".join(parts) + ".ipynb"
