"""A private PgBouncer in transaction mode, before a private PostgreSQL.

It refuses to run as root: then it runs as nobody. Its pool is small, so that statements that need a session to last
meet another server connection at once.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sys

from spoolproof.testing.servers.ports import accepts_connections
from spoolproof.testing.servers.postgres import UNPRIVILEGED, USER, PostgresServer
from spoolproof.testing.servers.process import PrivateServer

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={postgres_port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 5
max_client_conn = 500
server_round_robin = 1
"""


class PgBouncerServer(PrivateServer):
    """A PgBouncer on a free port. Every database of `postgres` is behind it, under the same name."""

    kind = "pgbouncer"

    def __init__(self, postgres: PostgresServer) -> None:
        super().__init__()
        self.port = self._new_port()
        self._account = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        configuration = self.directory / "pgbouncer.ini"
        configuration.write_text(CONFIGURATION.format(port=self.port, postgres_port=postgres.port, user=USER))
        if self._account is not None:
            self.directory.chmod(0o711)
        env = {"PATH": _PATH, "LC_ALL": "C", "TZ": "UTC"}
        command = shutil.which("pgbouncer", path=_PATH)
        assert command is not None  # `missing` looked
        self._pgbouncer = self._new_process("pgbouncer", command, str(configuration), env=env)

    @classmethod
    def missing(cls) -> str | None:
        """Return why PgBouncer cannot run here and the command that helps, or None when it can."""
        if sys.platform != "linux":
            return "private PgBouncer servers need Linux"
        if shutil.which("pgbouncer", path=_PATH) is None:
            return "PgBouncer is not installed; run: sudo apt-get install pgbouncer"
        return None

    @property
    def url(self) -> str:
        """The address of the database `postgres` through PgBouncer."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the address of a database through PgBouncer."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def _start(self) -> None:
        if self._account is None:
            self._pgbouncer.start()
        else:
            self._pgbouncer.start(user=self._account.pw_name, group=self._account.pw_gid)

    def _is_ready(self) -> bool:
        return accepts_connections(self.port)

    def _stop(self) -> None:
        self._pgbouncer.stop(signal.SIGTERM)


_PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"  #: Debian keeps it where users do not look
