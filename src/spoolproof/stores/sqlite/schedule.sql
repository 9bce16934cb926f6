-- name: has_due
-- Guarantees: one look at the index; the writer is taken only when there is something to move.
select exists (select 1 from spoolproof_scheduled where service = ?1 and due_at <= ?2);

-- name: due
-- Guarantees: ids in the order in which the rows are due, and were written.
select id, due_at from spoolproof_scheduled where service = ?1 and due_at <= ?2 order by due_at, id limit ?3;

-- name: move
-- Guarantees: with `forget` in one transaction, the message is in exactly one of the two tables. One row at a time: ids of
-- the outbox rise in the order of the calls.
insert into spoolproof_outbox (shard, message_id, destination, type, routing_key, ordering_key, headers, body)
select shard, message_id, destination, type, routing_key, ordering_key, headers, body
from spoolproof_scheduled where id = ?1;

-- name: forget
-- Guarantees: this row and no other.
delete from spoolproof_scheduled where id = ?1;

-- name: cancel
-- Guarantees: what is deleted here was never moved: there is one writer.
delete from spoolproof_scheduled where message_id = $1 and ($2 is null or service = $2);

-- name: search
-- Guarantees: due first first.
select service, message_id, destination, type, routing_key, ordering_key, headers, body, due_at, created_at
from spoolproof_scheduled where ?1 is null or service = ?1 order by due_at, id limit ?2;

-- name: count
-- Guarantees: reads an index only, and at most ?2 entries of it.
select count(*) from (select 1 from spoolproof_scheduled where service = ?1 limit ?2);
