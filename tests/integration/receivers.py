"""Starts, kills, freezes and questions the receiver of webhooks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Self

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


class Receiver:
    """Keeps its port and its file when it is killed and started again."""

    def __init__(self, folder: Path, *secrets: str) -> None:
        self._file = folder / "received.jsonl"
        self._secrets = secrets or (SECRET,)
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self) -> None:
        script = Path(__file__).with_name("webhook_receiver.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(self.port), str(self._file), *self._secrets],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def url(self, path: str) -> str:
        return f"http://localhost:{self.port}/{path}"

    def received(self, path: str = "") -> list[dict[str, Any]]:
        """Return what came, in order; without what it died over, which it has answered nobody."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        whole = [json.loads(line) for line in lines if line.endswith("}") and line.rfind('{"path"') == 0]
        return [line for line in whole if line["path"].startswith(f"/{path}")]

    def numbers(self, path: str = "") -> Counter[int]:
        """Return how often each event came."""
        return Counter(line["body"]["data"]["n"] for line in self.received(path))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
