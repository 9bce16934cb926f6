-- name: start
-- Guarantees: none; in the transaction that says what it is about.
insert into spoolproof.dead_letter_bulk (id, record, started_at) values ($1, '', $2);

-- name: select
-- Guarantees: every dead letter that matches now, and none that comes later.
insert into spoolproof.dead_letter_bulk_item (bulk_id, dead_letter_id)
select $1::uuid, id from spoolproof.dead_letter where {states}{and_where};

-- name: write
-- Guarantees: under the lock of `lock` or of its insertion.
update spoolproof.dead_letter_bulk set record = $2, ended_at = $3 where id = $1;

-- name: get
-- Guarantees: one row or none.
select record from spoolproof.dead_letter_bulk where id = $1;

-- name: lock
-- Guarantees: nobody else changes it before the transaction ends.
select b.record from spoolproof.dead_letter_bulk b where b.id = $1 for update of b;

-- name: all
-- Guarantees: the newest first.
select record from spoolproof.dead_letter_bulk order by started_at desc, id desc limit $1;

-- name: live
-- Guarantees: those that have not ended, the oldest first.
select record from spoolproof.dead_letter_bulk where ended_at is null order by started_at, id limit $1;

-- name: holds
-- Guarantees: a row if the lease is held under this fence, which it then is until the transaction ends.
select 1 as held from spoolproof.lease where kind = $1 and name = $2 and owner = $3 and epoch = $4 for share;

-- name: next
-- Guarantees: what has not been taken yet, oldest first; under the lock of its bulk.
select dead_letter_id as id from spoolproof.dead_letter_bulk_item
where bulk_id = $1 and is_moved is null order by dead_letter_id limit $2;

-- name: mark
-- Guarantees: taken once and for all.
update spoolproof.dead_letter_bulk_item set is_moved = $3::int where bulk_id = $1 and dead_letter_id = $2;

-- name: outcomes
-- Guarantees: those it moved, by where they are now.
select d.state, count(*) as count from spoolproof.dead_letter_bulk_item i
join spoolproof.dead_letter d on d.id = i.dead_letter_id
where i.bulk_id = $1 and i.is_moved = 1 group by d.state;
