"""A broker in this process's memory, for tests and simulations."""

from spoolproof.brokers.memory.broker import MemoryBroker
from spoolproof.brokers.memory.server import MemoryBrokerServer

__all__ = ["MemoryBroker", "MemoryBrokerServer"]
