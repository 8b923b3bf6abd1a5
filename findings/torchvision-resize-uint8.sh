#!/usr/bin/env bash
# Subject: torchvision's resize of images of 8 bits against the same images in float32, on the CPU.
#
# Expected: The result for uint8 is the result for float32, rounded and kept within 0 to 255.
# The two then differ by half a level at most.
#
# Seen: With bilinear interpolation they differ by up to about one level.
# With bicubic interpolation they differ by several levels and more, at sharp edges too.
# The resize runs in two passes, along the rows and along the columns.
# For uint8 each pass ends with whole levels within 0 to 255. For float32 nothing is rounded or cut between the passes.
# Two resizes in float32, rounded and cut after each, give nearly all values of the uint8 result.
# A resize in one direction alone stays within half a level, but for a little.
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

import torch
import torchvision
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

print("torch", torch.__version__, "torchvision", torchvision.__version__)
generator = torch.Generator().manual_seed(0)
noise = torch.randint(0, 256, (8, 3, 32, 32), generator=generator, dtype=torch.uint8)
square = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
square[..., 9:22, 9:22] = 255


def resized(image, size, mode):
    return F.resize(image, list(size), interpolation=mode, antialias=True)


def exact(images, size, mode, between=None):
    """The resize in float32; with a size in between, in two passes with whole levels after the first."""
    levels = images.float()
    if between is not None:
        levels = (resized(levels, between, mode) + 0.5).floor().clamp(0, 255)
    return resized(levels, size, mode).clamp(0, 255)


def apart(images, size, mode):
    """Largest difference between the two types, in levels."""
    return (resized(images, size, mode).float() - exact(images, size, mode)).abs().max().item()


def agreement(images, size, mode, between=None):
    """Share of the values for which the float32 result, rounded, is the uint8 result."""
    rounded = (exact(images, size, mode, between) + 0.5).floor()
    return (resized(images, size, mode).float() == rounded).float().mean().item()


as_described = True
for mode in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
    for name, images in (("noise", noise), ("white square", square)):
        for new in (16, 20, 50):
            size = (new, new)
            both = apart(images, size, mode)
            one = max(apart(images, (32, new), mode), apart(images, (new, 32), mode))
            plain = agreement(images, size, mode)
            passes = agreement(images, size, mode, between=(32, new))
            print(f"   {mode.value}, {name}, 32 to {new}: apart by {both:.2f} levels, in one direction by {one:.2f}")
            print(f"      equals float32 rounded at the end {plain:.1%}, rounded after each pass {passes:.1%}")
            as_described &= one <= 0.52  # half a level, and the inexact weights of integer arithmetic
            if name == "noise":
                as_described &= both > 0.75 and plain < 0.9 and passes > 0.95
            if mode is InterpolationMode.BICUBIC and new == 50:
                as_described &= both > 4
print("as described" if as_described else "the behaviour changed")
sys.exit(not as_described)
PY
"$work/venv/bin/python" "$work/look.py"
