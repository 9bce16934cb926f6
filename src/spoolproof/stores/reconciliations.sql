-- name: mark
-- Guarantees: due at once; whoever checks it now cannot settle it.
insert into {mark} as m (service, reconciler, key, next_at) values ($1, $2, $3, $4)
on conflict (service, reconciler, key) do update set dirty = m.dirty + 1, next_at = excluded.next_at;

-- name: due
-- Guarantees: longest due first, at most $3.
select reconciler, key, dirty, failures from {mark} where service = $1 and next_at <= $2
order by next_at, reconciler, key limit $3;

-- name: settle
-- Guarantees: not one that was marked again.
delete from {mark} where service = $1 and reconciler = $2 and key = $3 and dirty = $4;

-- name: delay
-- Guarantees: not one that was marked again.
update {mark} set next_at = $5, failures = $6, note = $7
where service = $1 and reconciler = $2 and key = $3 and dirty = $4;

-- name: wake
-- Guarantees: none.
update {mark} set next_at = $3 where service = $1 and reconciler = $2 and next_at > $3;

-- name: marks
-- Guarantees: all of them.
select service, reconciler, count(*) as count from {mark} group by service, reconciler order by 1, 2;

-- name: start
-- Guarantees: one unfinished run of a reconciler.
insert into {run} (id, service, reconciler, started_at, version, record) values ($1, $2, $3, $4, $5, $6)
on conflict do nothing;

-- name: write
-- Guarantees: of two who read the same version, the first.
update {run} set version = $2 + 1, finished_at = $3, record = $4 where id = $1 and version = $2;

-- name: runs
-- Guarantees: newest first.
select record from {run} where true{and_where} order by started_at desc, id desc limit $1;

-- name: get
-- Guarantees: one row or none.
select record from {run} where id = $1;
