#!/usr/bin/env bash
# Subject: nbgrader and an answer cell that a student copied.
#
# Background: A copy or a split of a cell in JupyterLab keeps the cell's metadata, so both cells carry one grade id.
# The notebook is valid for nbformat, and each cell carries the current version of nbgrader's metadata.
#
# Expected: `nbgrader autograde` grades the submission, or refuses it and says that a cell exists twice.
# The advice in the refusal should be one that helps.
#
# Seen: The submission is refused, and the error says that its notebooks use an old version of the metadata format.
# Only a warning before it speaks of the cell. The error advises `nbgrader update .`.
# That command fails too, and its own error is the first that gives the cause: a duplicate grade id.
# The same answer without the copied cell is graded.
#
# Exit status: 0 if this is still so, 1 if the behaviour changed.
set -euo pipefail

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 10)' || { echo "needs Python 3.10 or later" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --quiet --no-cache-dir \
  nbgrader==0.9.6 nbformat==5.11.1 nbconvert==7.17.2 ipykernel==7.4.0 "sqlalchemy==2.1.9" alembic==1.20.1

# nbgrader calls alembic by its name, so the environment has to be on PATH. Its settings stay in the temporary folder.
export PATH="$work/venv/bin:$PATH" HOME="$work/home" JUPYTER_NO_CONFIG=1
export JUPYTER_CONFIG_DIR="$HOME/config" JUPYTER_DATA_DIR="$HOME/data" JUPYTER_RUNTIME_DIR="$HOME/runtime"
export IPYTHONDIR="$HOME/ipython" PYTHONWARNINGS=ignore
mkdir -p "$HOME" "$work/course/source/week1"
cd "$work/course"

cat > source.py <<'PY'
import nbformat
from nbformat import v4


def cell(text, grade_id, **roles):
    settings = {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": 3}
    return v4.new_code_cell(text, metadata={"nbgrader": {**settings, "grade_id": grade_id, **roles}})


answer = "def area(side):\n    ### BEGIN SOLUTION\n    return side * side\n    ### END SOLUTION"
notebook = v4.new_notebook(
    cells=[
        cell(answer, "area", solution=True),
        cell("assert area(3) == 9", "area-test", grade=True, locked=True, points=1),
    ],
    metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
)
nbformat.validate(notebook)
nbformat.write(notebook, "source/week1/area.ipynb")
PY
cat > submit.py <<'PY'
import copy
import os

import nbformat
from nbformat import v4
from nbgrader.nbgraderformat import SCHEMA_VERSION

for student in ("plain", "copied"):
    notebook = nbformat.read("release/week1/area.ipynb", as_version=4)
    first = notebook.cells[0]
    first.source = "def area(side):\n    return side * side"
    if student == "copied":  # a second cell with the first one's metadata and an id of its own, as a paste makes it
        notebook.cells.insert(1, v4.new_code_cell("area(4)", metadata=copy.deepcopy(first.metadata)))
    nbformat.validate(notebook)
    versions = {one.metadata["nbgrader"]["schema_version"] for one in notebook.cells}
    print(f"{student}: valid notebook, metadata version {versions}, current version {SCHEMA_VERSION}")
    assert versions == {SCHEMA_VERSION}
    os.makedirs(f"submitted/{student}/week1")
    nbformat.write(notebook, f"submitted/{student}/week1/area.ipynb")
PY

nbgrader --version | tail -n 1
python source.py
nbgrader generate_assignment week1 > generate.log 2>&1 || { cat generate.log; exit 1; }
python submit.py

status() { local rc=0; "$@" || rc=$?; echo "$rc"; }
plain=$(status nbgrader autograde week1 --student plain 2> plain.log)
copied=$(status nbgrader autograde week1 --student copied 2> copied.log)
update=$(status nbgrader update . 2> update.log)
echo "autograde of the plain answer: status $plain"
echo "autograde with the copied cell: status $copied, the log's end:"
grep -A 5 -E "exists multiple times|ERROR" copied.log | sed 's/^/   /'
echo "the update that it advises: status $update, its errors:"
grep -E "^ *[a-z.]*ValidationError|failed to validate" update.log | sed "s|$work||; s/^ */   /"

if [ "$plain" = 0 ] && [ "$copied" != 0 ] && [ "$update" != 0 ] \
  && grep -q "old version" copied.log && grep -q "nbgrader update" copied.log \
  && ! grep -qi "duplicate" copied.log && grep -q "Duplicate grade id: area" update.log; then
  echo "as described"
else
  echo "the behaviour changed"
  exit 1
fi
