-- name: find
-- Guarantees: next due first, with what became of the run before, as far as it is still known; the clock also without rows.
select clock_timestamp() as now, r.* from (values (1)) one(row) left join (
  select r.service, r.name, r.expression, r.next_at, r.declared_at, r.last_at, case
    when exists (select 1 from spoolproof.inbox i where i.consumer = r.name and i.message_id = r.last_key)
    then 'handled'
    else (select d.state from spoolproof.dead_letter d where d.consumer = r.name and d.message_id = r.last_key)
    end as outcome
  from spoolproof.recurring r where $1::text is null or r.service = $1) r on true
order by r.next_at, r.name;

-- name: declare
-- Guarantees: a time that is kept stays as it is; of two releases that disagree the one that is there keeps its own
-- until nobody has it any more.
insert into spoolproof.recurring as r (service, name, expression, next_at, declared_at)
values ($1, $2, $3, $4, clock_timestamp())
on conflict (service, name) do update set declared_at = excluded.declared_at, expression = excluded.expression,
  next_at = case when r.expression = excluded.expression then r.next_at else excluded.next_at end
where r.expression = excluded.expression or r.declared_at <= excluded.declared_at - $5::float8 * interval '1 s';

-- name: advance
-- Guarantees: nothing changes unless the row is as it was read; the run exists if and only if the row was moved.
with moved as (
  update spoolproof.recurring set next_at = $12, last_at = next_at, last_key = $13
  where service = $9 and name = $10 and next_at = $11 and expression = $14 returning 1)
insert into spoolproof.outbox (shard, message_id, destination, type, routing_key, ordering_key, headers, body)
select $1, $2, $3, $4, $5, $6, $7::text::jsonb, $8 from moved;

-- name: forget
-- Guarantees: none that a process has declared since.
delete from spoolproof.recurring
where service = $1 and declared_at <= clock_timestamp() - $2::float8 * interval '1 s' returning name;
