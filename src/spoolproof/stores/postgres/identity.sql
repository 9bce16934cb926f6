-- name: has_outbox
-- Guarantees: never fails for a missing table, so that it may be asked inside a user's transaction.
select to_regclass('spoolproof.outbox') is not null and to_regclass('spoolproof.meta') is not null as has_outbox;

-- name: meta
-- Guarantees: one row.
select store_id, shards from spoolproof.meta;
