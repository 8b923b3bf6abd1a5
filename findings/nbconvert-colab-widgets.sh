#!/usr/bin/env bash
# Subject: nbconvert and the widget metadata that Google Colab writes.
#
# Expected: The metadata of widgets only serves to draw widgets.
# A notebook that shows none in its outputs should convert to HTML whatever that metadata says.
# At most nbconvert should warn and leave the widgets out.
#
# Background: The widgets' own schema puts the models under a key "state" and beside it the version of the format.
# Notebooks saved by Colab have been seen in public with the models directly under the mimetype, without that key.
# The notebook format leaves this metadata open: nbformat.validate accepts both forms.
# So the fault, if any, is in the widget metadata, not in the notebook's cells or outputs.
#
# Seen: HTMLExporter ends with KeyError: 'state' as soon as one cell has a rich output, be it plain text.
# The message names neither the widgets nor the metadata.
# With a printed output only, and with MarkdownExporter, the same metadata does no harm.
# With the models under "state" all of them convert.
#
# Exit status: 0 if this is still so, 1 if the behaviour changed.
set -euo pipefail

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 10)' || { echo "needs Python 3.10 or later" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --quiet --no-cache-dir nbconvert==7.17.2 nbformat==5.11.1

cat > "$work/look.py" <<'PY'
import sys
import warnings

import nbconvert
import nbformat
from nbformat import v4

MIMETYPE = "application/vnd.jupyter.widget-state+json"
MODELS = {
    "5b1c": {
        "model_module": "@jupyter-widgets/base",
        "model_module_version": "1.2.0",
        "model_name": "LayoutModel",
        "state": {},
    }
}
SHAPES = {
    "as Colab": {MIMETYPE: MODELS},
    "as the widgets' schema": {MIMETYPE: {"state": MODELS, "version_major": 2, "version_minor": 0}},
}
OUTPUTS = {
    "printed": lambda: v4.new_output("stream", text="3\n"),
    "rich": lambda: v4.new_output("execute_result", data={"text/plain": "3"}, execution_count=1),
}
warnings.filterwarnings("ignore")  # a note about the syntax highlighter, which has no part in this

print("nbconvert", nbconvert.__version__)
seen = {}
for shape, widgets in SHAPES.items():
    for kind, output in OUTPUTS.items():
        cell = v4.new_code_cell("1 + 2", outputs=[output()], execution_count=1)
        notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# A sum"), cell], metadata={"widgets": widgets})
        nbformat.validate(notebook)
        for exporter in (nbconvert.HTMLExporter, nbconvert.MarkdownExporter):
            try:
                body, _ = exporter().from_notebook_node(notebook)
                result = "converted" if "A sum" in body else "text is missing"
            except Exception as error:
                result = repr(error)
            seen[shape, kind, exporter.__name__] = result
            print(f"   widgets {shape}, {kind} output, {exporter.__name__}: {result}")

failed = ("as Colab", "rich", "HTMLExporter")
as_described = seen.pop(failed) == "KeyError('state')" and set(seen.values()) == {"converted"}
print("as described" if as_described else "the behaviour changed")
sys.exit(not as_described)
PY
"$work/venv/bin/python" "$work/look.py"
