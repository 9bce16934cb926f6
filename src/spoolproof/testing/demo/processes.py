"""The processes of the shop: started, killed, frozen, and never left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1  #: prctl(2)
PROBE_SECONDS = 0.3
STOP_SECONDS = 15.0
_libc = ctypes.CDLL(None, use_errno=True)


class DidNotFire(RuntimeError):
    """A fault was ordered and did not happen: the run says nothing."""


def dies_with(parent_pid: int) -> Callable[[], None]:
    """Return what a child calls before exec so that the kernel kills it when its parent dies, however that dies."""

    def ask() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it died before we asked
            os._exit(1)

    return ask


class Process:
    """One process of the demo. Start it from the main thread: the kernel ties its life to the thread that made it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        health_url: str | None = None,
        takes_input: bool = False,
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._command = list(command)
        self._folder = folder
        self._environment = dict(environment)
        self._health_url = health_url
        self._takes_input = takes_input
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output is appended to its log."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE if self._takes_input else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # a session of its own: Ctrl-C is for the orchestrator, which ends everything in order
                start_new_session=True,
                preexec_fn=dies_with(os.getpid()),
            )

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs or was not started."""
        return None if self._process is None else self._process.poll()

    @property
    def is_running(self) -> bool:
        """Whether it runs; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL. Raises DidNotFire unless that is what ended it."""
        process = self._running()
        process.kill()
        if process.wait(STOP_SECONDS) != -signal.SIGKILL:
            raise DidNotFire(f"{self.name} ended with {process.returncode} before it could be killed")

    def freeze(self) -> None:
        """SIGSTOP. Raises DidNotFire unless it stands still."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS
        while _state(process.pid) != "T":
            if time.monotonic() > deadline:
                raise DidNotFire(f"{self.name} (pid {process.pid}) does not stand still after SIGSTOP")
            time.sleep(0.001)

    def thaw(self) -> None:
        """SIGCONT. Raises DidNotFire if it did not live through its freeze."""
        self._running().send_signal(signal.SIGCONT)

    def answers(self) -> bool:
        """Whether a probe is answered with 200 within 0.3 s; True for what has no health endpoint."""
        if self._health_url is None:
            return True
        try:
            with urllib.request.urlopen(self._health_url, timeout=PROBE_SECONDS) as response:
                return bool(response.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def stop(self) -> int | None:
        """SIGTERM, and SIGKILL when that takes too long; returns the exit code, None if it was never started."""
        process = self._process
        if process is None:
            return None
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def end(self) -> None:
        """SIGKILL, whatever it does; safe in every state."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.kill()
        self._process.wait()

    def tail(self, lines: int = 15) -> str:
        """Return the end of its log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise DidNotFire(f"{self.name} does not run (exit code {self.exit_code}):\n{self.tail()}")
        return self._process


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
