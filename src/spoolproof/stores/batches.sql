-- name: add
-- Guarantees: one batch of an id.
insert into {batch} (id, service, job, state, total, started_at) values ($1, $2, $3, 'running', $4, $5)
on conflict do nothing;

-- name: count_items
-- Guarantees: one row for each state there is.
select b.id, b.service, b.job, b.state, b.total, b.started_at, b.finished_at, i.state as item_state, count(i.n) as count
from {batch} b left join {item} i on i.batch_id = b.id where b.id = $1
group by b.id, b.service, b.job, b.state, b.total, b.started_at, b.finished_at, i.state;

-- name: search
-- Guarantees: newest first.
select * from {batch} where true{and_where} order by started_at desc, id desc limit $1;

-- name: items
-- Guarantees: in order, at most $3.
select n, state, body, record from {item} where batch_id = $1 and n > $2 and state in ({states}) order by n limit $3;

-- name: standing
-- Guarantees: one row or none.
select b.state as batch, i.state as item from {batch} b join {item} i on i.batch_id = b.id
where b.id = $1 and i.n = $2;

-- name: put
-- Guarantees: only from the states it may come from.
update {item} set state = $3, record = $4 where batch_id = $1 and n = $2 and state in ({states});

-- name: over
-- Guarantees: none; `finish` asks again.
select id from {batch} b where service = $1 and state = 'running'
and not exists (select 1 from {item} i where i.batch_id = b.id and i.state = 'pending') order by started_at limit $2;

-- name: finish
-- Guarantees: of all who see the last item end, one ends the batch.
update {batch} as b set state = 'finished', finished_at = {now} where id = $1 and state = 'running'
and not exists (select 1 from {item} i where i.batch_id = b.id and i.state = 'pending') returning *;

-- name: cancel
-- Guarantees: one that is over stays what it is.
update {batch} set state = 'cancelled', finished_at = {now} where id = $1 and state = 'running' returning *;

-- name: close
-- Guarantees: none; in the transaction that ends the batch.
update {item} set closed_at = {now} where batch_id = $1;

-- name: open
-- Guarantees: none; in the transaction that lets the batch run again.
update {item} set closed_at = null where batch_id = $1;

-- name: reopen
-- Guarantees: none.
update {batch} set state = 'running', finished_at = null, started_at = $2 where id = $1;

-- name: pend
-- Guarantees: none; in the transaction that lets the batch run again.
update {item} set state = 'pending' where batch_id = $1 and state in ({states});

-- name: counts
-- Guarantees: all of them.
select job, state, count(*) as count from {batch} where service = $1 group by job, state;
