"""A private SQS and SNS: moto's server, which keeps everything in memory. Killed and started again, it has forgotten
all of it. Keys are not looked at; each test has a prefix of its own.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from urllib.parse import quote
from urllib.request import urlopen

from spoolproof.testing.servers.process import PrivateServer

REGION = "eu-west-1"


class MotoServer(PrivateServer):
    """SQS and SNS on a free port of 127.0.0.1."""

    kind = "moto"

    def __init__(self) -> None:
        super().__init__()
        self.port = self._new_port()
        inherited = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))
        self._server = self._new_process("moto", *command, env=inherited | {"HOME": str(self.directory)})

    @classmethod
    def missing(cls) -> str | None:
        """Return why moto cannot run here and the command that helps, or None when it can."""
        if sys.platform != "linux":
            return "private moto servers need Linux"
        if find_spec("moto") is None or find_spec("flask_cors") is None:
            return "moto is not installed; run: pip install moto flask flask-cors"
        return None

    @property
    def endpoint(self) -> str:
        """The address of its HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """A broker's URL for names without a prefix."""
        return self.url_of("")

    def url_of(self, prefix: str, *, wait_seconds: int = 1) -> str:
        """Return a broker's URL for names that begin with `prefix`."""
        query = f"endpoint={quote(self.endpoint, safe='')}&prefix={prefix}&wait={wait_seconds}"
        return f"sqs://test:test@{REGION}?{query}"

    def _start(self) -> None:
        self._server.start()

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"{self.endpoint}/moto-api/", timeout=1):
                return True
        except OSError:
            return False

    def _stop(self) -> None:
        self._server.stop(signal.SIGTERM)
