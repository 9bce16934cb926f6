"""What can be set of RabbitMQ alone. Here, beside the adapters, because it is read without the driver."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from spoolproof.settings_group import SettingsGroup, also


class RabbitMQSettings(SettingsGroup, env_prefix="SPOOLPROOF_RABBITMQ_"):
    """Of a broker whose URLs are `amqp://` or `amqps://`; others ignore it."""

    publish_connections: int | None = Field(
        None, ge=1, le=16, validation_alias=also("RABBITMQ_PUBLISH_CONNECTIONS", "RABBITMQ_PUBLISH_CONNECTIONS")
    )
    """Connections that publish. Default: 1, or 2 when several URLs are given."""
    consume_connections: int | None = Field(
        None, ge=1, le=16, validation_alias=also("RABBITMQ_CONSUME_CONNECTIONS", "RABBITMQ_CONSUME_CONNECTIONS")
    )
    """Connections that consume, settle and declare. Default: 1, or 2 when several URLs are given."""
    topology: Literal["apply", "verify", "off"] = Field(
        "apply", validation_alias=also("RABBITMQ_TOPOLOGY", "RABBITMQ_TOPOLOGY")
    )
    """What a start does about exchanges and queues: declare what is missing, only look and tell, or nothing."""
