"""A private server: a directory, its processes, and the certainty that they end.

Signals go to the whole tree of a process, found through /proc: PostgreSQL's backends and Erlang's port programs start
sessions of their own, so a process group reaches only the first process. A tree is frozen from the top before it is
listed; what is stopped cannot fork past us.

Three things end a server:
- `close`, or the `with` block around it;
- the end of the interpreter (`atexit`), but not of a forked child, which inherits the list and not the right;
- the guard, a small shell in a session of its own. It reads a pipe that only this process can write to. End of file
  without a farewell means this process was killed: the guard kills the trees named by the `*.guarded` files in the
  directory, then removes the directory and the 56 bytes of shared memory that a killed PostgreSQL leaves.
  PR_SET_PDEATHSIG is not used: it follows the thread that started the server, not the process, and is not inherited
  by what the server starts.

Here it is allowed to block, to sleep and to read the clock: callers are test fixtures and commands, never a service.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from spoolproof.testing.servers.ports import free_port, release_port

POLL_SECONDS = 0.02
START_SECONDS_MAX = 50.0  #: RabbitMQ needs 4 to 7 s on an idle machine; a shared one may be several times slower
STOP_SECONDS_MAX = 20.0  #: after that a graceful stop becomes a kill
LOG_LINES_SHOWN = 40

GUARD = """
tree() { echo "$1"; for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done; }
read -r farewell && exit 0
segment=$(awk 'NR == 7 { print $2 }' "$1"/data/postmaster.pid 2>/dev/null)
for file in "$1"/*.guarded; do
  [ -e "$file" ] && kill -KILL $(tree "$(cat "$file")") 2>/dev/null
done
[ -n "$segment" ] && ipcrm -m "$segment" 2>/dev/null
tries=0
while [ -e "$1" ] && [ $tries -lt 50 ]; do rm -rf "$1" 2>/dev/null; tries=$((tries + 1)); done
"""

#: Writes the process id where the guard finds it, then becomes the server.
GUARDED_EXEC = 'echo $$ > "$0"; exec "$@"'


class ServerFailed(RuntimeError):
    """A private server did not do what it was told; the message quotes the end of its logs."""


class ServerProcess:
    """One process of a private server, and all that it starts."""

    def __init__(self, name: str, command: Sequence[str], *, directory: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log_file = directory / f"{name}.log"
        self._command = list(command)
        self._env = dict(env)
        self._guarded_file = directory / f"{name}.guarded"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, user: str | None = None, group: int | None = None) -> None:
        """Start the process in a session of its own, its output appended to the log file."""
        # The child may have no right to the directory: its file is there before it, and belongs to it.
        self._guarded_file.touch()
        if user is not None:
            shutil.chown(self._guarded_file, user)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", GUARDED_EXEC, str(self._guarded_file), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._directory,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )

    @property
    def pid(self) -> int | None:
        """The process id, or None when it does not run."""
        return self._process.pid if self._process is not None and self.is_running() else None

    def is_running(self) -> bool:
        """Say whether the process exists; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    def tree(self) -> list[int]:
        """Return the ids of the process and everything below it, parents first; empty when it does not run."""
        return [] if self.pid is None else list(_tree(self.pid))

    def freeze(self) -> None:
        """Stop the whole tree with SIGSTOP, top first."""
        for pid in _tree(self.pid) if self.pid else ():
            _send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the whole tree with SIGCONT, top last."""
        for pid in reversed(self.tree()):
            _send(pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the whole tree with SIGKILL and wait until all of it is gone."""
        self.freeze()
        pids = self.tree()
        for pid in pids:
            _send(pid, signal.SIGKILL)
        self._forget()
        wait_until(lambda: not any(_exists(pid) for pid in pids), STOP_SECONDS_MAX, f"{self.name} ends when killed")

    def stop(self, signum: int, *, timeout: float = STOP_SECONDS_MAX) -> None:
        """Ask the process to end, and kill it after `timeout` seconds. Does nothing when it does not run."""
        if self._process is None or not self.is_running():
            self._forget()
            return
        pids = self.tree()
        self.thaw()
        _send(self._process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
            with contextlib.suppress(ServerFailed):
                wait_until(lambda: not any(_exists(pid) for pid in pids), 5, "its children end with it")
        if self.is_running():
            self.kill()
        for pid in pids:
            if _exists(pid):
                _send(pid, signal.SIGKILL)
        self._forget()

    def _forget(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None
        self._guarded_file.unlink(missing_ok=True)


class PrivateServer(ABC):
    """What RabbitMQ and PostgreSQL have in common: start, stop, kill, freeze, and an end that always comes."""

    kind: str  #: part of the directory's name

    def __init__(self) -> None:
        missing = self.missing()
        if missing is not None:
            raise ServerFailed(missing)
        self.directory = Path(tempfile.mkdtemp(prefix=f"spoolproof-{self.kind}-"))
        self._owner_pid = os.getpid()
        self._is_closed = False
        self._processes: list[ServerProcess] = []  #: the main one last
        self._ports: list[int] = []
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "spoolproof-guard", str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self.close)

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return why this server cannot run here and the command that helps, or None when it can."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The address of the default virtual host or database."""

    @abstractmethod
    def _start(self) -> None:
        """Start what does not run; must not wait for the main process."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Say whether the server answers its own protocol."""

    @abstractmethod
    def _stop(self) -> None:
        """End all processes gracefully."""

    def start(self) -> None:
        """Start, or thaw, and wait until the server answers. Does nothing when it already does.

        Raises ServerFailed with the end of its logs if it does not answer within START_SECONDS_MAX.
        """
        if self._is_closed:
            raise ServerFailed(f"this {self.kind} server is closed; make a new one")
        self.thaw()
        if not self.is_running():
            self.kill()  # what is left of a half-dead server would keep its ports
            self._start()
        main = self._processes[-1]
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._is_ready():
            if not main.is_running() or time.monotonic() > deadline:
                state = "does not answer" if main.is_running() else "ended"
                logs = self.logs()
                self.kill()
                raise ServerFailed(f"{self.kind} {state} instead of starting\n{logs}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End gracefully; data and ports stay. Does nothing when it does not run."""
        self.thaw()
        self._stop()

    def kill(self) -> None:
        """SIGKILL every process at once; data and ports stay. Does nothing when it does not run."""
        for process in reversed(self._processes):
            process.kill()

    def restart(self) -> None:
        """Stop gracefully and start again on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP every process: connections stay open and nothing answers."""
        for process in reversed(self._processes):
            process.freeze()

    def thaw(self) -> None:
        """SIGCONT every process."""
        for process in self._processes:
            process.thaw()

    def is_running(self) -> bool:
        """Say whether all processes exist; frozen ones do."""
        return all(process.is_running() for process in self._processes)

    def pids(self) -> list[int]:
        """Return the ids of all processes of this server, without the guard."""
        return [pid for process in self._processes for pid in process.tree()]

    def logs(self) -> str:
        """Return the last lines of every log file of this server."""
        return "\n".join(_last_lines(file) for file in sorted(self.directory.rglob("*.log")))

    def close(self) -> None:
        """Kill the server and remove its data. May be called twice; does nothing in a forked child."""
        if self._is_closed or os.getpid() != self._owner_pid:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        try:
            self._end()
        finally:
            assert self._guard.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(b"farewell\n")
                self._guard.stdin.close()
            self._guard.wait()
            shutil.rmtree(self.directory, ignore_errors=True)
            for port in self._ports:
                release_port(port)

    def _new_port(self) -> int:
        port = free_port()
        self._ports.append(port)
        return port

    def _new_process(self, name: str, *command: str, env: Mapping[str, str]) -> ServerProcess:
        process = ServerProcess(name, command, directory=self.directory, env=env)
        self._processes.append(process)
        return process

    def _end(self) -> None:
        """End all processes as fast as possible; overridden where a kill leaves something behind."""
        self.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Poll until `condition` holds. Raises ServerFailed naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailed(f"waited {timeout:g} s in vain until {what}")
        time.sleep(POLL_SECONDS)


def run(command: Sequence[str], *, env: Mapping[str, str], timeout: float = 30) -> str:
    """Run a server's own tool and return its output. Raises ServerFailed with its output when it fails."""
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, env=dict(env), timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise ServerFailed(f"{command[0]} gave no answer within {timeout:g} s") from error
    if done.returncode != 0:
        raise ServerFailed(f"{' '.join(command)} failed with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and everything below it, each before its children are looked up."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield from _tree(int(child))


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def _exists(pid: int) -> bool:
    """Say whether a process runs; a zombie waiting for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _last_lines(file: Path) -> str:
    with contextlib.suppress(OSError):
        lines = file.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join([f"--- {file.name}", *lines])
    return f"--- {file.name} cannot be read"
