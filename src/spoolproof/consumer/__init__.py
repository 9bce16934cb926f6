"""From a delivery to its effect: routing, execution, retries, dead letters."""
