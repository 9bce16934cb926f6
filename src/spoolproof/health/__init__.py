"""Whether this process makes progress, may be given work, and what it depends on; answered from memory."""
