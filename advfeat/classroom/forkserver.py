"""A process that has imported the libraries of submissions; kernels are forked from it, so that each starts at once.

The server listens on no address: requests come by a socket that only the two processes hold. (The fork server of
Python's multiprocessing has an address, by which a submission could ask it for an unrestricted process.) A lost server
is started again.
"""

from __future__ import annotations

import atexit
import dataclasses
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress

from advfeat.classroom.submission_kernel import Job, serve
from advfeat.engine.convolution_code import engine

# The modules that submissions import.
_PRELOADED = ("ipykernel.kernelapp", "matplotlib.pyplot", "psutil", "advfeat.classroom.course")
# Settings that libraries read when loaded: one thread, so that parallel submissions do not wait for each other.
LOADED_WITH = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
LOST = -1
"""Stands for an exit code: the guard ended before it could report one."""
_START = "import sys; sys.path[:] = {path!r}; from advfeat.classroom import forkserver; forkserver.main({socket})"
_ATTEMPTS = 3
_LARGEST_REQUEST = 1 << 20


class Guarded:
    """The guard of a kernel, with the methods of ``subprocess.Popen`` that a kernel's provisioner calls.

    ``told_to_end`` is whether the guard was told to end the kernel while the kernel still ran.
    """

    stdin = stdout = stderr = None

    def __init__(self, pid: int, report: int) -> None:
        self.pid = pid
        self.told_to_end = False
        self._report = report
        self._said = b""
        self._lock = threading.Lock()
        self._code: int | None = None
        os.set_blocking(report, False)

    def poll(self) -> int | None:
        """The kernel's exit code (128 + n if signal n ended it), or ``LOST``; None while the kernel runs."""
        with self._lock:
            while self._code is None:
                try:
                    said = os.read(self._report, 4096)
                except BlockingIOError:
                    return None
                self._said += said
                if not said:
                    os.close(self._report)
                    self._code = self._said[-1] if self._said[-2:-1] == b"\0" else LOST
            return self._code

    def wait(self, timeout: float | None = None) -> int | None:
        """The answer of ``poll`` once the guard has ended, or ``timeout`` seconds have passed."""
        import selectors

        with suppress(ValueError, KeyError, OSError), selectors.DefaultSelector() as ready:
            while self.poll() is None:
                ready.register(self._report, selectors.EVENT_READ)
                if not ready.select(timeout):
                    break
                ready.unregister(self._report)
        return self.poll()

    @property
    def problem(self) -> str:
        """Why the kernel did not start, once ``poll`` knows that the guard has ended."""
        return (self._said if self._code == LOST else self._said[:-2]).decode(errors="replace")

    def send_signal(self, number: int) -> None:
        """Interrupt the kernel (SIGINT), or end the kernel and all processes that it has started (any other signal)."""
        if self.poll() is None:
            ends = number != signal.SIGINT
            self.told_to_end = self.told_to_end or ends
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM if ends else signal.SIGINT)  # the guard survives, and ends the rest

    def kill(self) -> None:
        """End the kernel and all processes that it has started."""
        self.send_signal(signal.SIGTERM)

    terminate = kill


class ForkServer:
    """The server, as seen by the grader: starts kernels for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The server's process, if it was started."""
        return self._process.pid if self._process else None

    def start(self, job: Job) -> Guarded:
        """Fork a kernel that does ``job``.

        Raises:
            RuntimeError: the server was lost again and again.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                with suppress(OSError, EOFError):
                    return self._ask(job)
                self.end()
        raise RuntimeError(f"the process that kernels are forked from ended {_ATTEMPTS} times")

    def _ask(self, job: Job) -> Guarded:
        request = json.dumps(dataclasses.asdict(job)).encode() + b"\n"
        ours = self._running()
        read, write = os.pipe()
        try:
            sent = socket.send_fds(ours, [request], [write])
            ours.sendall(request[sent:])
            answer = b""
            while not answer.endswith(b"\n"):
                got = ours.recv(64)
                if not got:
                    raise EOFError
                answer += got
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        return Guarded(int(answer), read)

    def _running(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self.end()
        if self._socket is None:
            self._socket, theirs = socket.socketpair()
            with theirs:
                # The server has a session of its own: Ctrl-C reaches the grader only, which ends the others in order.
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START.format(path=sys.path, socket=theirs.fileno())],
                    env={**os.environ, **LOADED_WITH},
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
                atexit.register(self.end)
        return self._socket

    def end(self) -> None:
        """End the server and every kernel that it has forked."""
        atexit.unregister(self.end)
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._socket = None


def main(number: int) -> None:
    """The server: forks on request until the other end of the socket with this file number is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # guards report by themselves, so nothing waits for them
    for name in _PRELOADED:
        importlib.import_module(name)
    engine()  # compiled and loaded here, once: submissions have neither a compiler nor a cache that they could use
    with socket.socket(fileno=number) as requests:
        while True:
            request, files, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, 1)
            while not request.endswith(b"\n"):
                more = requests.recv(_LARGEST_REQUEST)
                if not more:
                    return
                request += more
            guard = os.fork()
            if not guard:
                requests.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                serve(Job(**json.loads(request)), files[0])
            os.close(files[0])
            requests.sendall(f"{guard}\n".encode())
