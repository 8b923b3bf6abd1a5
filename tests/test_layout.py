"""The shape of the repository: who may import whom, and the duties of every module to its reader."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from advfeat.engine import fused_steps

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "advfeat").rglob("*.py"))
TREES = {".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text()) for path in MODULES}
LONGEST = 300  # lines of a module; past that it is asking to be two
EXEMPT = {"gaussian", "profiles"}  # the theory in one piece, and a table

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")


def public(tree):
    """Public functions, classes and their public methods, with dotted names."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                    yield f"{node.name}.{item.name}", item


def lint_imports(folder):
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_layering():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "imported", "broken"),
    [
        ("attacks", "measures", "Imports go one way"),
        ("fresh", "inputs", "Imports go one way"),  # a module without a place among the layers
        ("engine/folding", "models", "Imports go one way"),
        ("measures", "experiments.store", "Imports go one way"),
        ("pages/notebook", "bench.targets", "Imports go one way"),
        ("experiments/store", "chapters", "Imports go one way"),
        ("engine/triton_steps", "engine.fused_steps", "Inside the rooms, too, imports go one way: engine"),
        ("experiments/records", "experiments.store", "Inside the rooms, too, imports go one way: experiments"),
        ("pages/fresh", "inputs", "Inside the rooms, too, imports go one way: pages"),
        ("bench/timing", "bench.compare", "Inside the rooms, too, imports go one way: bench"),
        ("pages/notebook", "pages.plots", "Only figures import plots"),
        ("features", "engine.replay", "The engine is private"),
        ("pages/notebook", "classroom.course", "The library does not know the classroom"),
    ],
)
def test_an_import_against_the_layering_is_found(tmp_path, module, imported, broken):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "advfeat", tmp_path / "advfeat", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "advfeat" / f"{module}.py").open("a") as file:
        file.write(f"\n\ndef late() -> None:\n    import advfeat.{imported}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{broken} BROKEN" in result.stdout


def assigned(tree):
    """Names that the top level of a module gives a value itself, rather than imports."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def sources():
    """The text of every Python file and of every notebook's code, by its place."""
    for folder in ("advfeat", "tests", "_ext"):
        yield from ((path.relative_to(ROOT), path.read_text()) for path in (ROOT / folder).rglob("*.py"))
    for path in (ROOT / "book").rglob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        yield path.relative_to(ROOT), "\n".join(line for cell in code for line in cell.splitlines() if line[:1] != "%")


def test_names_are_imported_from_the_module_that_defines_them():
    """Only the front door passes names on. Elsewhere a reader finds a definition where its import says."""
    own = {name: {*assigned(tree)} for name, tree in TREES.items()}
    lent = []
    for place, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module in own:
                lent += [f"{place}: {node.module}.{one.name}" for one in node.names if one.name not in own[node.module]]
    assert not lent, "\n".join(lent)


SHARED = {
    "main": "the command line of a module",
    "augment": "one thing, for a Dataset and as a kernel",
    "augment_step": "one thing, in PyTorch and in Triton",
    "l2_step": "one thing, in PyTorch and in Triton",
    "linf_step": "one thing, in PyTorch and in Triton",
    "refold": "one thing, of a classifier and of its layers",
    "number": "students' tests read a value by it, the library refuses one",
    "tensor": "students' tests read a value by it, the library refuses one",
}
"""Public names that two modules define, and why."""


def test_one_name_means_one_thing_in_all_modules():
    homes: dict[str, list[str]] = {}
    for module, tree in TREES.items():
        for name in {*assigned(tree)}:
            if not name.startswith("_") and name not in SHARED:
                homes.setdefault(name, []).append(module)
    assert not {name: modules for name, modules in homes.items() if len(modules) > 1}


def test_the_map_has_a_place_for_every_module():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [line for line in text.partition("| room |")[2].partition("Ten lines")[0].splitlines() if line[:1] == "|"]
    assert len(rows) <= 40, "a map is read on one page: group the rows"
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[3])}
    homeless = {"__init__", "__main__", "chapters"}  # the last is a former name of a command
    for path in MODULES:
        if path.parent.name != "classroom" and path.stem not in homeless and not path.stem.endswith("_figures"):
            assert path.stem in named, f"{path.relative_to(ROOT)} has no place in the map of CONTRIBUTING.md"


def test_no_file_for_everything_else():
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not [path for folder in ("advfeat", "tests") for path in (ROOT / folder).rglob("*.py") if path.stem in vague]


@each_module
def test_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@each_module
def test_shapes_are_strings(path):
    """``Float[Tensor, n * shape]`` without quotes is an unknown name, and is silently not checked."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in {"Bool", "Float", "Int", "Shaped", "UInt8"}:
            shape = node.slice.elts[1]
            assert isinstance(shape, ast.Constant), f"{path.name}:{node.lineno}"
            assert isinstance(shape.value, str), f"{path.name}:{node.lineno}"


def test_shapes_are_checked_while_testing():
    images = torch.zeros(2, 3, 4, 4)
    with pytest.raises(TypeCheckError, match="gradient"):
        fused_steps.linf_step(images, images, torch.zeros(2, 3, 4, 5), eps=0.1, step_size=0.1)


@each_module
def test_module_is_short(path):
    assert path.stem in EXEMPT or len(path.read_text().splitlines()) <= LONGEST


@each_module
def test_public_names_are_documented(path):
    missing = [name for name, node in public(ast.parse(path.read_text())) if not ast.get_docstring(node)]
    assert not missing, f"{path.name}: no docstring on {', '.join(missing)}"


@each_module
def test_bad_input_is_refused_by_more_than_an_assert(path):
    tree = ast.parse(path.read_text())
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not asserts, f"{path.name}: assert vanishes under -O, raise ValueError or TypeError; lines {asserts}"


@each_module
def test_nothing_is_swallowed_or_unpickled(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path.name}:{node.lineno} catches everything"
        # The error is there to be caught; its name alone loads nothing.
        harmless = isinstance(node, ast.ImportFrom) and ast.unparse(node) == "from pickle import UnpicklingError"
        if isinstance(node, ast.Import | ast.ImportFrom) and not harmless:
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            unsafe = {name.split(".")[0] for name in names} & {"pickle", "cPickle", "dill"}
            assert not unsafe, f"{path.name}:{node.lineno} unpickles"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec"}, f"{path.name}:{node.lineno}"
            if called in {"torch.load", "np.load"}:
                arguments = {word.arg: ast.unparse(word.value) for word in node.keywords}
                safe = arguments.get("weights_only") == "True" if called == "torch.load" else True
                assert safe, f"{path.name}:{node.lineno} can run code from a file: weights_only=True, or safetensors"


@each_module
def test_randomness_is_an_argument(path):
    tree = ast.parse(path.read_text())
    calls = {node: ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    # Layers draw their first weights from the global generator; a fork puts its state back afterwards.
    forks = [n for n in ast.walk(tree) if isinstance(n, ast.With) and "fork_rng" in ast.unparse(n.items[0])]
    local = {inner for fork in forks for inner in ast.walk(fork)}
    seeds = {"torch.manual_seed", "torch.cuda.manual_seed_all", "np.random.seed", "random.seed"}
    assert not [call.lineno for call, name in calls.items() if name in seeds and call not in local]
    kinds = ("rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal", "rand_like", "randn_like")
    draws = {f"torch.{kind}" for kind in kinds}
    for call, name in calls.items():
        given = {word.arg for word in call.keywords}
        assert name not in draws or "generator" in given or call in local, f"{path.name}:{call.lineno} draws globally"


@pytest.mark.parametrize(("cores", "jobs", "threads"), [(4, 8, 1), (4, 4, 1), (8, 3, 2), (2, 1, 2)])
def test_every_process_of_the_tests_has_a_thread(cores, jobs, threads):
    command = ["make", "-s", "--eval", "threads: ; @echo $(THREADS)", "threads", f"CORES={cores}", f"JOBS={jobs}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == threads


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-bench.txt"])
def test_constraints_name_released_default_builds(file):
    lines = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    for line in lines:
        name, _, version = line.partition("==")
        assert version, line
        assert "+" not in version, f"{line}: a local build is not to be had elsewhere"
        assert "/" not in line, f"{line}: names a place"
        assert not name.lower().startswith(("nvidia", "cuda", "triton")), f"{line}: torch brings its own"
