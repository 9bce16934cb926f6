-- name: ensure
-- Guarantees: leases that exist stay as they are.
insert into spoolproof_lease (kind, name) values (?1, ?2) on conflict do nothing;

-- name: has_free
-- Guarantees: the writer is taken only when there is something to acquire.
select exists (select 1 from spoolproof_lease where kind = ?1 and lease_until <= {steady});

-- name: acquire
-- Guarantees: two processes never get one lease; each change of owner raises the epoch.
update spoolproof_lease set owner = ?2, epoch = epoch + 1, lease_until = {steady} + ?4
where kind = ?1 and name in (
  select name from spoolproof_lease where kind = ?1 and lease_until <= {steady} order by name limit ?3)
returning name, epoch;

-- name: renew
-- Guarantees: only a lease still held under exactly this fence. One that ran out and that nobody took is still held:
-- its epoch is the newest.
update spoolproof_lease set lease_until = {steady} + ?5 where kind = ?1 and name = ?2 and owner = ?3 and epoch = ?4;

-- name: release
-- Guarantees: a stale fence frees nothing; the epoch stays, so the next owner's is higher.
update spoolproof_lease set owner = null, lease_until = 0 where kind = ?1 and name = ?2 and owner = ?3 and epoch = ?4;

-- name: beat
-- Guarantees: an expired row is never revived; 0 rows changed says so.
insert into spoolproof_process (id, service, host, pid, roles, is_draining, expires_at)
values (?1, ?2, ?3, ?4, ?5, ?6, {steady} + ?7)
on conflict (id) do update
set is_draining = excluded.is_draining, roles = excluded.roles, expires_at = excluded.expires_at
where expires_at > {steady};

-- name: processes
-- Guarantees: every process not yet forgotten, and whether it has stopped beating.
select id, service, host, pid, roles, is_draining, expires_at <= {steady} from spoolproof_process
order by started_at, id;

-- name: free_dead
-- Guarantees: what a dead process held, and nothing that somebody took since; the epochs stay.
update spoolproof_lease set owner = null, lease_until = 0 where owner = ?1;

-- name: forget_dead
-- Guarantees: one process at most.
delete from spoolproof_process where id = ?1;

-- name: status
-- Guarantees: every lease of the kind, sorted by name.
select kind, name, owner, epoch, lease_until <= {steady}, nullif(lease_until, 0)
from spoolproof_lease where kind = ?1 order by name;

-- name: free_all
-- Guarantees: after a start of the machine nobody holds anything; the epochs stay.
update spoolproof_lease set owner = null, lease_until = 0 where owner is not null;

-- name: expire_all
-- Guarantees: after a start of the machine no process lives.
update spoolproof_process set expires_at = 0;
