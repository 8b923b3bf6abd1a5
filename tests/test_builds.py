"""An earlier build and single layers: the right package runs, parts add up, and rates count a direct convolution."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from advfeat.bench import build_step, builds, layers
from advfeat.bench.builds import BuildTask, BuildUnavailableError
from advfeat.bench.layers import PASSES, Shape
from advfeat.checkout import CHECKOUT
from advfeat.engine import convolution_code
from advfeat.models import build_model

SMALL = BuildTask("attack", "resnet9", 2, 1, rounds=2, width=8)


def test_both_builds_run_the_task_and_the_older_package_is_the_other(tmp_path):
    """An earlier build is a copy of the package here, so that the test needs no history."""
    shutil.copytree(CHECKOUT / "advfeat", tmp_path / "advfeat", ignore=shutil.ignore_patterns("__pycache__"))
    found = builds.beside(SMALL, tmp_path)
    assert found.time.pairs == 2
    assert 0.02 < found.time.median < 50
    with builds.started(SMALL, tmp_path) as before, builds.started(SMALL, CHECKOUT) as now:
        assert before.package == tmp_path / "advfeat"
        assert now.package == CHECKOUT / "advfeat"
        parts = builds.by_part(now.ask("profile"))
        assert parts["convolutions"] > 0
        assert before.ask("time") > 0


@pytest.mark.parametrize("kind", ["train", "adversarial"])
def test_training_is_a_task_too(kind):
    call = build_step.prepared(kind, "resnet9", 2, 1, 8)
    (row,) = call()
    assert row["seconds"] > 0
    assert torch.isfinite(torch.tensor(row["loss"]))


def test_a_package_from_elsewhere_and_a_process_that_fails_are_named(tmp_path):
    with pytest.raises(BuildUnavailableError, match="was imported instead of"), builds.started(SMALL, tmp_path):
        pass
    (tmp_path / "advfeat").mkdir()
    (tmp_path / "advfeat" / "__init__.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(BuildUnavailableError, match="ended with 3"), builds.started(SMALL, tmp_path):
        pass


def test_a_commit_that_git_does_not_have_is_a_reason_and_no_failure(tmp_path):
    with pytest.raises(BuildUnavailableError, match="git has no commit 0000000 here"):
        builds.unpacked(tmp_path, "0" * 40)


def test_the_earlier_build_has_what_the_tasks_import(tmp_path):
    try:
        tree = builds.unpacked(tmp_path)
    except BuildUnavailableError as error:
        pytest.skip(str(error))
    names = "from advfeat.attacks import L2, pgd; from advfeat.data import Dataset; from advfeat.models import " \
            "build_model, freeze; from advfeat.train import TrainConfig, train"  # fmt: skip
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tree)!r}); import advfeat; {names}; "
                                     "print(advfeat.__file__)"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(str(tree)), done.stderr


def test_parts_hold_every_operation_once_and_the_rest_is_what_no_part_names():
    seconds = {"aten::mkldnn_convolution": 4.0, "_ConvolutionBackward": 2.0, "aten::clamp_min_": 1.0, "aten::add_": 0.5,
               "aten::max_pool2d_with_indices": 0.25, "aten::copy_": 0.125, "aten::mm": 3.0, "total": 12.0}  # fmt: skip
    assert builds.by_part(seconds) == {
        "convolutions": 6.0, "activations": 1.0, "sums": 0.5, "pooling": 0.25, "copies": 0.125, "rest": 4.125,
    }  # fmt: skip


@pytest.mark.parametrize("shape", [Shape(3, 8, 9, 3, 1, 1), Shape(4, 6, 10, 3, 2, 1), Shape(4, 6, 8, 1, 2, 0)])
def test_operations_are_those_of_a_direct_convolution(shape):
    images = torch.zeros(1, shape.inputs, shape.side, shape.side)
    with FlopCounterMode(display=False) as counter:
        shape.layer()(images)
    assert shape.operations == counter.get_total_flops()


def test_shapes_are_counted_in_their_order():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    assert list(layers.shapes(network, side=8).items()) == [(Shape(3, 4, 8, 3, 1, 1), 1), (Shape(4, 4, 8, 3, 1, 1), 2)]
    counts = layers.shapes(build_model("resnet18", width=8, seed=0).eval())
    assert sum(counts.values()) == 20


def test_both_contenders_of_a_layer_compute_the_same():
    shape, outputs = Shape(16, 24, 8, 3, 1, 1), {}
    for ours in (False, True):
        passes = layers._passes(shape, 2, torch.channels_last, ours=ours)
        assert set(passes) == set(PASSES)
        outputs[ours] = passes["gradient"]()[0]
        for run in passes.values():
            run()
    assert torch.allclose(outputs[True], outputs[False], atol=1e-4)
    layer = shape.layer()
    layers.put_in(layer)
    images = torch.rand(1, 16, 8, 8)
    assert torch.allclose(layer(images), F.conv2d(images, layer.weight, padding=1), atol=1e-4)


def test_a_row_names_the_layer_and_its_rates_belong_together():
    if convolution_code.engine().name != "winograd":
        pytest.skip(convolution_code.engine().why)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1))
    rows = layers.rows_of([("one", network), ("two", network)], batch=2, rounds=2)
    assert len(rows) == 2 * 2 * len(PASSES)
    for row in rows:
        operations = 2 * Shape(*(row[name] for name in Shape.__dataclass_fields__)).operations
        operations *= 3 if row["pass"] == "training" else 1
        assert row["gflops"] * row["ours_ms"] * 1e6 == pytest.approx(operations)
        assert 0 < row["direct_share"] < 10
        assert 0 < row["ours_share"] < 10
    assert [row["ours_ms"] for row in rows[:6]] == [row["ours_ms"] for row in rows[6:]], "a shape is measured once"
