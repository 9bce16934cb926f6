"""Three private RabbitMQ nodes that are one cluster.

The nodes share a cookie and a name server (epmd) that is nobody's: it outlives whichever node is killed. Each has its
directory, its ports and its guard, like a node alone. The first is up before the others join it; a node that was
killed comes back into its place by itself.

`isolate` parts a node from its peers, on the Erlang side: on it, the cookies of the peers are changed and their
connections cut, so neither side can connect to the other until `rejoin`. `pause_minority` is set, as RabbitMQ's own
guide has it for three nodes: the isolated node then closes its listeners and clients until it sees the others.
"""

from __future__ import annotations

import json
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from spoolproof.testing.servers.ports import accepts_connections
from spoolproof.testing.servers.process import START_SECONDS_MAX, PrivateServer, ServerFailed, wait_until
from spoolproof.testing.servers.rabbitmq import RabbitMQServer, epmd

NAMES = ("one", "two", "three")
HEAL_SECONDS = 20.0
CONFIGURATION = """
cluster_partition_handling = pause_minority
net_ticktime = 8
vm_memory_high_watermark.absolute = 1GB
cluster_formation.peer_discovery_backend = classic_config
"""


class _NameServer(PrivateServer):
    kind = "epmd"

    def __init__(self) -> None:
        super().__init__()
        self.port = self._new_port()
        self._process = self._new_process(*epmd(self.port), env={"PATH": "/usr/bin:/bin"})

    @classmethod
    def missing(cls) -> str | None:
        return RabbitMQServer.missing()

    @property
    def url(self) -> str:
        return f"epmd://127.0.0.1:{self.port}"

    def _start(self) -> None:
        self._process.start()

    def _is_ready(self) -> bool:
        return accepts_connections(self.port)

    def _stop(self) -> None:
        self._process.stop(signal.SIGTERM)


class RabbitMQCluster:
    """Three nodes. Up in 12 to 20 s; `nodes` are servers like any other: kill, freeze, stop, start."""

    def __init__(self) -> None:
        self._names = _NameServer()
        cookie = secrets.token_hex(16)
        peers = [f"spoolproof-{name}@localhost" for name in NAMES]
        lines = [f"cluster_formation.classic_config.nodes.{i} = {peer}\n" for i, peer in enumerate(peers, 1)]
        configuration = CONFIGURATION + "".join(lines)
        self.nodes = [
            RabbitMQServer(node=peer, cookie=cookie, epmd_port=self._names.port, configuration=configuration)
            for peer in peers
        ]

    @classmethod
    def missing(cls) -> str | None:
        """Return why it cannot run here, or None when it can."""
        return RabbitMQServer.missing()

    def start(self) -> None:
        """Start, thaw and rejoin what is not there; return when every node answers and sees both others."""
        self._names.start()
        if not any(node.is_running() for node in self.nodes):
            self.nodes[0].start()
        with ThreadPoolExecutor(len(self.nodes)) as together:
            list(together.map(RabbitMQServer.start, self.nodes))
        with suppress(ServerFailed):
            wait_until(self._is_whole, HEAL_SECONDS, "they see each other by themselves")
            return
        for node in [one for one in self.nodes if not self._sees_all(one)]:
            node.restart()  # one that was frozen for long may stay apart from the others until it is started anew
        wait_until(self._is_whole, START_SECONDS_MAX, "all three nodes see each other")

    def urls_of(self, vhost: str) -> list[str]:
        """Return the address of a virtual host on each node."""
        return [node.url_of(vhost) for node in self.nodes]

    def create_vhost(self, name: str) -> str:
        """Make a virtual host; return its addresses as SPOOLPROOF_BROKER takes them."""
        self.nodes[0].create_vhost(name)
        return ",".join(self.urls_of(name))

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it."""
        self.nodes[0].delete_vhost(name)

    def leader_of(self, queue: str, vhost: str) -> RabbitMQServer:
        """Return the node on which the leader of a quorum queue runs."""
        return next(node for node in self.nodes if node.node == self._leader(queue, vhost))

    def isolate(self, node: RabbitMQServer) -> None:
        """Part a node from the others, both ways. Idempotent."""
        self._eval_for_peers(node, "erlang:set_cookie(N, isolated), erlang:disconnect_node(N)")

    def rejoin(self, node: RabbitMQServer) -> None:
        """End what `isolate` began."""
        self._eval_for_peers(node, "erlang:set_cookie(N, erlang:get_cookie()), net_kernel:connect_node(N)")

    def _eval_for_peers(self, node: RabbitMQServer, expression: str) -> None:
        # named here: a node that paused itself no longer knows its peers
        peers = ", ".join(f"'{one.node}'" for one in self.nodes if one is not node)
        node.rabbitmqctl("eval", f"[begin {expression} end || N <- [{peers}]].")

    def close(self) -> None:
        """Kill everything and remove the data. Idempotent."""
        for node in self.nodes:
            node.close()
        self._names.close()

    def __enter__(self) -> RabbitMQCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leader(self, queue: str, vhost: str) -> str:
        for node in self.nodes:
            if node.is_running():
                with suppress(ServerFailed):
                    shown = node.rabbitmqctl("list_queues", "-p", vhost, "name", "leader", "--formatter", "json")
                    return next(str(one["leader"]) for one in json.loads(shown) if one["name"] == queue)
        raise ServerFailed(f"no node of the cluster knows the leader of {queue}")

    def _is_whole(self) -> bool:
        return all(self._sees_all(node) for node in self.nodes)

    def _sees_all(self, node: RabbitMQServer) -> bool:
        try:
            return node.rabbitmqctl("eval", "length(rabbit_nodes:all_running()).").strip() == str(len(self.nodes))
        except ServerFailed:
            return False
