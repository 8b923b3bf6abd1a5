#!/usr/bin/env bash
# Subject: parameters that papermill finds in a notebook.
#
# Expected: `inspect_notebook` lists every assignment of the cell tagged "parameters".
# `rate: float | None = None` means the same as `rate: Optional[float] = None`, so both should be listed.
#
# Seen: A parameter is left out if its annotation has a vertical bar. No warning is given.
# The same parameter is listed with `Optional[float]`, and without an annotation.
# A run that gives it a value calls it unknown in the log, and yet writes the value into the notebook.
#
# Exit status: 0 if this is still so, 1 if the behaviour changed.
set -euo pipefail

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 10)' || { echo "needs Python 3.10 or later" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --quiet --no-cache-dir papermill==2.7.0 nbformat==5.11.1

cat > "$work/look.py" <<'PY'
import logging
import os
import sys
import tempfile
import warnings

import nbformat
import papermill
from nbformat import v4

folder = tempfile.mkdtemp(dir=os.path.dirname(__file__))
source, target = os.path.join(folder, "in.ipynb"), os.path.join(folder, "out.ipynb")
cell = v4.new_code_cell(
    "from typing import Optional\n"
    "plain = None\n"
    "optional: Optional[float] = None\n"
    "union: float | None = None\n"
    "items: list[int] = []\n"
    "mixed_items: list[int | None] = []\n",
    metadata={"tags": ["parameters"]},
)
notebook = v4.new_notebook(
    cells=[cell],
    metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
)
nbformat.validate(notebook)
nbformat.write(notebook, source)
exec(cell.source)  # the cell is valid Python

print("papermill", papermill.__version__)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    listed = papermill.inspect_notebook(source)
for name, entry in listed.items():
    print("   listed:", name, "with the type", entry["inferred_type_name"])
wanted = ["plain", "optional", "union", "items", "mixed_items"]
missing = [name for name in wanted if name not in listed]
spoken = [str(one.message) for one in caught if any(name in str(one.message) for name in missing)]
print("left out:", missing, "- warnings about them:", spoken)

messages = []
handler = logging.Handler()
handler.emit = lambda record: messages.append(record.getMessage())
logging.getLogger("papermill").addHandler(handler)
papermill.execute_notebook(
    source, target, parameters={"optional": 0.5, "union": 0.5}, prepare_only=True, progress_bar=False
)
unknown = [line for line in messages if "unknown" in line]
cells = nbformat.read(target, as_version=4).cells
injected = [one.source for one in cells if "injected-parameters" in one.metadata.get("tags", [])]
print("log of a run with both given:", unknown)
print("cell written by that run:", injected)

as_described = (
    missing == ["union", "mixed_items"]
    and not spoken
    and len(unknown) == 1
    and "union" in unknown[0]
    and "union = 0.5" in injected[0]
)
print("as described" if as_described else "the behaviour changed")
sys.exit(not as_described)
PY
"$work/venv/bin/python" "$work/look.py"
