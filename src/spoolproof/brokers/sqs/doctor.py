"""One look at SQS for `spoolproof doctor`: asks for a queue that need not be there, makes nothing, leaves."""

from __future__ import annotations

from spoolproof.backoff import RandomSource
from spoolproof.brokers.sqs.address import parse_url
from spoolproof.brokers.sqs.client import Clients, SqsError, Trouble
from spoolproof.clock import Clock
from spoolproof.errors import BrokerUnavailable
from spoolproof.ports.broker import Spawn


async def look(url: str, clock: Clock, random: RandomSource, spawn: Spawn) -> str:
    """Return which SQS answers at a URL and takes our key. Raises BrokerUnavailable."""
    address = parse_url(url)
    clients = Clients(address)
    try:
        await clients.open()
        await clients.sqs("get_queue_url", QueueName=f"{address.prefix}spoolproof-doctor")
    except SqsError as error:
        if error.trouble is not Trouble.MISSING:  # which is an answer
            raise BrokerUnavailable(str(error)) from error
    finally:
        await clients.close()
    return f"SQS in {address.region}"
