"""A receiver of webhooks in a process of its own, which another library verifies.

`webhook_receiver.py PORT FILE SECRET…` prints its port (PORT may be 0). What comes is written to FILE as JSON lines
before it is answered; the path says how: /ok, /redirect, /huge (gigabytes), /hang, /slow (a byte at a time), or a
status; /once/STATUS answers the second attempt of an id with 200.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

FILE, SECRETS = Path(sys.argv[2]), sys.argv[3:]
seen: set[str] = set()


def verified(body: bytes, headers: dict[str, str]) -> list[bool]:
    found = []
    for secret in SECRETS:
        try:
            Webhook(secret).verify(body, headers)
            found.append(True)
        except WebhookVerificationError:
            found.append(False)
    return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = dict(self.headers.items())
        id = self.headers["webhook-id"]
        line = {
            "path": self.path,
            "id": id,
            "verified": verified(body, headers),
            "body": json.loads(body),
            "host": self.headers["host"],
            "timestamp": int(self.headers["webhook-timestamp"]),
        }
        with FILE.open("a") as file:
            file.write(json.dumps(line) + "\n")
        _, kind, *more = self.path.partition("?")[0].split("/")
        if kind == "once":
            kind = "ok" if id in seen else more[0]
            seen.add(id)
        self.answer(kind)

    def do_GET(self) -> None:
        with FILE.open("a") as file:
            file.write(json.dumps({"path": self.path, "followed": True}) + "\n")
        self.answer("ok")

    def answer(self, kind: str) -> None:
        if kind == "hang":
            time.sleep(60)
        elif kind == "huge":
            self.send_response(200)
            self.send_header("content-length", str(2**33))
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                self.close_connection = True
        elif kind == "slow":
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.1)
        elif kind == "redirect":
            self.plain(302, location="/ok")
        elif kind in ("429", "503"):
            self.plain(int(kind), **{"retry-after": "1800"})
        else:
            self.plain(200 if kind == "ok" else int(kind))

    def plain(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"text")

    def log_message(self, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
