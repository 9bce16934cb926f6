"""Finding the example shop, and starting its services as anybody would."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import spoolproof
from spoolproof.testing.demo.backend import PAYMENTS, SALES, SERVICES, Backend
from spoolproof.testing.demo.processes import PROBE_SECONDS, Process
from spoolproof.testing.servers.ports import free_port, release_port

NEEDED = ("fastapi", "sqlalchemy", "aiosqlite", "asyncpg", "httpx", "uvicorn")
FILES = ("sales.py", "payments.py")
PREPARE_SECONDS = 60.0
ABSORBED = "consumer.duplicate_skipped"  #: what a consumer logs when the inbox drops a redelivery
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {"uvicorn.access": {"level": "WARNING"}},
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
    """The processes of one run."""

    def __init__(self, folder: Path, backend: Backend, lease_seconds: float) -> None:
        self._folder = folder
        self._backend = backend
        self._lease_seconds = lease_seconds
        self._path = find_shop()
        self._ports = {service: free_port() for service in SERVICES}
        self.url = f"http://127.0.0.1:{self._ports[SALES]}"
        log_settings = folder / "logging.json"
        log_settings.write_text(json.dumps(LOGGING))
        python = sys.executable
        address = ("--host", "127.0.0.1", "--port", str(self._ports[SALES]), "--log-config", str(log_settings))
        self.sales = self._process(
            SALES, [python, "-m", "uvicorn", "shop.sales:app", *address], f"{self.url}/health/live"
        )
        self.payments = self._process(
            PAYMENTS,
            [python, "-m", "spoolproof", "run", "shop.payments:service"],
            f"http://127.0.0.1:{self._ports[PAYMENTS]}/health/live",
        )

    @property
    def services(self) -> tuple[Process, Process]:
        """The processes faults are aimed at."""
        return self.sales, self.payments

    def prepare(self) -> None:
        """Make the tables, as a deployment does before it starts anything. Raises ShopMissing with the error."""
        for service in SERVICES:
            done = subprocess.run(
                [sys.executable, "-m", f"shop.{service}"],
                cwd=self._folder,
                env=self._environment(service),
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
            folder=self._folder,
            environment=self._environment(SALES),
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

    def _process(self, service: str, command: list[str], health_url: str) -> Process:
        return Process(
            service,
            command,
            folder=self._folder,
            environment=self._environment(service),
            health_url=health_url,
        )

    def _environment(self, service: str) -> dict[str, str]:
        inherited = dict(os.environ)
        path = os.pathsep.join(filter(None, (str(self._path), inherited.get("PYTHONPATH"))))
        own = {
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
            "SPOOLPROOF_DATA_DIR": str(self._folder),
            "SPOOLPROOF_STORE": self._backend.store_urls[service],
            "SPOOLPROOF_BROKER": self._backend.broker_url,
            "SPOOLPROOF_MIGRATE": "auto",
            "SPOOLPROOF_LEASE_SECONDS": f"{self._lease_seconds:g}",
        }
        if service == PAYMENTS:
            own["SPOOLPROOF_HEALTH_PORT"] = str(self._ports[PAYMENTS])
        return inherited | own
