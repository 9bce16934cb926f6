"""A private RabbitMQ node.

Debian's wrapper on PATH drops to the user rabbitmq and insists on the machine's own directories; the script behind it
does neither, and works as any user. Everything the node would look up is named: cookie (through HOME), data, logs,
configuration, plugins, ports. With RUNNING_UNDER_SYSTEMD the script becomes the Erlang machine, so that the process we
start is the one we signal.

epmd, Erlang's name server, outlives the nodes that start it. We start our own in the foreground, on our own port,
before the node: the node finds it and starts none, and it dies with the rest of our processes.

RabbitMQ answers a declaration before it is on disk: Mnesia's log is flushed within 2 s, the directory of quorum queues
within 1 s. A node killed inside that window forgets the queue, and with it the confirmed messages in it. That is the
broker's promise, not ours; a test that kills calls `sync` after the declarations it wants to find again.

The default user guest has every right on every virtual host made here. No management plugin: `rabbitmqctl` serves.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from spoolproof.testing.servers.ports import accepts_connections
from spoolproof.testing.servers.process import START_SECONDS_MAX, PrivateServer, run, wait_until

SCRIPTS = Path("/usr/lib/rabbitmq/bin")  #: where Debian keeps the scripts behind its wrapper
NODE = "spoolproof@localhost"
LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"
SYNC = "mnesia:sync_log(), [ok = dets:sync(Table) || Table <- dets:all()], ok"
VHOST_NAME = re.compile(r"[\w.-]{1,200}")  #: goes into an Erlang expression as it is

CONFIGURATION = """
listeners.tcp.default = 127.0.0.1:{port}
loopback_users.guest = true
log.file.level = info
raft.wal_max_size_bytes = 64000000
"""


class RabbitMQServer(PrivateServer):
    """A RabbitMQ node on a free port. Up in 4 to 7 s; `url` is the virtual host `/`."""

    kind = "rabbitmq"

    def __init__(
        self, *, node: str = NODE, cookie: str | None = None, epmd_port: int | None = None, configuration: str = ""
    ) -> None:
        """cookie, epmd_port: those of a cluster, whose name server is not this node's to start. configuration: lines
        added to rabbitmq.conf."""
        super().__init__()
        self.node = node
        self.port = self._new_port()
        self._epmd_port = self._new_port() if epmd_port is None else epmd_port
        self._distribution_port = self._new_port()
        self._write_files(cookie or secrets.token_hex(16), configuration)
        self._env = self._environment()
        self._epmd = None if epmd_port is not None else self._new_process(*epmd(self._epmd_port), env=self._env)
        self._node = self._new_process("rabbitmq", str(SCRIPTS / "rabbitmq-server"), env=self._env)

    @classmethod
    def missing(cls) -> str | None:
        """Return why RabbitMQ cannot run here and the command that helps, or None when it can."""
        if sys.platform != "linux":
            return "private RabbitMQ nodes need Linux"
        if not (SCRIPTS / "rabbitmq-server").exists() or shutil.which("epmd") is None:
            return "RabbitMQ is not installed; run: sudo apt-get install rabbitmq-server"
        return None

    @property
    def url(self) -> str:
        """The AMQP address of the virtual host `/`."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """Return the AMQP address of a virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def create_vhost(self, name: str) -> str:
        """Make a virtual host (letters, digits, `_.-`) on which guest may do everything; return its address."""
        self.exchange_vhosts([name], [])
        return self.url_of(name)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with its queues; connections to it are closed. Fine if there is none."""
        self.exchange_vhosts([], [name])

    def exchange_vhosts(self, new: Sequence[str], old: Sequence[str]) -> None:
        """Make virtual hosts as `create_vhost` does and delete others, in one command: a start of `rabbitmqctl` costs
        half a second of processor."""
        deletes = (
            f'rabbit_vhost:exists({name}) andalso rabbit_vhost:delete({name}, <<"tests">>)' for name in _binaries(old)
        )
        makes = (
            f'rabbit_vhost:add({name}, <<"tests">>), rabbit_auth_backend_internal:set_permissions('
            f'<<"guest">>, {name}, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)'
            for name in _binaries(new)
        )
        self.rabbitmqctl("eval", ", ".join((*deletes, *makes, SYNC)) + ".", timeout=60)

    def sync(self) -> None:
        """Write every declaration made so far to disk, so that it survives `kill`."""
        self.rabbitmqctl("eval", f"{SYNC}.")

    def rabbitmqctl(self, *args: str, timeout: float = 30) -> str:
        """Run rabbitmqctl against this node and return what it printed. Raises ServerFailed when it fails."""
        command = [str(SCRIPTS / "rabbitmqctl"), "--quiet", "--node", self.node, *args]
        return run(command, env=self._env, timeout=timeout)

    def _start(self) -> None:
        if self._epmd is not None:
            self._epmd.start()
            wait_until(lambda: accepts_connections(self._epmd_port), START_SECONDS_MAX, "epmd listens")
        self._node.start()

    def _is_ready(self) -> bool:
        """Say whether the node opens an AMQP connection; its listener is the last thing it starts."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"  # a method frame: Connection.Start
        except OSError:
            return False

    def _stop(self) -> None:
        self._node.stop(signal.SIGTERM)
        if self._epmd is not None:
            self._epmd.stop(signal.SIGTERM)

    def _write_files(self, secret: str, configuration: str) -> None:
        cookie = self.directory / ".erlang.cookie"
        cookie.write_text(secret)
        cookie.chmod(0o400)  # Erlang refuses a cookie that others can read
        (self.directory / "rabbitmq.conf").write_text(CONFIGURATION.format(port=self.port) + configuration)
        (self.directory / "advanced.config").write_text("[].\n")
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "rabbitmq-env.conf").touch()

    def _environment(self) -> dict[str, str]:
        directory = self.directory
        inherited = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        return inherited | {
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
            # Two schedulers, bound to no CPU: bound ones of two servers would fight for the same one.
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 2:2 +A 4 {LOOPBACK_ONLY}",
            "RABBITMQ_CTL_ERL_ARGS": f"+S 1:1 {LOOPBACK_ONLY}",
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",  # any free one: several rabbitmqctl may run at once
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        }


def epmd(port: int) -> tuple[str, ...]:
    """Return name and command of an Erlang name server on a port."""
    return ("epmd", "epmd", "-port", str(port), "-address", "127.0.0.1")


def _binaries(names: Sequence[str]) -> Iterator[str]:
    return map(_erlang_binary, names)


def _erlang_binary(name: str) -> str:
    if not VHOST_NAME.fullmatch(name):
        raise ValueError(f"virtual host {name!r}: only letters, digits and _.- please")
    return f'<<"{name}">>'
