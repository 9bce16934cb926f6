"""Reconciliation: what differs between two systems, repaired where that is safe, shown to a person where it is not."""
