-- name: place
-- Guarantees: opens no read, which would age the transaction. Its first row is the main file.
pragma database_list;

-- name: prepare
-- Guarantees: no commit of this connection checkpoints; `spoolproof.sqlite.checkpoint` says why.
pragma wal_autocheckpoint = 0;

-- name: append
-- Guarantees: the row exists if and only if the transaction around it commits. No row: the service has no shard yet.
insert into spoolproof_outbox (shard, message_id, destination, type, routing_key, ordering_key, headers, body)
select s.first_shard + $2 % 1, $3, $4, $5, $6, $7, $8, $9 from spoolproof_service s where s.name = $1;

-- name: schedule
-- Guarantees: as append.
insert into spoolproof_scheduled
  (shard, message_id, destination, type, routing_key, ordering_key, headers, body, service, due_at)
select s.first_shard + $2 % 1, $3, $4, $5, $6, $7, $8, $9, s.name, $10 from spoolproof_service s where s.name = $1;

-- name: claim
-- Guarantees: no shard is given twice: there is one writer. The claim lives or dies with the row it is made for.
insert into spoolproof_service (name, first_shard)
select $1, coalesce(max(first_shard) + 1, 0) from spoolproof_service where true
on conflict do nothing;

-- name: rows
-- Guarantees: no fewer than there are rows, at the cost of two look-ups.
select coalesce(
  (select max(id) from spoolproof_outbox) - (select min(id) from spoolproof_outbox where shard >= 0) + 1, 0) as rows;

-- name: scheduled_rows
-- Guarantees: at most $2 are counted.
select count(*) as rows from (select 1 from spoolproof_scheduled where service = $1 limit $2);
