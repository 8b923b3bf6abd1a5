"""The contents of a record of ``bench``: contests with other libraries, and the engine beside its targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from advfeat.experiments.records import Record

SHORT_TITLES = {"user": "As a user calls them", "engine": "Engine only"}
"""The two comparisons with other libraries, see ``compare``."""

Target = tuple[str, str, float | None]
"""The measurement, in words; ``>=``, ``<=``, or "" where nothing was aimed at; and the bound."""


def targets_of(kind: str, dtype: str) -> dict[str, Target]:
    """Id in the record → target, for a device, ``cpu`` or ``cuda``, and the type that the engine runs in."""
    at = f"bench/{kind}"
    targets: dict[str, Target] = {
        f"{at}/user/resnet18-l2-b128": (
            "fastest library over ours, as a user calls it", ">=", 4 if dtype == "bfloat16" else 2,
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
        targets |= _beside_earlier(at)
    if dtype == "float32":
        targets |= {
            f"{at}/user/vgg16-l2-b128": ("the same on VGG-16", ">=", 2.3),
            f"{at}/user/resnet9-l2-b128": ("the same on ResNet-9", ">=", 1.5),
            f"{at}/user/least": ("the least of all rows, single images included", ">=", 1),
        }
    return targets


def _beside_earlier(at: str) -> dict[str, Target]:
    """Targets beside the earlier build, see ``builds``."""
    networks = {"resnet9": "ResNet-9", "resnet18": "ResNet-18"}
    targets: dict[str, Target] = {
        f"{at}/earlier/{kind}-{network}-b128": (f"earlier build over ours, {words}, {name}", ">=", bound)
        for kind, words, bound in (("train", "a training step", 1.6), ("adversarial", "adversarial training", 1.8))
        for network, name in networks.items()
    }
    return targets | {
        f"{at}/earlier/memory": ("memory of the earlier build over ours, the least of all tasks", ">=", 1)
    }


def in_order(records: Sequence[Record]) -> list[Record]:
    """The records of a chapter, the telling one first: of a CPU with AVX2 alone, as most readers have.

    A record named ``cpu`` was made before the name held the instructions. It is left out where a newer one exists,
    since that holds the earlier build beside this one.
    """
    newer = [record for record in records if record.profile.startswith("cpu-")]
    ranks = {"cpu-avx2": 0, "cpu-avx512": 1, "cuda": 3}
    kept = [record for record in records if record.profile != "cpu" or not newer]
    return sorted(kept, key=lambda record: (ranks.get(record.profile, 2), record.profile))


def compared(record: Record) -> dict[str, dict[str, str]]:
    """In words → ``target``, ``measured`` and ``met`` (yes, no, or a dash), for every target that was measured."""
    lines = {}
    kind, dtype = record.profile.partition("-")[0], record.first["config"].get("dtype", "")
    for key, (words, sign, bound) in targets_of(kind, dtype).items():
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


def fastest(record: Record, networks: Sequence[str], batch: int) -> str:
    """The smallest ratio of another library as a user calls it, for each of some networks, for a sentence."""
    found = [ratios(record, "user", network, batch).values() for network in networks]
    return ", ".join(f"{min(values):.2f}" for values in found if values) or "–"


def circumstances(record: Record) -> str:
    """Markdown for above the tables: the machine, its threads, the type of the numbers, and who took no part."""
    made, config = record.first["provenance"], record.first["config"]
    absent = [f"*{name} takes no part: {why}.*" for name, why in config.get("absent", {}).items()]
    parts = [f"**{made['device']}**", f"{made['threads']} threads", config.get("dtype", "")]
    if config.get("instructions"):
        parts += [f"instructions up to {config['instructions']}", f"convolutions by {made['engine'].partition(',')[0]}"]
    head = ", ".join(parts)
    return "\n\n".join([head, *absent])


def layers(record: Record, network: str = "") -> list[Mapping[str, Any]]:
    """The rows of single layers, of one network or of all."""
    rows = record.first.get("tables", {}).get("layers", [])
    return [row for row in rows if network in ("", row["network"])]


def layer_name(row: Mapping[str, Any]) -> str:
    """A layer in words, as in ``64→128, 1×1 / 2, 32²``: channels, window with the stride unless it is 1, and side."""
    strided = f" / {row['stride']}" if row["stride"] > 1 else ""
    return f"{row['inputs']}→{row['outputs']}, {row['window']}×{row['window']}{strided}, {row['side']}²"


def layer_table(record: Record, network: str) -> pd.DataFrame:
    """One row per layer and pass: milliseconds of both, their ratio, and rates as multiples of the machine's."""
    found = {
        (f"{row['count']} × {layer_name(row)}", row["pass"]): {
            "oneDNN, ms": f"{row['direct_ms']:.1f}",
            "ours, ms": f"{row['ours_ms']:.1f}",
            "ratio": f"{row['ratio']:.2f} [{row['lower']:.2f}, {row['upper']:.2f}]",
            "GFLOP/s": f"{row['gflops']:.0f}",
            "oneDNN, of the rate": f"{row['direct_share']:.0%}",
            "ours, of the rate": f"{row['ours_share']:.0%}",
        }
        for row in layers(record, network)
    }
    return pd.DataFrame(found).T.rename_axis(["layer", "pass"]) if found else pd.DataFrame()


def forward_rates(record: Record) -> dict[str, list[Mapping[str, Any]]]:
    """Network → its layers with their ``name``, as they compute outputs alone."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in layers(record):
        if row["pass"] == "forward":
            found.setdefault(row["network"], []).append({**row, "name": layer_name(row)})
    return found


def told(records: Sequence[Record]) -> dict[str, str]:
    """What chapter 13 says in its text of the first of some records, by name; dashes where there is none."""
    slow, networks = ["foolbox", "art"], ("resnet18", "vgg16", "resnet9")
    says: dict[str, Callable[[Record], object]] = {
        "missed": lambda of: met(of).count(False),
        "targets": lambda of: len(met(of)),
        "recorded_fastest": lambda of: fastest(of, networks, 128),
        "recorded_single": lambda of: fastest(of, networks[::2], 1),
        "recorded_bare": lambda of: quoted_ratios(of, "engine", "resnet18", 1, of=["bare"], spec=".0%"),
        "recorded_slow_user": lambda of: quoted_ratios(of, "user", "resnet18", 128, of=slow),
        "recorded_slow_engine": lambda of: quoted_ratios(of, "engine", "resnet18", 128, of=slow),
        "recorded_convolutions": lambda of: f"{of.first['series']['shares'][0]:.0%}",
    }
    return {name: str(say(records[0])) if records else "–" for name, say in says.items()}


def contest_tables(record: Record) -> dict[str, pd.DataFrame]:
    """``contest_table`` of both comparisons with their titles, as in ``layer_tables``."""
    return _titled(record, {f"*{title}*": contest_table(record, key) for key, title in SHORT_TITLES.items()})


def contest_panels(record: Record) -> dict[str, list[Mapping[str, Any]]]:
    """Title → ``other_libraries`` of a comparison, at a batch of 128."""
    return {title: other_libraries(record, key, batch=128) for key, title in SHORT_TITLES.items()}


def layer_tables(record: Record) -> dict[str, pd.DataFrame]:
    """Title in Markdown → table, for the networks whose layers were measured; the circumstances are the first title."""
    return _titled(record, {f"*{network}*": layer_table(record, network) for network in forward_rates(record)})


def build_tables(record: Record) -> dict[str, pd.DataFrame]:
    """``build_table`` and ``part_table`` with their titles, as in ``layer_tables``."""
    title = "*Where the time of an attack goes, in units of the earlier build's*"
    return _titled(record, {"*Attacks and training*": build_table(record), title: part_table(record)})


def _titled(record: Record, tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    kept = {title: table for title, table in tables.items() if not table.empty}
    return {
        f"{'' if place else circumstances(record) + chr(10) * 2}{title}": kept[title]
        for place, title in enumerate(kept)
    }


def build_table(record: Record) -> pd.DataFrame:
    """One row per task of both builds: time and added memory of the earlier build over those of this one."""
    found = {}
    for row in record.first.get("tables", {}).get("builds", []):
        memory = row.get("memory")
        found[row["task"] or "all"] = {
            "task": row["words"],
            "time before over now": f"void: {row['void']}" if row["void"] else _spread(row),
            "memory before over now": "–" if memory is None else f"{memory:.2f}",
        }
    return pd.DataFrame(found).T


def part_table(record: Record) -> pd.DataFrame:
    """One row per part of a step: its share of the time of the earlier build, before and now."""
    rows = record.first.get("tables", {}).get("parts", [])
    found = {row["part"]: {name: row[name] for name in ("before", "now")} for row in rows}
    found["all"] = {name: sum(row[name] for row in rows) for name in ("before", "now")}
    return pd.DataFrame(found).T.map(lambda share: f"{share:.1%}") if rows else pd.DataFrame()


def _entry(row: Mapping[str, Any]) -> str:
    if row["void"]:
        return f"void: {row['void']}"
    if "ratio" not in row:
        return f"{row['robust']:.1%}"
    return _spread(row)


def _spread(row: Mapping[str, Any]) -> str:
    spread = " [{lower:.2f}, {upper:.2f}]" if row["pairs"] >= 5 else ""
    return ("{ratio:.2f}" + spread).format(**row)
