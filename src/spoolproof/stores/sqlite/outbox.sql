-- name: fetch
-- Guarantees: ready rows above the cursor in id order; a row behind a deferred row of its key and destination waits.
-- Cost: pages of the rows it looks at, whatever the backlog; the named indexes see to it.
select id, message_id, destination, type, routing_key, ordering_key, headers, body, attempts
from spoolproof_outbox o indexed by spoolproof_outbox_ready
where shard = ?1 and state = 0 and id > ?2
  and id not in (select value from json_each(?4))
  and destination not in (select value from json_each(?3))
  and destination || ' ' || type not in (select value from json_each(?3))
  and not exists (
    select 1 from spoolproof_outbox h indexed by spoolproof_outbox_held
    where h.shard = o.shard and h.destination = o.destination and h.ordering_key = o.ordering_key
      and h.state <> 0 and h.id < o.id)
order by id limit ?5;

-- name: last_id
-- Guarantees: the highest id of a committed row, also when the row is gone.
select coalesce((select seq from sqlite_sequence where name = 'spoolproof_outbox'), 0);

-- name: remove
-- Guarantees: these rows and no others, whoever holds the shard.
delete from spoolproof_outbox where id in (select value from json_each(?1));

-- name: defer
-- Guarantees: nothing changes unless the lease is still held under this fence.
update spoolproof_outbox
set state = 1, attempts = attempts + 1, available_at = {steady} + ?3, last_error = ?4
where shard = ?1 and id = ?2
  and exists (select 1 from spoolproof_lease where kind = ?5 and name = ?6 and owner = ?7 and epoch = ?8);

-- name: has_due
-- Guarantees: one look at the index; promotion takes the writer only when there is something to promote.
select exists (
  select 1 from spoolproof_outbox indexed by spoolproof_outbox_deferred
  where shard in (select value from json_each(?1)) and state = 1 and available_at <= {steady});

-- name: promote_due
-- Guarantees: attempts stay; at most ?2 rows, those due longest first.
update spoolproof_outbox set state = 0, available_at = null
where id in (
  select id from spoolproof_outbox indexed by spoolproof_outbox_deferred
  where shard in (select value from json_each(?1)) and state = 1 and available_at <= {steady}
  order by available_at limit ?2)
returning shard, id;

-- name: take_out
-- Guarantees: the row goes only if the lease is still held under this fence; with `dead_letters.keep` in one
-- transaction the message is in exactly one of the two tables.
delete from spoolproof_outbox
where shard = ?1 and id = ?2
  and exists (select 1 from spoolproof_lease where kind = ?3 and name = ?4 and owner = ?5 and epoch = ?6);

-- name: backlog
-- Guarantees: reads indexes only, and at most ?1 entries of each; shards ?2 to ?3.
select
  (select count(*) from (
    select 1 from spoolproof_outbox indexed by spoolproof_outbox_ready
    where state = 0 and shard between ?2 and ?3 limit ?1)),
  (select count(*) from (
    select 1 from spoolproof_outbox indexed by spoolproof_outbox_deferred
    where state = 1 and shard between ?2 and ?3 limit ?1)),
  (select created_at from spoolproof_outbox where shard between ?2 and ?3 order by id limit 1);

-- name: span
-- Guarantees: no fewer than there are rows, at the cost of two look-ups.
select coalesce(
  (select max(id) from spoolproof_outbox) - (select min(id) from spoolproof_outbox where shard >= 0) + 1, 0);

-- name: pull_in
-- Guarantees: no deferred row waits for longer than ?1 seconds from now, no webhook for longer than ?2.
update spoolproof_outbox set available_at = {steady} + case when shard < 0 then ?2 else ?1 end
where state = 1 and available_at > {steady} + case when shard < 0 then ?2 else ?1 end;
