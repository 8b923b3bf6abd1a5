#!/usr/bin/env bash
# Subject: the order of the metadata entries in a safetensors file.
#
# Expected: The tensors are written in a fixed order, and a Python dict keeps the order of its entries.
# So the same tensors with the same metadata should give the same bytes each time, and a checksum of the file should
# tell whether its content is the same.
#
# Seen: With two metadata entries, repeated saves give two different files, even within one process.
# The files have equal length and equal content when read back. Only the order of the entries in the header differs.
# With one entry, or none, the bytes are the same each time.
# A checksum of the file is therefore no identity of its content. A single entry that holds JSON avoids this.
#
# Exit status: 0 if this is still so, 1 if the behaviour changed.
set -euo pipefail

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 10)' || { echo "needs Python 3.10 or later" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --quiet --no-cache-dir safetensors==0.8.0 numpy==2.4.6

cat > "$work/look.py" <<'PY'
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load, save_file

ENTRIES = {"dataset": "toy", "seed": "0"}


def write(path, count):
    tensors = {"weight": np.arange(6, dtype=np.float32), "bias": np.zeros(2, dtype=np.float32)}
    save_file(tensors, path, metadata=dict(list(ENTRIES.items())[:count]))


if len(sys.argv) == 3:  # a process of its own, which writes one file
    write(sys.argv[1], int(sys.argv[2]))
    sys.exit()

folder = Path(__file__).parent
print("safetensors", safetensors.__version__)
kinds = {}
for count in (0, 1, 2):
    files = set()
    for number in range(40):
        path = folder / f"{count}-{number}.safetensors"
        if number < 4:
            subprocess.run([sys.executable, __file__, path, str(count)], check=True)
        else:
            write(path, count)
        files.add(path.read_bytes())
    kinds[count] = files
    print(f"{count} metadata entries, 40 saves, 4 of them in processes of their own: {len(files)} different file(s)")
    for data in sorted(files):
        header = data[8 : 8 + int.from_bytes(data[:8], "little")].decode().rstrip()
        print("   sha256", hashlib.sha256(data).hexdigest()[:12], header[:60])

pair = [load(data) for data in kinds[2]]
same = all(np.array_equal(pair[0][name], other[name]) for other in pair for name in pair[0])
print("tensors read back from the different files are equal:", same)
as_described = [len(kinds[count]) for count in (0, 1, 2)] == [1, 1, 2] and same
print("as described" if as_described else "the behaviour changed")
sys.exit(not as_described)
PY
"$work/venv/bin/python" "$work/look.py"
