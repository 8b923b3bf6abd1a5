"""The contents of a record of ``bench``: contests with other libraries, and the engine beside its targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from advfeat.experiments.records import Record

Target = tuple[str, str, float | None]
"""The measurement, in words; ``>=``, ``<=``, or "" where nothing was aimed at; and the bound."""


def targets_of(kind: str, dtype: str) -> dict[str, Target]:
    """Id in the record → target, for a device, ``cpu`` or ``cuda``, and the type that the engine runs in."""
    at = f"bench/{kind}"
    targets: dict[str, Target] = {
        f"{at}/user/resnet18-l2-b128": (
            "fastest library over ours, as a user calls it", ">=", 4 if dtype == "bfloat16" else 1.3,
        ),
        f"{at}/engine/resnet18-l2-b16": ("fastest library over ours, engine only, batch 16", ">=", 2),
        f"{at}/engine/resnet18-l2-b128-bare": ("our step over forward and gradient, batch 128", "<=", 1.05),
        f"{at}/engine/resnet18-l2-b1000-bare": ("our step over forward and gradient, batch 1,000", "<=", 1.05),
        f"{at}/early-drop/cnn4-pgd20": ("robust accuracy without early drop over with, 20 steps", "", None),
        f"{at}/early-drop/cnn4-pgd50": ("robust accuracy without early drop over with, 50 steps", ">=", 5),
        f"{at}/early-drop/cnn4-pgd100": ("robust accuracy without early drop over with, 100 steps", ">=", 5),
        f"{at}/plain/cnn4-construct": ("the attack of chapter 5, plain loop over engine", "", None),
        f"time/{kind}/D_rand": ("seconds for D_rand with ResNet-18", "<=" if kind == "cuda" else "", 60),
    }  # fmt: skip
    # On a CPU there is no kernel: the update is those lines of PyTorch.
    if kind == "cuda":
        targets[f"{at}/step/l2-twin"] = ("lines of PyTorch over fused update", ">=", 1)
        targets[f"{at}/step/l2-copy"] = ("fused update, share of the rate of a copy", ">=", 0.8)
    else:
        targets[f"{at}/step/l2-copy"] = ("update, share of the rate of a copy", "", None)
    return targets


def compared(record: Record) -> dict[str, dict[str, str]]:
    """In words → ``target``, ``measured`` and ``met`` (yes, no, or a dash), for every target that was measured."""
    lines = {}
    for key, (words, sign, bound) in targets_of(record.profile, record.first["config"].get("dtype", "")).items():
        if key not in record.ids():
            continue
        found = record.summary(key)
        seconds = key.startswith("time/")
        met = "–"
        if sign and bound is not None:
            met = "yes" if (found.value >= bound if sign == ">=" else found.value <= bound) else "no"
        lines[f"{words}, {found.attack}" if seconds else words] = {
            "target": f"{sign} {bound:g}" if sign else "stated",
            "measured": f"{found:,.0f}" if seconds else f"{found:.2f}",
            "met": met,
        }
    return lines


def met(record: Record) -> list[bool]:
    """Whether it was met, for every target of ``compared`` that has a bound."""
    return [line["met"] == "yes" for line in compared(record).values() if line["met"] != "–"]


def contests(record: Record, comparison: str) -> list[Mapping[str, Any]]:
    """The rows of one comparison, ``user`` or ``engine``: network, batch, steps, contender, and the ratio of times."""
    return [row for row in record.first.get("tables", {}).get("contests", []) if row["comparison"] == comparison]


def other_libraries(record: Record, comparison: str, *, batch: int) -> list[Mapping[str, Any]]:
    """The rows of ``contests`` that hold the ratio of another library, at one size of batch."""
    rows = contests(record, comparison)
    return [row for row in rows if row["batch"] == batch and "ratio" in row and row["contender"] != "bare"]


def contest_table(record: Record, comparison: str) -> pd.DataFrame:
    """One row per network, batch and number of steps, one column per contender; of our own the robust accuracy."""
    table: dict[tuple[str, int, int], dict[str, str]] = {}
    for row in contests(record, comparison):
        column = "robust accuracy" if row["contender"] == "advfeat" else row["contender"]
        table.setdefault((row["network"], row["batch"], row["steps"]), {})[column] = _entry(row)
    return pd.DataFrame(table).T.fillna("–").rename_axis(["network", "batch", "steps"]) if table else pd.DataFrame()


def ratios(record: Record, comparison: str, network: str, batch: int) -> dict[str, float]:
    """Contender → its time over ours, in one contest."""
    rows = [row for row in contests(record, comparison) if "ratio" in row]
    return {row["contender"]: row["ratio"] for row in rows if (row["network"], row["batch"]) == (network, batch)}


def quoted_ratios(
    record: Record, comparison: str, network: str, batch: int, *, of: Sequence[str], spec: str = ".2f"
) -> str:
    """``ratios`` of some contenders, in their order, for a sentence; a dash if none of them took part."""
    found = ratios(record, comparison, network, batch)
    return " and ".join(f"{found[name]:{spec}}" for name in of if name in found) or "–"


def circumstances(record: Record) -> str:
    """Markdown for above the tables: the machine, its threads, the type of the numbers, and who took no part."""
    made, config = record.first["provenance"], record.first["config"]
    absent = [f"*{name} takes no part: {why}.*" for name, why in config.get("absent", {}).items()]
    head = f"**{made['device']}**, {made['threads']} threads, {config.get('dtype', '')}"
    return "\n\n".join([head, *absent])


def _entry(row: Mapping[str, Any]) -> str:
    if row["void"]:
        return f"void: {row['void']}"
    if "ratio" not in row:
        return f"{row['robust']:.1%}"
    spread = " [{lower:.2f}, {upper:.2f}]" if row["pairs"] >= 5 else ""
    return ("{ratio:.2f}" + spread).format(**row)
