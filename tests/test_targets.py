"""The targets of the engine are compared as their signs say, and contests become tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from advfeat.bench.targets import (
    build_table,
    build_tables,
    circumstances,
    compared,
    contest_panels,
    contest_table,
    contest_tables,
    contests,
    fastest,
    forward_rates,
    in_order,
    layer_table,
    layer_tables,
    met,
    other_libraries,
    part_table,
    quoted_ratios,
    ratios,
    targets_of,
    told,
)
from advfeat.experiments.records import Record, readable_records


def record(profile, dtype="float32", rows=(), **values):
    measured = {
        key: {"value": value, "n": 5, "network": "resnet18", "attack": "PGD", "seed": 0, "low": value, "high": value}
        for key, value in values.items()
    }
    run = {"config": {"dtype": dtype}, "values": measured, "tables": {"contests": list(rows)}}
    return Record("13-fast-attacks", profile, {0: run}, Path())


@pytest.mark.parametrize(
    ("value", "dtype", "met"), [(2.0, "float32", "yes"), (1.99, "float32", "no"), (3.9, "bfloat16", "no")]
)
def test_at_least_is_met_at_the_bound_and_asks_for_more_in_bfloat16(value, dtype, met):
    (line,) = compared(record("cpu", dtype, **{"bench/cpu/user/resnet18-l2-b128": value})).values()
    assert line["met"] == met
    assert line["target"] == (">= 4" if dtype == "bfloat16" else ">= 2")


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
    found.first["series"] = {"shares": [0.875, 0.1, 0.025]}
    found.first["provenance"] = {"device": "d", "threads": 2}
    said = told([found, record("cuda")])
    assert (said["recorded_slow_engine"], said["recorded_bare"], said["recorded_convolutions"]) == (
        "2.12 and 1.50",
        "–",
        "88%",
    )
    assert set(told([]).values()) == {"–"}
    assert told([]).keys() == said.keys()
    assert [title.rpartition("*")[0][-12:] for title in contest_tables(found)] == ["*Engine only"]
    assert len(contest_panels(found)["Engine only"]) == 2
    assert fastest(found, ["resnet18"], 128) == "–"
    users = [
        {**row, "comparison": "user", "contender": name, "ratio": ratio, "network": network}
        for name, ratio, network in (("art", 3, "vgg16"), ("foolbox", 2, "vgg16"), ("art", 1.5, "resnet18"))
    ]
    assert fastest(record("cpu", rows=users), ["resnet18", "resnet9", "vgg16"], 128) == "1.50, 2.00"
    # Neither our own row nor a void one has a ratio, and bare is no library.
    assert [of["contender"] for of in other_libraries(found, "engine", batch=128)] == ["art", "foolbox"]


def test_the_circumstances_name_the_machine_and_who_was_absent():
    run: dict = {
        "config": {"dtype": "float32", "absent": {"art": "no wheel"}},
        "provenance": {"device": "d", "threads": 2},
    }
    assert circumstances(Record("13-fast-attacks", "cpu", {0: run}, Path())).split("\n\n") == [
        "**d**, 2 threads, float32",
        "*art takes no part: no wheel.*",
    ]
    run["config"] |= {"instructions": "avx2"}
    run["provenance"] |= {"engine": "winograd, compiled for avx2"}
    assert circumstances(Record("13-fast-attacks", "cpu-avx2", {0: run}, Path())).split("\n\n")[0] == (
        "**d**, 2 threads, float32, instructions up to avx2, convolutions by winograd"
    )


def test_targets_are_those_of_the_device_and_the_record_before_the_instructions_goes_last():
    ids = {"bench/cpu/user/resnet18-l2-b128": 2.5, "bench/cpu/earlier/train-resnet9-b128": 1.5}
    assert met(record("cpu-avx2", **ids)) == met(record("cpu", **ids)) == [True, False]
    names = ("cpu", "cpu-avx512", "cuda", "cpu-neon", "cpu-avx2")
    ordered = [one.profile for one in in_order([record(name) for name in names])]
    assert ordered == ["cpu-avx2", "cpu-avx512", "cpu-neon", "cuda"]
    assert [one.profile for one in in_order([record("cpu"), record("cuda")])] == ["cpu", "cuda"]


def test_layers_and_builds_become_tables():
    layer = {"network": "resnet18", "count": 2, "inputs": 64, "outputs": 128, "side": 32, "window": 1, "stride": 2,
             "pass": "forward", "direct_ms": 3.0, "ours_ms": 2.0, "ratio": 1.5, "lower": 1.4, "upper": 1.6,
             "gflops": 210.4, "direct_share": 0.8, "ours_share": 1.2, "pairs": 5}  # fmt: skip
    task = {"task": "train-resnet9-b128", "words": "two steps", "void": "", "ratio": 1.5, "lower": 1.0, "upper": 2.0,
            "pairs": 3, "memory": 1.25}  # fmt: skip
    found = record("cpu-avx2")
    found.first["tables"].update(
        layers=[layer, {**layer, "network": "vgg16"}],
        builds=[task, {"task": "attack", "words": "one", "void": "no git"}, {**task, "task": "x", "memory": None}],
        parts=[{"part": "sums", "before": 0.25, "now": 0.125}, {"part": "rest", "before": 0.75, "now": 0.25}],
    )
    assert layer_table(found, "resnet18").to_dict("index") == {
        ("2 × 64→128, 1×1 / 2, 32²", "forward"): {
            "oneDNN, ms": "3.0", "ours, ms": "2.0", "ratio": "1.50 [1.40, 1.60]", "GFLOP/s": "210",
            "oneDNN, of the rate": "80%", "ours, of the rate": "120%",
        },
    }  # fmt: skip
    assert list(build_table(found)["time before over now"]) == ["1.50", "void: no git", "1.50"]
    assert list(build_table(found)["memory before over now"]) == ["1.25", "–", "–"]
    assert part_table(found)["now"].to_dict() == {"sums": "12.5%", "rest": "25.0%", "all": "37.5%"}
    assert forward_rates(found)["vgg16"] == [{**layer, "network": "vgg16", "name": "64→128, 1×1 / 2, 32²"}]
    found.first["provenance"] = {"device": "d", "threads": 2}
    assert [title.rpartition("\n")[2] for title in layer_tables(found)] == ["*resnet18*", "*vgg16*"]
    assert next(iter(layer_tables(found))).startswith("**d**, 2 threads")
    assert [len(table) for table in build_tables(found).values()] == [3, 3]
    assert layer_tables(record("cpu")) == build_tables(record("cpu")) == {}
    assert layer_table(record("cpu"), "resnet18").empty
    assert build_table(record("cpu")).empty
    assert part_table(record("cpu")).empty


def test_a_committed_record_has_every_row_of_its_contests():
    for committed in readable_records("13-fast-attacks"):
        for comparison in ("user", "engine"):
            rows = contests(committed, comparison)
            table = contest_table(committed, comparison)
            assert len(table) == len({(row["network"], row["batch"], row["steps"]) for row in rows})
            assert int((table != "–").sum().sum()) == len(rows)
        assert compared(committed)
