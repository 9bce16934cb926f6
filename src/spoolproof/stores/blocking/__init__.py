"""Appending to the outbox through a user's own transaction where there is no event loop: threads, scripts, Django.

One INSERT per event, through the user's connection. It needs no driver of ours and no started service: which shards are
the service's is looked up by the statement itself, in the database it writes to.
"""
