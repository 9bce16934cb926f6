-- name: add
-- Guarantees: one open item for a subject; a concurrent insert of another waits for the other transaction to end.
insert into {item} (id, service, kind, subject, state, opened_at, due_at, record, message)
values ($1, $2, $3, $4, 'open', $5, $6, $7, $8) on conflict do nothing;

-- name: event
-- Guarantees: one event of each number; under the lock of its item, or in the transaction that inserted it.
insert into {event} (review_id, n, record) values ($1, $2, $3);

-- name: lock
-- Guarantees: nobody else changes it before the transaction ends.
select {columns}, message from {item} where id = $1{locked};

-- name: lock_open
-- Guarantees: as `lock`.
select {columns} from {item} where service = $1 and kind = $2 and subject = $3 and state = 'open'{locked};

-- name: write
-- Guarantees: none; under the lock.
update {item} set state = $2, due_at = $3, claim_until = $4, resolved_at = $5, record = $6 where id = $1;

-- name: close
-- Guarantees: none; says to retention alone when the chain may go.
update {event} set closed_at = $2 where review_id = $1;

-- name: get
-- Guarantees: one row or none.
select {columns}, message from {item} where id = $1;

-- name: events
-- Guarantees: in the order in which they happened.
select record from {event} where review_id = $1 order by n;

-- name: search
-- Guarantees: soonest due first, at most $1.
select {columns} from {item} where true{and_where} order by due_at, id limit $1;

-- name: counts
-- Guarantees: every open one of the service.
select kind, case when claim_until > $2 then 1 else 0 end as claimed, count(*) as count,
  sum(case when due_at <= $2 then 1 else 0 end) as overdue, min(opened_at) as oldest_at
from {item} where service = $1 and state = 'open' group by 1, 2 order by 1, 2;

-- name: ids
-- Guarantees: also of events whose item is gone.
select id from {item} where id > $1 union select review_id from {event} where review_id > $1 order by 1 limit $2;
