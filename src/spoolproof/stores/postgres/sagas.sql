-- name: write
-- Guarantees: all of it or nothing, in one statement: a process that is frozen cannot hold the row of its saga.
with own as materialized (
  select saga_id, is_cancel_requested, signals from spoolproof.saga
  where saga_id = $1 and owner = $2 and epoch = $3 for no key update),
put as (
  insert into spoolproof.saga_step as t (saga_id, phase, name, item, state, seq, attempts, charged, is_maybe_landed, epoch,
    arguments, output, error, started_at, finished_at)
  select own.saga_id, i.*, now(), case when i.state <> 'started' then now() end
  from own cross join unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::int[], $9::int[], $10::int[],
    $11::boolean[], $12::bigint[], $13::text[], $14::bytea[], $15::text[])
    i(phase, name, item, state, seq, attempts, charged, is_maybe_landed, epoch, arguments, output, error)
  on conflict (saga_id, phase, name, item) do update set
    state = excluded.state, attempts = excluded.attempts, charged = excluded.charged, epoch = excluded.epoch,
    is_maybe_landed = t.is_maybe_landed or excluded.is_maybe_landed, output = excluded.output, error = excluded.error,
    started_at = case when excluded.attempts = 0 and excluded.phase <> 'flow' then excluded.started_at
      else t.started_at end,
    finished_at = excluded.finished_at
  where t.state not in ('succeeded', 'refused', 'skipped')),
moved as (
  update spoolproof.saga s set
    crashes = case when $16::boolean then 0 else s.crashes end,
    state = coalesce($17::text, s.state), cause = coalesce(s.cause, $18::text),
    question = case when $17::text is null then s.question else $19::text end,
    waiting_for = case when $17::text is null then s.waiting_for else $20::text end,
    is_past_pivot = s.is_past_pivot or $21::boolean, owner = case when $22::boolean then null else s.owner end,
    wake_at = case when $17 is null then s.wake_at
      when $17 in ('completed', 'compensated', 'abandoned', 'in_review') then null
      when s.signals > $23::bigint or s.is_cancel_requested and $17 = 'running' then now()
      else now() + $24::float8 * interval '1 s' end,
    finished_at = case when $17 in ('completed', 'compensated', 'abandoned') then now() else s.finished_at end
  from own where s.saga_id = own.saga_id and ($16 or $17::text is not null))
select is_cancel_requested, signals from own;

-- name: guard
-- Guarantees: a process that is frozen in this transaction holds its locks no longer than that, from PostgreSQL 17 on also
-- when it stands still between the messages of one statement, which is not idle.
select set_config('idle_in_transaction_session_timeout', $1, true),
  case when current_setting('transaction_timeout', true) is not null then set_config('transaction_timeout', $1, true) end;
