"""Run a notebook in a kernel of its own, and stop it when it takes too much.

A notebook that was stopped can be graded all the same: cells that had run keep their outputs, and every code cell from
there on holds an error that says what happened.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from nbformat import NotebookNode

from advfeat.classroom import kernel
from advfeat.classroom.executor import Executor
from advfeat.classroom.scratch import short_folder

KEPT_CHARACTERS = 20_000
"""Of what a cell prints, so many characters are kept."""

# What submissions import is imported once; each kernel is a fork of the process that has done it.
_PRELOADED = ["ipykernel.kernelapp", "matplotlib.pyplot", "advfeat.classroom.course", "advfeat.classroom.kernel"]
_CONNECTION = "kernel.json"
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
# Read when libraries are loaded: one thread, so that submissions side by side do not wait for each other.
_LOADED_WITH = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
_ENVIRONMENT = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """What one notebook may use.

    Attributes:
        cell: seconds for a single cell; then it is interrupted, and the next one runs.
        total: seconds for the whole notebook.
        memory: GiB for the kernel and whatever it starts.
        output: characters that all cells together may print or show.
    """

    cell: float = 60
    total: float = 180
    memory: float = 4
    output: int = 10_000_000


@dataclass(frozen=True)
class Outcome:
    """What became of a notebook: why it was stopped (empty if it was not) and the seconds it took."""

    stopped: str
    seconds: float


def run(
    notebook: NotebookNode,
    *,
    files: Path,
    limits: Limits,
    read: Sequence[Path],
    store: Path | None = None,
    keep_store: bool = False,
) -> Outcome:
    """Run ``notebook`` from top to bottom, in place, in a scratch folder that is removed afterwards.

    Several threads may do this side by side.

    Args:
        files: folder whose other files are copied to the scratch folder first.
        limits: what it may use.
        read: folders outside the scratch folder that it may read (see ``kernel.readable``).
        store: folder of trained networks to copy there, too; without, the notebook trains its own.
        keep_store: copy the networks back to ``store`` in the end, for those who come after. Not for submissions.

    Raises:
        RuntimeError: the kernel did not start.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="advfeat-", dir=short_folder(), ignore_cleanup_errors=True) as folder:
        scratch = Path(folder).resolve()
        shutil.copytree(files, scratch / "work", ignore=shutil.ignore_patterns("*.ipynb", ".*"))
        if store is not None and store.exists():
            shutil.copytree(store, scratch / "store")
        client = _Client(notebook, scratch, limits, read)
        try:
            asyncio.run(client.async_execute())
        finally:
            client.end()
        if store is not None and keep_store:
            shutil.copytree(scratch / "store", store, dirs_exist_ok=True)
    return Outcome(client.stopped, time.monotonic() - start)


def _server() -> ForkServerContext:
    """Starts the process that kernels are forked from, unless it runs already."""
    context = get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with _ENVIRONMENT:  # or a thread would take what another has set for what was there before
        before = {name: os.environ.get(name) for name in _LOADED_WITH}
        os.environ.update(_LOADED_WITH)
        try:
            from multiprocessing.forkserver import ensure_running

            usual, tempfile.tempdir = tempfile.tempdir, short_folder()  # where its socket goes
            try:
                ensure_running()
            finally:
                tempfile.tempdir = usual
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
    return context


class _Process:
    """A forked kernel with the methods of ``subprocess.Popen`` that its provisioner calls."""

    stdin = stdout = stderr = None

    def __init__(self, process: ForkServerProcess) -> None:
        process.start()
        self._process = process
        self.pid: int = process.pid or 0  # it has one, now that it runs

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()


class _Provisioner(LocalProvisioner):
    """Starts ``kernel.serve`` in a fork."""

    read: Sequence[Path] = ()

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> Any:  # noqa: ARG002
        scratch = Path(settings["cwd"])
        names = {"HOME": "home", "TMPDIR": "tmp", "ADVFEAT_STORE": "store", "IPYTHONDIR": "ipython"}
        places = {name: str(scratch / folder) for name, folder in names.items()}
        for place in places.values():
            Path(place).mkdir(exist_ok=True)
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment = {**kept, **places, **_LOADED_WITH, "ADVFEAT_PROGRESS": "off"}
        arguments = (scratch, scratch / _CONNECTION, scratch / "work", environment, self.read)
        process = _Process(_server().Process(target=kernel.serve, args=arguments, daemon=True))
        self.process, self.pid, self.cwd = process, process.pid, str(scratch)  # type: ignore[assignment]
        return self.connection_info


class _KernelManager(AsyncKernelManager):
    """A kernel without ports: it talks through files in its scratch folder."""

    def __init__(self, scratch: Path, read: Sequence[Path]) -> None:
        super().__init__(transport="ipc", connection_file=str(scratch / _CONNECTION))
        provisioner = _Provisioner(kernel_id=scratch.name, kernel_spec=self.kernel_spec, parent=self)
        provisioner.read = read
        self.provisioner = provisioner


class _Client(Executor):
    """Executes a notebook, watches its kernel, and goes on without it once it is gone."""

    def __init__(self, notebook: NotebookNode, scratch: Path, limits: Limits, read: Sequence[Path]) -> None:
        place = {"metadata": {"path": str(scratch)}}
        super().__init__(notebook, _KernelManager(scratch, read), seconds=limits.cell, resources=place)
        self.owns_km = True
        self.shutdown_kernel = "immediate"
        self.startup_timeout = 300
        self.limits = limits
        self._ended = threading.Event()
        self._seen: set[psutil.Process] = set()
        self._printed = self._kept = 0

    def end(self) -> None:
        """Stop watching, and kill what the notebook has started and left running."""
        self._ended.set()
        for process in self._seen:
            with suppress(psutil.Error):
                process.kill()

    async def async_start_new_kernel_client(self) -> Any:
        client = await super().async_start_new_kernel_client()
        provisioner: Any = self.km and self.km.provisioner
        threading.Thread(target=self._watch, args=(psutil.Process(provisioner.pid),), daemon=True).start()
        return client

    async def async_execute_cell(self, cell: NotebookNode, cell_index: int, *rest: Any, **named: Any) -> NotebookNode:
        self._kept = 0
        return await super().async_execute_cell(cell, cell_index, *rest, **named)

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        content = msg["content"]
        size = len(content.get("text", "")) + sum(len(str(value)) for value in content.get("data", {}).values())
        self._printed += size
        if self._printed > self.limits.output:
            self._stop(f"It printed or showed more than {self.limits.output:,} characters.")
        if msg["msg_type"] == "stream":
            room = KEPT_CHARACTERS - self._kept
            self._kept += size
            if room <= 0:
                return None
            if size > room:
                content["text"] = content["text"][:room] + "\n... and so on.\n"
        elif size > self.limits.output:
            return None
        return super().process_message(msg, cell, cell_index)

    def _watch(self, kernel: psutil.Process) -> None:
        deadline = time.monotonic() + self.limits.total
        while not self._ended.wait(0.2):
            used = 0
            with suppress(psutil.Error):
                for process in (kernel, *kernel.children(recursive=True)):
                    self._seen.add(process)
                    used += process.memory_info().rss
            if time.monotonic() > deadline:
                self._stop(f"The notebook took more than {self.limits.total:g} seconds.")
            if used > self.limits.memory * 1024**3:
                self._stop(f"It used more than {self.limits.memory:g} GiB of memory.")
            if self.stopped:
                with suppress(psutil.Error):
                    kernel.kill()
                return
