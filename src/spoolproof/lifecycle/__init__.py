"""Background work: one loop contract, one supervisor, leases, and an orderly end."""
