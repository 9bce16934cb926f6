"""Private RabbitMQ, PostgreSQL, Redis, PgBouncer and moto (SQS, SNS) servers for tests and drills. Linux only.

    with RabbitMQServer() as rabbitmq, PostgresServer() as postgres:
        url = rabbitmq.create_vhost("orders")
        rabbitmq.kill()
        rabbitmq.start()          # same port, same data

Each server lives in a directory of its own below the system's temporary directory, on free ports of 127.0.0.1. The
machine's own servers, their ports and their data are never touched. `stop`, `kill` and `start` keep the data; `close`
(also the end of the `with` block, and the end of the interpreter) removes it. If this process is killed, a guard
process kills the servers and removes the directory.
"""

from __future__ import annotations

from spoolproof.testing.servers.moto import MotoServer
from spoolproof.testing.servers.pgbouncer import PgBouncerServer
from spoolproof.testing.servers.postgres import PostgresServer
from spoolproof.testing.servers.process import ServerFailed
from spoolproof.testing.servers.rabbitmq import RabbitMQServer
from spoolproof.testing.servers.rabbitmq_cluster import RabbitMQCluster
from spoolproof.testing.servers.redis import RedisServer

__all__ = [
    "MotoServer",
    "PgBouncerServer",
    "PostgresServer",
    "RabbitMQCluster",
    "RabbitMQServer",
    "RedisServer",
    "ServerFailed",
]
