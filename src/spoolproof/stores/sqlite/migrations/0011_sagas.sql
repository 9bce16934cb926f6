-- Sagas, their journals, and the signals that came for them. A saga may be expected: its signal came before its start.
create table spoolproof_saga (
  saga_id text primary key,
  service text not null,
  name text not null,
  version integer not null,
  key text not null,
  state text not null check (state in
    ('expected', 'running', 'compensating', 'settling', 'in_review', 'completed', 'compensated', 'abandoned')),
  cause text,
  epoch integer not null default 0,
  owner text,
  wake_at real,
  waiting_for text,
  deadline_at real,
  is_past_pivot integer not null default 0,
  is_cancel_requested integer not null default 0,
  signals integer not null default 0,
  crashes integer not null default 0,
  question text,
  created_at real not null,
  finished_at real
) strict, without rowid;
create index spoolproof_saga_due on spoolproof_saga (service, name, version, wake_at)
  where owner is null and wake_at is not null;
create index spoolproof_saga_waiting on spoolproof_saga (service, waiting_for, saga_id)
  where owner is null and waiting_for is not null;
create index spoolproof_saga_owned on spoolproof_saga (owner) where owner is not null;
create index spoolproof_saga_live on spoolproof_saga (service, name, version, state) where finished_at is null;
create index spoolproof_saga_finished on spoolproof_saga (finished_at) where finished_at is not null;
create table spoolproof_saga_step (
  saga_id text not null references spoolproof_saga on delete cascade,
  phase text not null check (phase in ('do', 'compensate', 'flow')),
  name text not null,
  item text not null,
  state text not null check (state in ('started', 'succeeded', 'refused', 'unavailable', 'unknown', 'skipped')),
  seq integer not null,
  attempts integer not null,
  charged integer not null,
  is_maybe_landed integer not null,
  epoch integer not null,
  arguments text not null,
  output blob,
  error text not null,
  started_at real not null,
  finished_at real,
  primary key (saga_id, phase, name, item)
) strict, without rowid;
create table spoolproof_saga_signal (
  n integer primary key,
  saga_id text not null references spoolproof_saga on delete cascade deferrable initially deferred,
  message_id text not null,
  type text not null,
  body blob not null,
  received_at real not null,
  unique (saga_id, message_id)
) strict;
