"""The targets of the engine are compared as their signs say, and contests become tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from advfeat.bench.targets import (
    circumstances,
    compared,
    contest_table,
    contests,
    met,
    other_libraries,
    quoted_ratios,
    ratios,
    targets_of,
)
from advfeat.experiments.records import Record, load_record


def record(profile, dtype="float32", rows=(), **values):
    measured = {
        key: {"value": value, "n": 5, "network": "resnet18", "attack": "PGD", "seed": 0, "low": value, "high": value}
        for key, value in values.items()
    }
    run = {"config": {"dtype": dtype}, "values": measured, "tables": {"contests": list(rows)}}
    return Record("13-fast-attacks", profile, {0: run}, Path())


@pytest.mark.parametrize(
    ("value", "dtype", "met"), [(1.3, "float32", "yes"), (1.29, "float32", "no"), (3.9, "bfloat16", "no")]
)
def test_at_least_is_met_at_the_bound_and_asks_for_more_in_bfloat16(value, dtype, met):
    (line,) = compared(record("cpu", dtype, **{"bench/cpu/user/resnet18-l2-b128": value})).values()
    assert line["met"] == met
    assert line["target"] == (">= 4" if dtype == "bfloat16" else ">= 1.3")


def test_at_most_is_met_at_the_bound_and_what_is_stated_has_no_verdict():
    at = "bench/cpu"
    found = record("cpu", **{f"{at}/engine/resnet18-l2-b128-bare": 1.05, f"{at}/engine/resnet18-l2-b1000-bare": 1.06,
                            f"{at}/plain/cnn4-construct": 1.25, "time/cpu/D_rand": 86_816.0})  # fmt: skip
    lines = compared(found)
    assert [line["met"] for line in lines.values()] == ["yes", "no", "–", "–"]
    assert met(found) == [True, False]  # a plain statement is neither met nor missed
    assert list(lines)[-1] == "seconds for D_rand with ResNet-18, PGD"
    assert list(lines.values())[-1]["measured"].startswith("86,816 [")
    assert list(lines.values())[-1]["target"] == "stated"


def test_a_gpu_has_a_kernel_to_judge_and_a_time_to_reach():
    gpu, cpu = targets_of("cuda", "bfloat16"), targets_of("cpu", "float32")
    assert gpu["time/cuda/D_rand"][1:] == ("<=", 60)
    assert set(gpu) - {key.replace("cpu", "cuda") for key in cpu} == {"bench/cuda/step/l2-twin"}


def test_contests_become_a_table_with_ratios_quartiles_and_reasons():
    row = {"comparison": "user", "network": "resnet9", "batch": 16, "steps": 10, "void": "", "pairs": 5}
    rows = [
        {**row, "contender": "advfeat", "robust": 0.25},
        {**row, "contender": "art", "ratio": 1.5, "lower": 1.25, "upper": 1.75},
        {**row, "contender": "foolbox", "ratio": 2.0, "lower": 1, "upper": 3, "pairs": 3},
        {**row, "contender": "robustness", "void": "other images"},
        {**row, "contender": "art", "comparison": "engine", "ratio": 9.0},
    ]
    found = record("cpu", rows=rows)
    assert [of["contender"] for of in contests(found, "engine")] == ["art"]
    table = contest_table(found, "user")
    assert table.loc[("resnet9", 16, 10)].to_dict() == {
        "robust accuracy": "25.0%", "art": "1.50 [1.25, 1.75]", "foolbox": "2.00", "robustness": "void: other images",
    }  # fmt: skip
    assert ratios(found, "user", "resnet9", 16) == {"art": 1.5, "foolbox": 2.0}
    assert ratios(found, "user", "resnet9", 1) == {}
    assert contest_table(record("cpu"), "user").empty


def test_a_sentence_quotes_the_contenders_in_its_own_order():
    row = {"comparison": "engine", "network": "resnet18", "batch": 128, "steps": 10, "void": "", "pairs": 3}
    rows = [
        {**row, "contender": name, "ratio": ratio}
        for name, ratio in {"art": 1.5, "bare": 1.19, "foolbox": 2.125}.items()
    ]
    rows += [
        {**row, "contender": "advfeat", "robust": 0.25},
        {**row, "contender": "robustness", "void": "other images"},
    ]
    rows += [{**row, "contender": "art", "batch": 1, "ratio": 9.0}]
    found = record("cpu", rows=rows)
    assert quoted_ratios(found, "engine", "resnet18", 128, of=["foolbox", "torchattacks", "art"]) == "2.12 and 1.50"
    assert quoted_ratios(found, "engine", "resnet18", 128, of=["bare"], spec=".0%") == "119%"
    assert quoted_ratios(found, "user", "resnet18", 128, of=["art"]) == "–"
    # Neither our own row nor a void one has a ratio, and bare is no library.
    assert [of["contender"] for of in other_libraries(found, "engine", batch=128)] == ["art", "foolbox"]


def test_the_circumstances_name_the_machine_and_who_was_absent():
    run = {"config": {"dtype": "float32", "absent": {"art": "no wheel"}}, "provenance": {"device": "d", "threads": 2}}
    assert circumstances(Record("13-fast-attacks", "cpu", {0: run}, Path())).split("\n\n") == [
        "**d**, 2 threads, float32",
        "*art takes no part: no wheel.*",
    ]


def test_the_committed_record_has_every_row_of_its_contests():
    committed = load_record("13-fast-attacks", "cpu")
    for comparison in ("user", "engine"):
        rows = contests(committed, comparison)
        table = contest_table(committed, comparison)
        assert len(table) == len({(row["network"], row["batch"], row["steps"]) for row in rows})
        assert int((table != "–").sum().sum()) == len(rows)
