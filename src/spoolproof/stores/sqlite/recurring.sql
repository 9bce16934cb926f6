-- name: find
-- Guarantees: next due first, with what became of the run before, as far as it is still known.
select r.service, r.name, r.expression, r.next_at, r.declared_at, r.last_at, case
  when exists (select 1 from spoolproof_inbox i where i.consumer = r.name and i.message_id = r.last_key) then 'handled'
  else (select d.state from spoolproof_dead_letter d where d.consumer = r.name and d.message_id = r.last_key) end
from spoolproof_recurring r where ?1 is null or r.service = ?1 order by r.next_at, r.name;

-- name: declare
-- Guarantees: a time that is kept stays as it is; of two releases that disagree the one that is there keeps its own
-- until nobody has it any more.
insert into spoolproof_recurring (service, name, expression, next_at, declared_at) values (?1, ?2, ?3, ?4, ?5)
on conflict do update set declared_at = excluded.declared_at, expression = excluded.expression,
  next_at = iif(expression = excluded.expression, next_at, excluded.next_at)
where expression = excluded.expression or declared_at <= excluded.declared_at - ?6;

-- name: advance
-- Guarantees: nothing changes unless the row is as it was read; the run is written in the same transaction.
update spoolproof_recurring set next_at = ?4, last_at = next_at, last_key = ?5
where service = ?1 and name = ?2 and next_at = ?3 and expression = ?6;

-- name: forget
-- Guarantees: none that a process has declared since.
delete from spoolproof_recurring where service = ?1 and declared_at <= ?2 returning name;
