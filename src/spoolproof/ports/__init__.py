"""What Spoolproof needs from the outside world: small Protocols and the records that cross them."""
