"""What a benchmark has found so far: printed at once, kept for the record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from advfeat.bench.timing import Ratio
from advfeat.engine.compiled import instructions
from advfeat.estimates import Measured
from advfeat.experiments.provenance import provenance


def record_name(device: torch.device) -> str:
    """Where the record of a device lies: ``cuda``, or ``cpu`` with the instructions it is restricted to, ``cpu-avx2``.

    So the records of one processor with all of its instructions, and as one that has AVX2 alone, stand side by side.
    """
    return device.type if device.type == "cuda" else f"{device.type}-{instructions()}"


class Findings:
    """The measurements so far: printed at once, kept for the record.

    Args:
        folder: folder of ``bench.txt``, a copy of everything that is printed.
    """

    def __init__(self, device: torch.device, folder: Path) -> None:
        self.device = device
        self.made = provenance(device)
        self.values: dict[str, Measured] = {}
        self.series: dict[str, list[float]] = {}
        self.seconds: dict[str, float] = {}
        self.tables: dict[str, list[Mapping[str, object]]] = {"contests": []}
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "bench.txt"
        self.log.write_text("", encoding="utf-8")

    def report(self, *lines: str) -> None:
        """Print the lines, and append them to ``bench.txt``."""
        print(*lines, sep="\n", flush=True)
        with self.log.open("a", encoding="utf-8") as stream:
            print(*lines, sep="\n", file=stream)

    def keep(self, key: str, ratio: Ratio, network: str, what: str) -> None:
        """Keep a ratio with the range of its pairs, under an id below ``bench/<device>/``."""
        measured = Measured(ratio.median, ratio.pairs, network, what, low=ratio.least, high=ratio.most)
        self.values[f"bench/{self.device.type}/{key}"] = measured

    def keep_least(self, key: str, values: Mapping[str, float], what: str) -> None:
        """Keep the least of some numbers, with the largest for the other end of its interval; nothing of none."""
        if values:
            name, least = min(values.items(), key=lambda item: item[1])
            measured = Measured(least, len(values), name, what, low=least, high=max(values.values()))
            self.values[f"bench/{self.device.type}/{key}"] = measured

    def keep_time(self, key: str, value: float) -> None:
        """Keep a time in seconds if it was measured on a GPU."""
        if self.device.type == "cuda":
            self.seconds[key] = value
