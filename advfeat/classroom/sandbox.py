"""Run a notebook in a kernel of its own, and stop it at its limits.

A stopped notebook can still be graded: cells that had run keep their outputs, and every later code cell holds an error
with the reason.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from nbformat import NotebookNode

from advfeat.classroom import isolation
from advfeat.classroom.executor import Executor
from advfeat.classroom.forkserver import LOST, Guarded
from advfeat.classroom.limits import Limits, disk_used, memory_used

KEPT_CHARACTERS = 20_000
"""The most characters of a cell's printed output that are kept."""

_KILLED = 128 + 9
_GRACE = 15.0  # seconds that a guard has to end its kernel


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: why the notebook was stopped (empty if it was not) and the seconds that it took.

    ``killed`` is whether the kernel was killed by the system or by another process, not at a limit.
    """

    stopped: str
    seconds: float
    killed: bool = False


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
        limits: the limits of the notebook.
        read: folders outside the scratch folder that the notebook may read (see ``submission_kernel.readable``).
        store: folder of trained networks that are copied to the scratch folder, too; None: the notebook trains its own.
        keep_store: copy the networks back to ``store`` at the end, for later notebooks. Not for submissions.

    Raises:
        Lost: the process that guarded the kernel, or forked it, ended before the notebook did.
        RuntimeError: the kernel did not start.
    """
    start = time.monotonic()
    with isolation.scratch_folder() as scratch:
        shutil.copytree(files, scratch / "work", ignore=shutil.ignore_patterns("*.ipynb", ".*"))
        if store is not None and store.exists():
            shutil.copytree(store, scratch / "store", dirs_exist_ok=True)
        client = _Client(notebook, scratch, limits, read)
        try:
            asyncio.run(client.async_execute())
        finally:
            client.end()
        if store is not None and keep_store:
            shutil.copytree(scratch / "store", store, dirs_exist_ok=True)
    return Outcome(client.stopped, time.monotonic() - start, client.killed)


class _Provisioner(LocalProvisioner):
    """Starts ``submission_kernel.serve`` in a fork."""

    read: Sequence[Path] = ()
    guarded: Guarded | None = None

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> Any:  # noqa: ARG002
        scratch = Path(settings["cwd"])
        job = isolation.job(
            scratch, self.read, work=scratch / "work", isolated=not isolation.why_not_isolated(tuple(self.read))
        )
        self.guarded = process = isolation.SERVER.start(job)
        self.process, self.pid, self.cwd = process, process.pid, str(scratch)  # type: ignore[assignment]
        return self.connection_info


class _KernelManager(AsyncKernelManager):
    """A kernel without ports: it talks through files in its scratch folder."""

    provisioner: _Provisioner

    def __init__(self, scratch: Path, read: Sequence[Path]) -> None:
        super().__init__(transport="ipc", connection_file=str(scratch / isolation.CONNECTION))
        provisioner = _Provisioner(kernel_id=scratch.name, kernel_spec=self.kernel_spec, parent=self)
        provisioner.read = read
        self.provisioner = provisioner


class _Client(Executor):
    """Executes a notebook, watches its kernel, and goes on without the kernel once it is gone."""

    def __init__(self, notebook: NotebookNode, scratch: Path, limits: Limits, read: Sequence[Path]) -> None:
        manager = _KernelManager(scratch, read)
        place = {"metadata": {"path": str(scratch)}}
        super().__init__(notebook, manager, seconds=limits.cell, resources=place)
        self._provisioner = manager.provisioner
        self._scratch = scratch
        self.owns_km = True
        self.shutdown_kernel = "immediate"
        self.startup_timeout = 300
        self.limits = limits
        self.killed = False
        self._ended = threading.Event()
        self._seen: set[psutil.Process] = set()
        self._printed = self._kept = 0

    def end(self) -> None:
        """Stop watching, kill the processes that the notebook left running, and find out how its kernel ended.

        Raises:
            Lost: the process that guards the kernel ended unexpectedly.
            RuntimeError: the kernel did not start.
        """
        self._ended.set()
        atexit.unregister(self._cleanup_kernel)  # it would try to end the kernel once more at exit
        guarded = self._provisioner.guarded
        if guarded is None:
            return
        guarded.kill()
        code = guarded.wait(_GRACE)
        for process in self._seen:  # the guard may be lost, or may not have seen all of them
            with suppress(psutil.Error):
                process.kill()
        if guarded.problem:
            raise RuntimeError(guarded.problem)
        if code == LOST and not guarded.told_to_end:
            raise isolation.Lost("the process that guarded its kernel was lost")
        self.killed = code == _KILLED and not guarded.told_to_end

    async def async_start_new_kernel_client(self) -> Any:
        client = await super().async_start_new_kernel_client()
        threading.Thread(target=self._watch, args=(self._provisioner.guarded,), daemon=True).start()
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

    def _watch(self, guarded: Guarded) -> None:
        """Watch the notebook until it has ended; kill it at a limit, or if its use cannot be measured."""
        try:
            self._hold_to_limits(guarded)
        except Exception as error:  # noqa: BLE001 - nothing that a notebook does may leave it unwatched
            self._stop(f"Its use of time, memory and disk could not be measured: {type(error).__name__}.")
        if self.stopped:
            guarded.kill()

    def _hold_to_limits(self, guarded: Guarded) -> None:
        deadline = time.monotonic() + self.limits.total
        looks = 0
        while not self._ended.wait(0.2):
            used, running = 0, []
            with suppress(psutil.Error):
                guard = psutil.Process(guarded.pid)
                running = [guard, *guard.children(recursive=True)]
                self._seen.update(running)
                used = memory_used(running, self.limits.memory * 1024**3)
            if time.monotonic() > deadline:
                self._stop(f"The notebook took more than {self.limits.total:g} seconds.")
            if used > self.limits.memory * 1024**3:
                self._stop(f"It used more than {self.limits.memory:g} GiB of memory.")
            if len(running) > self.limits.processes:
                self._stop(f"It had more than {self.limits.processes} processes at a time.")
            looks += 1
            if looks % 5 == 0 and disk_used(self._scratch) > self.limits.disk * 1024**3:
                self._stop(f"It wrote more than {self.limits.disk:g} GiB of files.")
            if self.stopped:
                return
