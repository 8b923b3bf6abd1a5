#!/usr/bin/env bash
# Subject: torchvision's ImageFolder and gray images of 16 bits.
#
# Expected: A gray PNG of 16 bits has levels from 0 to 65535. ImageFolder gives images of 8 bits a channel.
# So its default loader should scale the levels, keep their order from dark to bright, or say that it cannot.
#
# Seen: The levels are cut at 255, not scaled, and no warning is given.
# Every level of 256 and more, that is 99.6 % of the range, becomes white.
# Levels below 256, which are nearly black in the file, spread over the whole range from black to white.
# Pillow reads the file correctly. `v2.ToImage` and `v2.ToDtype(scale=True)` on what Pillow opened keep the levels.
# It is the loader's conversion to RGB that cuts.
#
# Exit status: 0 if this is still so, 1 if the behaviour changed.
set -euo pipefail

python=${PYTHON:-python3}
"$python" -c 'import sys; assert sys.version_info >= (3, 10)' || { echo "needs Python 3.10 or later" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --quiet --no-cache-dir \
  torch==2.15.0 torchvision==0.29.2 pillow==13.0.0 numpy==2.4.6

cat > "$work/look.py" <<'PY'
import sys
import warnings
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

root = Path(__file__).parent / "images"
(root / "ramp").mkdir(parents=True)
levels = np.array([[0, 100, 255, 256], [4096, 16384, 32768, 65535]], dtype=np.uint16)
Image.fromarray(levels).save(root / "ramp" / "ramp.png")

print("torchvision", torchvision.__version__, "Pillow", PIL.__version__)
opened = Image.open(root / "ramp" / "ramp.png")
print("written:            ", levels.ravel().tolist())
print("opened by Pillow:   ", np.asarray(opened).ravel().tolist(), "mode", opened.mode)
scaled = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])(opened)
print("ToImage and ToDtype:", [round(value, 4) for value in scaled.ravel().tolist()])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    image, _ = ImageFolder(root)[0]
loaded = np.asarray(image)
print("from ImageFolder:   ", loaded[..., 0].ravel().tolist(), "mode", image.mode)
print("warnings:           ", [str(one.message) for one in caught])

as_described = (
    np.array_equal(np.asarray(opened), levels)
    and np.allclose(scaled.numpy().ravel() * 65535, levels.ravel(), atol=0.01)
    and all(np.array_equal(loaded[..., channel], np.minimum(levels, 255)) for channel in range(3))
    and not caught
)
print("as described" if as_described else "the behaviour changed")
sys.exit(not as_described)
PY
"$work/venv/bin/python" "$work/look.py"
