"""A private Redis. It keeps what it holds in an append-only file that is flushed once a second: killed, it may have
forgotten the last one.

`replica_of` makes one that only reads. `ask` speaks to it as `redis-cli` does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

from spoolproof.testing.servers.process import PrivateServer, run


class RedisServer(PrivateServer):
    """A Redis on a free port of 127.0.0.1. options: more of its command line, as `--maxmemory 2mb`."""

    kind = "redis"

    def __init__(self, *options: str) -> None:
        super().__init__()
        self.port = self._new_port()
        self.password = ""
        inherited = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
        command = ("redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory))
        keeps = ("--appendonly", "yes", "--save", "", "--repl-diskless-sync-delay", "0")
        self._env = inherited | {"HOME": str(self.directory), "LC_ALL": "C"}
        self._server = self._new_process("redis", *command, *keeps, *options, env=self._env)

    @classmethod
    def replica_of(cls, primary: RedisServer) -> RedisServer:
        """Return one, not started, that follows another and takes no writes of its own."""
        return cls("--replicaof", "127.0.0.1", str(primary.port))

    @classmethod
    def missing(cls) -> str | None:
        """Return why Redis cannot run here and the command that helps, or None when it can."""
        if sys.platform != "linux":
            return "private Redis servers need Linux"
        if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
            return "Redis is not installed; run: sudo apt-get install redis-server"
        return None

    @property
    def url(self) -> str:
        """The address of its database 0."""
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def ask(self, *command: str) -> str:
        """Return what it answers to a command. Raises ServerFailed."""
        told = {"REDISCLI_AUTH": self.password} if self.password else {}
        return run(["redis-cli", "-p", str(self.port), *command], env=self._env | told).strip()

    def forget(self) -> None:
        """Start again with nothing of what it held."""
        self.kill()
        shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)
        self.start()

    def _start(self) -> None:
        self._server.start()

    def _is_ready(self) -> bool:
        try:
            return self.ask("PING") == "PONG" and "loading:0" in self.ask("INFO", "persistence")
        except (OSError, RuntimeError, subprocess.SubprocessError):
            return False

    def _stop(self) -> None:
        self._server.stop(signal.SIGTERM)
