-- The statements of every database. `{now}` is parameter $1: None, for the server's clock, or what the machine's says.

-- name: start
-- Guarantees: no row back, and nothing changed, if there is one that was started.
insert into {saga} as s (saga_id, service, name, version, key, state, wake_at, deadline_at, created_at)
values (cast($2 as text), cast($3 as text), cast($4 as text), cast($5 as integer), cast($6 as text), 'running', {now},
  {now} + cast($7 as double precision) * {second}, {now})
on conflict (saga_id) do update set state = 'running', version = excluded.version, wake_at = excluded.wake_at,
  deadline_at = excluded.deadline_at, created_at = excluded.created_at
where s.state = 'expected'
returning saga_id;

-- name: has_due
select exists (select 1 from {saga}
  where service = $2 and name = $3 and version = $4 and owner is null and wake_at <= {now}) as found;

-- name: claim
-- Guarantees: two processes never get one saga, and one whose row has expired gets none; each time a higher epoch.
with due as materialized (
  select saga_id from {saga}
  where service = $2 and name = $3 and version = $4 and owner is null and wake_at <= {now}
    and exists (select 1 from {process} where id = $5 and expires_at > {alive})
  order by wake_at limit $6 {skip})
update {saga} set owner = $5, epoch = epoch + 1, waiting_for = null where saga_id in (select saga_id from due)
returning {columns};

-- name: own
-- Guarantees: the row is this transaction's to the end, and no other owner's.
select is_cancel_requested, signals from {saga} where saga_id = $1 and owner = $2 and epoch = $3 {lock};

-- name: step
-- Guarantees: what is final stays as it is, what may have landed stays so, and the first attempt keeps its time.
insert into {saga}_step as t (saga_id, phase, name, item, state, seq, attempts, charged, is_maybe_landed, epoch, arguments,
  output, error, started_at, finished_at)
values (cast($2 as text), cast($3 as text), cast($4 as text), cast($5 as text), cast($6 as text), cast($7 as integer),
  cast($8 as integer), cast($9 as integer), cast($10 as boolean), cast($11 as bigint), cast($12 as text),
  cast($13 as {bytes}), cast($14 as text), {now}, case when cast($6 as text) <> 'started' then {now} end)
on conflict (saga_id, phase, name, item) do update set
  state = excluded.state, attempts = excluded.attempts, charged = excluded.charged, epoch = excluded.epoch,
  is_maybe_landed = t.is_maybe_landed or excluded.is_maybe_landed, output = excluded.output, error = excluded.error,
  started_at = case when excluded.attempts = 0 and excluded.phase <> 'flow' then excluded.started_at else t.started_at end,
  finished_at = excluded.finished_at
where t.state not in ('succeeded', 'refused', 'skipped');

-- name: move
-- Guarantees: a signal or a cancel that came before this transaction locked the row makes the saga due at once.
update {saga} set state = $3, cause = coalesce(cause, $4), question = $5, waiting_for = $6,
  is_past_pivot = is_past_pivot or $7, owner = case when $8 then null else owner end,
  wake_at = case when $3 in ('completed', 'compensated', 'abandoned', 'in_review') then null
    when signals > cast($9 as bigint) or is_cancel_requested and $3 = 'running' then {now}
    else {now} + cast($10 as double precision) * {second} end,
  finished_at = case when $3 in ('completed', 'compensated', 'abandoned') then {now} end
where saga_id = $2;

-- name: progress
update {saga} set crashes = 0 where saga_id = $1;

-- name: has_orphan
select exists (select 1 from {saga} s where s.owner is not null and s.service = $1
  and not exists (select 1 from {process} p where p.id = s.owner and p.expires_at > {alive})) as found;

-- name: rescue
-- Guarantees: nothing of a process that lives; a higher epoch, so what the old owner still writes does nothing.
with orphan as materialized (
  select s.saga_id from {saga} s where s.owner is not null and s.service = $2
    and not exists (select 1 from {process} p where p.id = s.owner and p.expires_at > {alive})
  order by s.saga_id limit 1000 {skip_s})
update {saga} set owner = null, epoch = epoch + 1, crashes = crashes + 1,
  wake_at = {now} + {second} * case crashes when 0 then cast($3 as double precision)
    when 1 then cast($4 as double precision) when 2 then cast($5 as double precision)
    when 3 then cast($6 as double precision) else cast($7 as double precision) end
where saga_id in (select saga_id from orphan)
returning {columns};

-- name: keep_signal
-- Guarantees: no row changed if it came before.
insert into {saga}_signal (saga_id, message_id, type, body, received_at)
values (cast($2 as text), cast($3 as text), cast($4 as text), cast($5 as {bytes}), {now})
on conflict (saga_id, message_id) do nothing;

-- name: wake_for_signal
-- Guarantees: the row of the saga is locked here as by its own writes, so none of the two misses the other.
insert into {saga} as s (saga_id, service, name, version, key, state, signals, created_at)
values (cast($2 as text), cast($3 as text), cast($4 as text), 0, cast($5 as text), 'expected', 1, {now})
on conflict (saga_id) do update set signals = s.signals + 1,
  wake_at = case when s.owner is null and s.state = 'running' then {now} else s.wake_at end;

-- name: wake
-- Guarantees: at most $4 rows, none that is owned.
with sleeper as materialized (
  select saga_id from {saga} where service = $2 and waiting_for = $3 and owner is null
    and state in ('running', 'compensating', 'settling') and wake_at > {now}
  order by saga_id limit $4 {skip})
update {saga} set wake_at = {now} where saga_id in (select saga_id from sleeper) returning saga_id;

-- name: saga
select {columns}, {now} as now from {saga} where saga_id = $2;

-- name: locked
select {columns}, {now} as now from {saga} where saga_id = $2 {lock};

-- name: steps
select phase, name, item, state, seq, attempts, charged, is_maybe_landed, epoch, arguments, output, error, started_at,
  finished_at from {saga}_step where saga_id = $1 order by seq, phase, name, item;

-- name: signals
select message_id, type, body from {saga}_signal where saga_id = $1 order by n;

-- name: decide
-- Guarantees: whoever owned it is fenced out.
update {saga} set state = $3, epoch = epoch + 1, owner = null, cause = coalesce(cause, $4), question = $5,
  is_past_pivot = is_past_pivot or $6, waiting_for = null,
  is_cancel_requested = coalesce(cast($7 as boolean), is_cancel_requested), crashes = coalesce($8, crashes),
  wake_at = case when $3 in ('completed', 'compensated', 'abandoned', 'in_review') then null
    else {now} + cast($9 as double precision) * {second} end,
  finished_at = case when $3 in ('completed', 'compensated', 'abandoned') then {now} end
where saga_id = $2;

-- name: search
select {columns} from {saga}
where (cast($1 as text) is null or service = $1) and (cast($2 as text) is null or name = $2)
  and (cast($3 as text) is null or state = $3)
order by created_at desc, saga_id limit $4;

-- name: counts
select name, version, state, {now} as now, count(*) as sagas, min(created_at) as oldest_at,
  min(case when owner is null then wake_at end) as due_at, sum(case when waiting_for = 'code' then 1 else 0 end) as strange
from {saga} where service = $2 and finished_at is null group by name, version, state;

-- name: begun
select s.name, s.version, t.name as step, count(distinct s.saga_id) as sagas
from {saga} s join {saga}_step t on t.saga_id = s.saga_id
where s.service = $1 and s.finished_at is null and t.phase = 'do' group by s.name, s.version, t.name
order by s.name, s.version, t.name;
