"""The cache: memory over Redis or a file, which serves what it has when what it asks is away.

What must never happen: a removed value comes back; a loader that hangs keeps its key; a reader waits for a Redis that
is away; two callers get the same mutable object; bytes of a stranger run as code.
"""
