-- name: ensure
-- Guarantees: leases that exist stay as they are.
insert into spoolproof.lease (kind, name) select $1, unnest($2::text[]) on conflict do nothing;

-- name: pull_in
-- Guarantees: no lease lasts longer from now than one may: the server's clock was put back. Its holder keeps it if alive.
update spoolproof.lease set lease_until = clock_timestamp() + $2::float8 * interval '1 s'
where kind = $1 and lease_until > clock_timestamp() + $3::float8 * interval '1 s';

-- name: acquire
-- Guarantees: two processes never get one lease; each change of owner raises the epoch. Random order, so that
-- processes that start together do not queue for the same row.
with candidate as (
  select kind, name from spoolproof.lease
  where kind = $1 and lease_until < clock_timestamp()
  order by random() limit $3 for update skip locked)
update spoolproof.lease l
set owner = $2, epoch = l.epoch + 1, lease_until = clock_timestamp() + $4::float8 * interval '1 s'
from candidate c where l.kind = c.kind and l.name = c.name
returning l.name, l.epoch;

-- name: renew
-- Guarantees: only leases still held under exactly these fences. One that ran out and that nobody took is still held:
-- its epoch is the newest.
update spoolproof.lease l set lease_until = clock_timestamp() + $5::float8 * interval '1 s'
from unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) f(kind, name, owner, epoch)
where l.kind = f.kind and l.name = f.name and l.owner = f.owner and l.epoch = f.epoch
returning l.kind, l.name, l.owner, l.epoch;

-- name: release
-- Guarantees: a stale fence frees nothing; the epoch stays, so the next owner's is higher.
update spoolproof.lease l set owner = null, lease_until = '-infinity'
from unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) f(kind, name, owner, epoch)
where l.kind = f.kind and l.name = f.name and l.owner = f.owner and l.epoch = f.epoch;

-- name: beat
-- Guarantees: an expired row is never revived; no row back says so.
insert into spoolproof.process as p (id, service, host, pid, roles, is_draining, expires_at)
values ($1, $2, $3, $4, $5, $6, clock_timestamp() + $7::float8 * interval '1 s')
on conflict (id) do update set is_draining = excluded.is_draining, roles = excluded.roles, expires_at = excluded.expires_at
where p.expires_at > clock_timestamp()
returning p.id;

-- name: processes
-- Guarantees: only processes that beat in time, by a clock that may have been put back since.
select id, service, host, pid, roles, is_draining from spoolproof.process
where expires_at > clock_timestamp() and expires_at <= clock_timestamp() + $1::float8 * interval '1 s'
order by started_at, id;

-- name: status
-- Guarantees: every lease of the kind, sorted by name.
select kind, name, owner, epoch, lease_until < clock_timestamp() as is_expired,
  nullif(lease_until, '-infinity') as expires_at
from spoolproof.lease where kind = $1 order by name;
