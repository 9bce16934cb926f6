"""Finding the example shop, and starting its services as anybody would."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import spoolproof
from spoolproof.testing.demo.backend import PAYMENTS, SALES, SERVICES, Backend
from spoolproof.testing.demo.processes import PROBE_SECONDS, Process
from spoolproof.testing.servers.ports import free_port, release_port

NEEDED = ("fastapi", "asyncpg", "httpx", "uvicorn")
FILES = ("sales.py", "payments.py", "products.py", "delivery.py")
PROCESSES = (*SERVICES, "products", "delivery")
PREPARE_SECONDS = 60.0
ABSORBED = "consumer.duplicate_skipped"  #: what a consumer logs when the inbox drops a redelivery
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {name: {"level": "WARNING"} for name in ("uvicorn.access", "httpx")},
}


class ShopMissing(RuntimeError):
    """The shop cannot run here; the message names what is missing and what to do."""


def find_shop() -> Path:
    """Return the folder that holds the package `shop`: of a checkout, or the wheel's copy. Raises ShopMissing."""
    package = Path(spoolproof.__file__).parent
    places = [package.parent.parent / "examples", package / "_examples"]
    for place in places:
        if all((place / "shop" / name).is_file() for name in FILES):
            return place
    shown = " nor in ".join(str(place / "shop") for place in places)
    raise ShopMissing(f"the example shop ({', '.join(FILES)}) is neither in {shown}; install spoolproof from its wheel")


def check_packages() -> None:
    """Raises ShopMissing naming every package the shop imports and cannot find."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ShopMissing(f"{', '.join(missing)} not installed; run: pip install 'spoolproof[demo]'")


class Shop:
    """The processes of one run. A stand-in whose address the environment names (`PRODUCTS_URL`) is not started."""

    def __init__(self, folder: Path, backend: Backend, lease_seconds: float) -> None:
        self.folder = folder
        self._backend = backend
        self._lease_seconds = lease_seconds
        self._path = find_shop()
        self._ports = {name: free_port() for name in PROCESSES}
        self._urls = {f"{name.upper()}_URL": f"http://127.0.0.1:{port}" for name, port in self._ports.items()}
        self.url = self.url_of(SALES)
        (folder / "logging.json").write_text(json.dumps(LOGGING))
        self._started = {name: self._process(name) for name in PROCESSES if f"{name.upper()}_URL" not in os.environ}
        self.sales, self.payments = self._started[SALES], self._started[PAYMENTS]

    @property
    def services(self) -> Sequence[Process]:
        """The processes faults are aimed at."""
        return tuple(self._started.values())

    def url_of(self, name: str) -> str:
        """Return where a process of that name listens."""
        return self._urls[f"{name.upper()}_URL"]

    def prepare(self) -> None:
        """Make the tables, as a deployment does before it starts anything. Raises ShopMissing with the error."""
        for service in SERVICES:
            done = subprocess.run(
                [sys.executable, "-m", f"shop.{service}"],
                cwd=self.folder,
                env=self.environment(service),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PREPARE_SECONDS,
                check=False,
            )
            if done.returncode != 0:
                raise ShopMissing(f"python -m shop.{service} failed with {done.returncode}:\n{done.stderr[-2000:]}")

    def clients(self, ledger: Path, seed: int, orders: int, per_second: float) -> Process:
        """Return the customers, not started."""
        arguments = (self.url, str(ledger), str(seed), str(orders), str(per_second))
        return Process(
            "clients",
            [sys.executable, "-m", "spoolproof.testing.demo.clients", *arguments],
            folder=self.folder,
            environment=self.environment(SALES),
            takes_input=True,
        )

    def is_away(self, dependency: str) -> bool:
        """Whether sales' own health says that a dependency is away."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=PROBE_SECONDS) as response:
                return json.load(response).get(dependency) is False
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error).get(dependency) is False
        except OSError:
            return True

    def absorbed(self) -> int:
        """Return how many redeliveries the inboxes dropped, by the services' logs."""
        return sum(process.log_path.read_text(errors="replace").count(ABSORBED) for process in self.services)

    def close(self) -> None:
        """Give the ports back."""
        for port in self._ports.values():
            release_port(port)

    def environment(self, service: str) -> dict[str, str]:
        """Return what a process of a service finds in its environment."""
        inherited = dict(os.environ)
        path = os.pathsep.join(filter(None, (str(self._path), inherited.get("PYTHONPATH"))))
        own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **self._urls, **inherited}
        own["PYTHONPATH"] = path
        if service in SERVICES:
            own |= {
                "SPOOLPROOF_DATA_DIR": str(self.folder),
                "SPOOLPROOF_STORE": self._backend.store_urls[service],
                "SPOOLPROOF_BROKER": self._backend.broker_url,
                "SPOOLPROOF_MIGRATE": "auto",
                "SPOOLPROOF_LEASE_SECONDS": f"{self._lease_seconds:g}",
            }
        return own

    def _process(self, name: str) -> Process:
        address = ("--host", "127.0.0.1", "--port", str(self._ports[name]))
        settings = ("--log-config", str(self.folder / "logging.json"))
        return Process(
            name,
            [sys.executable, "-m", "uvicorn", f"shop.{name}:app", *address, *settings],
            folder=self.folder,
            environment=self.environment(name),
            health_url=f"http://127.0.0.1:{self._ports[name]}/{'health/live' if name in SERVICES else 'health'}",
        )
