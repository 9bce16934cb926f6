"""One request of a webhook: to whom it goes, whatever the DNS, the proxies or the receiver do."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from spoolproof import limits
from spoolproof.clock import SystemClock
from spoolproof.testing.conformance._messages import make_message
from spoolproof.webhooks.guard import Rules
from spoolproof.webhooks.request import body_of, headers_of
from spoolproof.webhooks.signature import key_of
from spoolproof.webhooks.transport import Answer, Unanswered, post

sys.path.insert(0, str(Path(__file__).parent))
from receivers import SECRET, Receiver  # type: ignore[import-not-found]

pytestmark = pytest.mark.integration


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with Receiver(tmp_path) as receiver:
        yield receiver


class Dns:
    """Answers with these, each time it is asked, and counts."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0)


async def sent(
    receiver: Receiver, path: str, dns: Dns | None = None, host: str = "hook.example"
) -> Answer | Unanswered:
    message = make_message()
    body = body_of(message)
    headers = headers_of(message, body, [key_of(SECRET)], SystemClock().now())
    rules = Rules.of(("127.0.0.0/8",), (receiver.port,))
    return await post(f"http://{host}:{receiver.port}/{path}", headers, body, rules, dns or Dns(["127.0.0.1"]))


async def test_it_goes_to_the_address_that_was_checked_under_its_name(receiver: Receiver) -> None:
    """A name that nobody else can look up: whoever looked again would not arrive."""
    dns = Dns(["127.0.0.1"])

    answer = await sent(receiver, "ok?a=%2F", dns)

    assert Answer(200, "text") == answer
    assert ["hook.example"] == dns.asked
    (came,) = receiver.received()
    assert (f"hook.example:{receiver.port}", "/ok?a=%2F", [True]) == (came["host"], came["path"], came["verified"])


@pytest.mark.parametrize("addresses", [["127.0.0.1", "10.0.0.1"], ["93.184.216.34"], ["::ffff:127.0.0.1"], ["::1"]])
async def test_one_address_that_is_not_allowed_is_enough(receiver: Receiver, addresses: list[str]) -> None:
    """Nothing is sent, also not to those that are."""
    answer = await sent(receiver, "ok", Dns(addresses))

    assert isinstance(answer, Unanswered)
    assert "blocked" == answer.outcome
    assert [] == receiver.received()


async def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would look the name up again, on the inside."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert Answer(200, "text") == await sent(receiver, "ok")


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    """It would lead past every check."""
    assert Answer(302, "text") == await sent(receiver, "redirect")
    assert ["/redirect"] == [line["path"] for line in receiver.received()]


@pytest.mark.parametrize("path", ["huge", "slow"])
async def test_a_body_without_end_is_not_waited_for(
    receiver: Receiver, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status has said it all."""
    monkeypatch.setattr(limits, "WEBHOOK_CONNECT_SECONDS", 0.5)
    async with asyncio.timeout(5):
        answer = await sent(receiver, path)

    assert isinstance(answer, Answer)
    assert 200 == answer.status
    assert len(answer.text) <= 200


async def test_silence_is_unknown_and_no_connection_is_a_failure(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first may have arrived."""
    monkeypatch.setattr(limits, "WEBHOOK_SECONDS", 0.5)
    silent = await sent(receiver, "hang")
    receiver.kill()
    refused = await sent(receiver, "ok")

    assert ("unknown", "failed") == tuple(one.outcome for one in (silent, refused) if isinstance(one, Unanswered))


async def test_a_receiver_that_dies_over_a_request_leaves_it_unknown(receiver: Receiver) -> None:
    """It had read it."""
    asking = asyncio.ensure_future(sent(receiver, "hang"))
    while not receiver.received():
        await asyncio.sleep(0.01)
    receiver.kill()
    answer = await asking

    assert isinstance(answer, Unanswered)
    assert "unknown" == answer.outcome


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("86400", 3600.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("9" * 400, 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
async def test_retry_after_is_read_up_to_an_hour(text: str, seconds: float) -> None:
    """Seconds or a date, whatever else it may be."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(f"HTTP/1.1 503 No\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        rules = Rules.of(("127.0.0.0/8",), (port,))
        answer = await post(f"http://hook.example:{port}/", {}, b"{}", rules, Dns(["127.0.0.1"]))

    assert Answer(503, "", seconds) == answer


async def test_tls_has_the_name_and_checks_the_certificate(tmp_path: Path) -> None:
    """Pinning the address must not pin away who is there."""
    asked: list[str] = []
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hook.example"
    files = ["-addext", "subjectAltName=DNS:hook.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *request.split(), *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        rules = Rules.of(("127.0.0.0/8",), (port,))
        answer = await post(f"https://hook.example:{port}/", {}, b"{}", rules, Dns(["127.0.0.1"]))

    assert ["hook.example"] == asked
    assert isinstance(answer, Unanswered)
    assert "failed" == answer.outcome
    assert "certificate verify failed" in answer.detail
