-- name: claim
-- Guarantees: one row per name, and no block is given twice. No row back: another service took the lowest free block at
-- the same moment, or none is free below the highest smallint.
with known as (
  select first_shard from spoolproof.service where name = $1),
taken as (
  insert into spoolproof.service (name, first_shard)
  select $1, block.first_shard from generate_series(0, 32768 - $2::int, $2::int) block(first_shard)
  where not exists (select 1 from known)
    and not exists (select 1 from spoolproof.service s where s.first_shard = block.first_shard)
  order by block.first_shard limit 1
  on conflict do nothing
  returning first_shard)
select first_shard from known union all select first_shard from taken;

-- name: all
-- Guarantees: every service that ever ran here, first block first.
select name, first_shard from spoolproof.service order by first_shard;
