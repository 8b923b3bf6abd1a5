"""One task of one build of this library, in a process of its own: run by its path, with another build to import.

``python -P build_step.py TASK`` prepares the task (JSON: ``kind``, ``network``, ``batch``, ``steps``, ``width``), says
which package it has imported, and then obeys the words that it reads, one a line: ``memory`` and ``time`` carry the
task out, once each, and answer with bytes or seconds; ``profile`` answers with seconds by operation. Only what the
library has had for long is imported, because the same file runs with an earlier build.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import advfeat
from advfeat.attacks import L2, pgd
from advfeat.data import Dataset
from advfeat.models import build_model, freeze
from advfeat.train import TrainConfig, train

RADIUS = 0.5


def prepared(kind: str, network: str, batch: int, steps: int, width: int | None) -> Callable[[], object]:
    """The task as a user calls it, on seeded noise and weights: ``attack``, ``train`` or ``adversarial``.

    An attack has ``steps`` steps of PGD on a frozen network. Training has ``steps`` steps, or one adversarial one whose
    attack has ``steps``.
    """
    draw = torch.Generator().manual_seed(0)
    model = build_model(network, width=width, seed=0).eval()
    images = torch.rand(batch, 3, 32, 32, generator=draw)
    labels = torch.randint(10, (batch,), generator=draw)
    if kind == "attack":
        frozen = freeze(model, dtype=torch.float32)  # the earlier build would take bfloat16 where that is emulated
        return lambda: pgd(frozen, images, labels, L2(RADIUS), steps=steps, step_size=RADIUS / 10)
    # So small a rate that the loss on random labels stays finite however often the task is repeated.
    config = TrainConfig(epochs=1, batch_size=batch, lr=1e-5)
    if kind == "adversarial":
        config = TrainConfig(epochs=1, batch_size=batch, lr=1e-5, threat=L2(RADIUS), attack_steps=steps)
    repeats = 1 if kind == "adversarial" else steps
    classes = tuple(str(label) for label in range(10))
    data = Dataset(images.repeat(repeats, 1, 1, 1), labels.repeat(repeats), classes, "noise")
    return lambda: train(model, data, config, seed=0)


def added_memory(call: Callable[[], object]) -> float:
    """The most bytes in use while ``call`` runs beyond those in use before, by the system's count (Linux)."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    call()
    return _status("VmHWM") - before


def _status(name: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return 1024.0 * int(lines[name].split()[0])


def seconds_by_operation(call: Callable[[], object]) -> dict[str, float]:
    """Operation → seconds in itself, as PyTorch's profiler measures them, and ``total`` by the clock."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        total = _timed(call)
    return {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()} | {"total": total}


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Answer in lines of JSON until the input ends."""
    call = prepared(**json.loads(sys.argv[1]))
    answers: dict[str, Callable[[Callable[[], object]], Any]] = {
        "memory": added_memory, "time": _timed, "profile": seconds_by_operation,
    }  # fmt: skip
    print(json.dumps({"package": str(Path(advfeat.__file__).parent)}), flush=True)
    for line in sys.stdin:
        try:
            answer: Any = answers[line.strip()](call)
        except OSError as error:  # a system that does not report its memory
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
