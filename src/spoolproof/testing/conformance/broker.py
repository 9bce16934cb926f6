"""The contract of `ports.broker.Broker`, in four parts."""

from __future__ import annotations

from spoolproof.testing.conformance.broker_connection import BrokerConnectionConformance
from spoolproof.testing.conformance.broker_delivery import BrokerDeliveryConformance
from spoolproof.testing.conformance.broker_publish import BrokerPublishConformance
from spoolproof.testing.conformance.broker_routing import BrokerRoutingConformance


class BrokerConformance(
    BrokerPublishConformance, BrokerRoutingConformance, BrokerDeliveryConformance, BrokerConnectionConformance
):
    """Needs the fixture `brokers`, see `Brokers`."""
