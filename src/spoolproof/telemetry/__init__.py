"""How a service tells what it does: structured log lines."""
