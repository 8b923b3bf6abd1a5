"""The kernels as they are compiled for four GPUs, on a machine that has none.

The tests of this folder interpret the kernels, so they are compiled in another process. Its findings are
checked here: that every launch compiles, that no register is spilled, that images are loaded and stored as wide as
possible, and that tiny numbers are kept, since an image classified with confidence has tiny gradients.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import advfeat
from advfeat.engine import kernel_resources
from advfeat.engine.kernel_resources import TARGETS, Resources

needs_compilers = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not sys.platform.startswith("linux"),
    reason="Triton brings its compilers on Linux",
)

REQUIRED = ("sm_80", "sm_90", "sm_100", "gfx942")


def compiled(tmp_path: Path, code: str) -> dict[str, list[Resources]]:
    """Name → rows, of the dict ``found`` that ``code`` leaves."""
    prelude = "from dataclasses import asdict, replace\nfrom advfeat.engine import kernel_resources as k\n"
    epilogue = "\nprint({name: [asdict(row) for row in rows] for name, rows in found.items()})\n"
    script = tmp_path / "compile.py"
    script.write_text(prelude + textwrap.dedent(code) + epilogue, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(Path(advfeat.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = ast.literal_eval(done.stdout.splitlines()[-1])
    return {name: [Resources(**row) for row in rows] for name, rows in found.items()}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[Resources]:
    """Every launch on every target."""
    return compiled(tmp_path_factory.mktemp("all"), "found = {'all': k.compiled(k.launches())}")["all"]


@needs_compilers
def test_every_kernel_compiles_for_every_target(rows):
    assert tuple(TARGETS) == REQUIRED
    assert [row for row in rows if row.refusal] == []
    from advfeat.engine import triton_kernels

    launched = {row.kernel for row in rows}
    assert launched == {name for name in vars(triton_kernels) if name in ("augment", "linf") or name[:3] == "l2_"}
    per_target = {target: sum(row.target == target for row in rows) for target in REQUIRED}
    assert set(per_target.values()) == {len(kernel_resources.launches())}


@needs_compilers
def test_nothing_is_spilled_and_tiny_numbers_are_kept(rows):
    assert {f"{row.kernel}, {row.configuration}, {row.target}" for row in rows if row.spilled or row.flushes} == set()
    assert all(0 < row.registers <= 128 for row in rows)


@needs_compilers
def test_loads_and_stores_are_as_wide_as_possible(rows):
    assert {(row.kernel, row.configuration, row.target, row.narrow()) for row in rows if row.narrow()} == set()
    # Counted by hand, for one launch: 4096 values on 256 threads are 16 a thread, four at a time in float32 and eight
    # in bfloat16; mean once and standard deviation twice in three channels.
    (usual,) = [
        row
        for row in rows
        if (row.configuration, row.target) == ("3×32×32, bfloat16 network, ball", "sm_90") and "l2" in row.kernel
    ]
    assert dict(usual.loads) == {128: 4 + 4 + 2, 32: 9}
    assert dict(usual.stores) == {128: 4 + 2}


@needs_compilers
def test_bytes_of_an_image_are_those_of_its_arrays(rows):
    values = 3 * 32 * 32
    found = {(row.kernel, row.configuration): row.image_bytes for row in rows}
    # Iterate, centre and gradient in, result out, and the input of the network if there is one.
    assert found["l2_whole", "3×32×32, pixels, ball"] == values * (4 + 4 + 4 + 4)
    assert found["l2_whole", "3×32×32, bfloat16 network, ball"] == values * (4 + 4 + 2 + 4 + 2)
    assert found["l2_whole", "3×32×32, pixels, no ball"] == values * (4 + 4 + 4)  # the centre is not read
    assert found["linf", "3×32×32, float32 network"] == values * (4 + 4 + 4 + 4 + 4)
    assert found["augment", "3×32×32, contiguous"] == values * (4 + 4)
    # In passes: the gradient four times, iterate and centre twice.
    assert found["l2_passes", "3×224×224, pixels, ball"] == 3 * 224 * 224 * (4 * 4 + 2 * 4 + 2 * 4 + 4)
    (row,) = [row for row in rows if row.configuration == "3×32×32, contiguous" and row.target == "sm_90"]
    assert row.seconds(1000) == pytest.approx(1000 * values * 8 / TARGETS["sm_90"].rate, rel=1e-12)


WRONG = """
    import triton
    import triton.language as tl
    from triton.language import math
    from advfeat.engine import triton_kernels, triton_steps

    (name, launch), *_ = k.launches(usual=True).items()
    size = launch.arguments[7]
    assert size == 3072

    def with_one_value_more():
        # Triton promises alignment for multiples of 16 only.
        return replace(launch, arguments=(*launch.arguments[:7], size + 1, *launch.arguments[8:]))

    @triton.jit
    def exponential(images, out, block: tl.constexpr):
        at = tl.arange(0, block)
        tl.store(out + at, math.exp2(tl.load(images + at)))

    def compiled(launch):
        return k.compiled({name: launch}, ("sm_90", "gfx942"))

    found = {"right": compiled(launch), "alignment": compiled(with_one_value_more())}
    images = launch.arguments[0]
    flushing = triton_steps.Launch(exponential, (1,), (images, images), {"block": 1024}, warps=4)
    found["flushed"] = compiled(flushing)
    k.TARGETS["nothing"] = k.CompileTarget("nothing", 0, 32, "none", 1.0)
    found["no such target"] = k.compiled({name: launch}, ("nothing",))
    triton_steps.MAX_REGISTERS = 32
    found["few registers"] = k.compiled({name: launch}, ("sm_90",))
    triton_steps.MAX_REGISTERS = 128
    triton_kernels.SELECTED_CHANNELS = tl.constexpr(0)
    found["value by value"] = compiled(launch)
"""


@needs_compilers
def test_wrong_versions_are_noticed(tmp_path):
    found = compiled(tmp_path, WRONG)
    for row in found["right"]:
        assert (row.refusal, row.narrow(), row.spilled, row.flushes) == ("", "", 0, False)
    assert all("could be" in row.narrow() for row in found["alignment"])  # the promise of alignment is lost
    assert all("could be" in row.narrow() for row in found["value by value"])  # a mean is loaded for each value
    assert found["few registers"][0].spilled > 0
    assert [row.flushes for row in found["flushed"]] == [True, False]  # on AMD nothing can be told by an instruction
    assert found["no such target"][0].refusal.startswith("not compiled: ")


def test_a_table_says_what_was_refused_and_how_long_an_update_takes():
    row = Resources("linf", "3×32×32", "sm_90", registers=40, loads=((128, 6), (32, 9)), image_bytes=3_350_000)
    refused = Resources("linf", "3×32×32", "gfx942", refusal="not compiled: no linker")
    table = kernel_resources.table([row, refused], images=10, share=0.8)
    line = table.loc["linf", "3×32×32", "sm_90 (H100 SXM)"]
    assert (line["loads"], line["bound"], line["at 80%"]) == ("6 × 128, 9 × 32", "10.00 µs", "12.50 µs")
    assert table.loc["linf", "3×32×32", "gfx942 (MI300X)"]["loads"] == "not compiled: no linker"


def test_without_compilers_the_reason_is_given(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert kernel_resources.unavailable() == "Triton is not installed"
    with pytest.raises(RuntimeError, match="no kernel can be compiled: Triton is not installed"):
        kernel_resources.compiled({})
