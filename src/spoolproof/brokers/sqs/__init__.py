"""SQS and SNS, by aiobotocore. Importing this package without it raises MissingExtra."""

from __future__ import annotations

from spoolproof.errors import MissingExtra

try:
    import aiobotocore as _aiobotocore  # noqa: F401 - the one place that says which extra brings it
except ImportError as error:
    raise MissingExtra("aiobotocore", "sqs") from error

from spoolproof.brokers.sqs.broker import SqsBroker

__all__ = ["SqsBroker"]
