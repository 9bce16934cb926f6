-- name: take
-- Guarantees: whoever has the file's lock has its lanes, under an epoch above every earlier one.
insert into spoolproof_lease (kind, name, owner, epoch, lease_until) values (?1, ?2, ?3, 1, {steady} + ?4)
on conflict (kind, name) do update set owner = excluded.owner, epoch = epoch + 1, lease_until = excluded.lease_until
returning epoch;

-- name: count
-- Guarantees: exact.
select (select count(*) from spoolproof_outbox),
  (select count(*) from spoolproof_dead_letter where state in ('open', 'replaying')),
  (select created_at from spoolproof_outbox order by id limit 1);

-- name: keeps
-- Guarantees: true while there is a message that is nowhere else.
select exists (select 1 from spoolproof_outbox) or exists (select 1 from spoolproof_scheduled)
  or exists (select 1 from spoolproof_dead_letter where state in ('open', 'replaying'));

-- name: drop_dead_letter
-- Guarantees: that one, with its trail.
delete from spoolproof_dead_letter where id = ?1;
