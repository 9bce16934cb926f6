-- name: claim
-- Guarantees: one row per name, and no shard is given twice: there is one writer.
insert into spoolproof_service (name, first_shard)
select ?1, coalesce(max(first_shard) + ?2, 0) from spoolproof_service where true
on conflict do nothing;

-- name: first_shard
-- Guarantees: one row or none.
select first_shard from spoolproof_service where name = ?1;

-- name: all
-- Guarantees: every service that ever ran here, first block first.
select name, first_shard from spoolproof_service order by first_shard;
