"""The conditions of every test: checked shapes, no progress bars, and a store of its own."""

from __future__ import annotations

import functools
import importlib.util
import os
import tempfile

import jaxtyping
import pytest
import torch
from jaxtyping import install_import_hook
from torch.fx import Proxy


def checked(function):
    """``function``, refusing arguments that its annotations do not allow.

    An int passes for a float, as PEP 484 has it. While torch.fx traces a network, stand-ins for tensors go through it;
    they have no shape to check.
    """
    from beartype import BeartypeConf, beartype

    strict = beartype(conf=BeartypeConf(is_pep484_tower=True))(function)

    @functools.wraps(function)
    def either(*arguments, **named):
        traced = any(isinstance(value, Proxy) for value in (*arguments, *named.values()))
        return (function if traced else strict)(*arguments, **named)

    return either


# Without a GPU Triton's kernels are interpreted, which is settled when Triton is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Before the first import of the library: from here on every call checks the shapes and types in its annotations. A
# machine with a GPU may lack the checker; test_layout fails without it, the tests of kernels need not.
if importlib.util.find_spec("beartype"):
    install_import_hook("advfeat", "conftest.checked")


GIVEN_STORE = os.environ.get("ADVFEAT_STORE")


def pytest_configure(config: pytest.Config) -> None:
    """Point the library away from the user's store and terminal, also for fixtures that live for the whole session."""
    folder = tempfile.TemporaryDirectory(prefix="advfeat-store-")
    config.add_cleanup(folder.cleanup)
    os.environ["ADVFEAT_STORE"] = folder.name
    if "PYTEST_XDIST_WORKER" not in os.environ:  # compiled once for all processes of a session
        os.environ["ADVFEAT_COMPILED"] = f"{folder.name}/compiled"
    os.environ["ADVFEAT_PROGRESS"] = "off"


@pytest.fixture(autouse=True)
def empty_store(tmp_path_factory, monkeypatch):
    """An empty store for each test, so that none passes on the work of another one."""
    folder = tmp_path_factory.mktemp("store")
    monkeypatch.setenv("ADVFEAT_STORE", str(folder))
    return folder


@pytest.fixture
def store_of_the_book(monkeypatch):
    """The store that the command line named, where `make test` has just run the chapters."""
    if not GIVEN_STORE:
        pytest.skip("ADVFEAT_STORE names no store that the chapters have filled")
    monkeypatch.setenv("ADVFEAT_STORE", GIVEN_STORE)


@pytest.fixture
def figures_in_style():
    """The chapters' style for figures, which are closed afterwards; none is too wide, or has too small letters."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.text import Text

    from advfeat.pages import identity, plots

    with mpl.rc_context():
        plots.use_style()
        yield
    for number in plt.get_fignums():
        figure = plt.figure(number)
        assert figure.get_figwidth() <= identity.WIDEST + 1e-9, "a phone would show its letters too small"
        small = {text.get_text() for text in figure.findobj(Text) if text.get_fontsize() < identity.SMALLEST - 0.5}
        assert not small - {""}, "nobody can read that on a phone"
    plt.close("all")


@pytest.fixture
def restored_threads():
    """A test may set PyTorch's threads; afterwards there are as many as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def compiled_convolutions():
    """The tests of a module need the compiled convolutions, and are skipped where nothing compiles them."""
    from advfeat.engine import convolution_code

    if convolution_code.engine().name != "winograd":
        pytest.skip(convolution_code.engine().why)


@pytest.fixture
def empty_book(tmp_path, monkeypatch):
    """An empty book in a folder of its own, and an environment that a command may change."""
    from advfeat.pages import build, chapter_files, environment, runner, staging

    root = build.CHECKOUT
    for module in (build, chapter_files, runner, staging):
        for name in ("CHECKOUT", "BOOK", "RUNS", "STAGE", "LABELS"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, tmp_path / getattr(module, name).relative_to(root))
    for name in (*environment.ALLOCATOR, "JUPYTER_PREFER_ENV_PATH", "PYTHONUTF8", "ADVFEAT_PROGRESS"):
        monkeypatch.setenv(name, "off" if name == "ADVFEAT_PROGRESS" else "1")
    chapter_files.BOOK.mkdir()
    return chapter_files.BOOK


@pytest.fixture
def unchecked_types():
    """As for a reader: annotations are not checked outside of the tests, so the library's own messages appear."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason, tests that need the real CIFAR-10 or a GPU."""
    missing = {
        "cifar10": "" if os.environ.get("ADVFEAT_DATA") else "ADVFEAT_DATA does not name a folder with CIFAR-10",
        "gpu": "" if torch.cuda.is_available() else "PyTorch sees no CUDA device",
    }
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
