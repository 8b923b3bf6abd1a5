"""Pictures through packing and construction, and the peak of the memory: the program behind ``test_streamed``.

``python tests/stream_pictures.py COUNT`` generates COUNT pictures in a folder, packs them, makes D_det of them with a
small network, and prints as JSON what this took.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def generate(folder: Path, count: int) -> None:
    """COUNT pictures of 32×32 in ten sub-folders, each with a colour of its own."""
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"n{number % 10:08d}"
        place.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((32, 32)).save(place / f"{number}.jpg")


def main(count: int) -> dict[str, float]:
    """The peak of the memory of this process, in MB, and the seconds of each stage."""
    from advfeat.attacks import L2
    from advfeat.construct import deterministic_target_dataset
    from advfeat.models import build_model
    from advfeat.streamed import streamed_folder

    torch.set_num_threads(1)
    clock, seconds = time.perf_counter(), {}

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = round(time.perf_counter() - clock, 2), time.perf_counter()

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        generate(place / "pictures", count)
        lap("generated")
        pictures = streamed_folder(place / "pictures", size=32, resized=32, into=place)
        lap("packed")
        model = build_model("cnn4", width=8, classes=10, seed=0).eval()
        attack = {"steps": 2, "step_size": 0.3, "into": place / "made.u16"}
        made = deterministic_target_dataset(model, pictures, L2(0.5), **attack)
        lap("constructed")
        kilobytes = (place / "made.u16").stat().st_size / 1e3
    return {
        "pictures": len(made),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "constructed_mb": round(kilobytes / 1e3, 1),
        **seconds,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
