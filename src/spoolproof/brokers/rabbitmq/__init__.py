"""RabbitMQ over AMQP 0-9-1, by pika's `AsyncioConnection`.

One connection publishes, another consumes, settles and declares: a resource alarm stops only connections that publish.
Only `pika_internals` uses names pika does not promise. Importing this package without pika raises MissingExtra.
"""

from __future__ import annotations

from spoolproof.errors import MissingExtra

try:
    import pika as _pika  # noqa: F401 - the one place that says which extra brings it
except ImportError as error:
    raise MissingExtra("pika", "rabbitmq") from error

from spoolproof.brokers.rabbitmq.broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
