"""From a publish to the broker's confirm: the transaction that collects messages, and the relay that ships them."""
