-- Sagas, their journals, and the signals that came for them. A saga may be expected: its signal came before its start.
-- Recording a step changes no indexed column, so most updates are in place.
create table spoolproof.saga (
  saga_id text primary key,
  service text not null,
  name text not null,
  version integer not null,
  key text not null,
  state text not null check (state in
    ('expected', 'running', 'compensating', 'settling', 'in_review', 'completed', 'compensated', 'abandoned')),
  cause text,
  epoch bigint not null default 0,
  owner uuid,
  wake_at timestamptz,
  waiting_for text,
  deadline_at timestamptz,
  is_past_pivot boolean not null default false,
  is_cancel_requested boolean not null default false,
  signals bigint not null default 0,
  crashes integer not null default 0,
  question text,
  created_at timestamptz not null,
  finished_at timestamptz) with (fillfactor = 80);
create index saga_due on spoolproof.saga (service, name, version, wake_at) where owner is null and wake_at is not null;
create index saga_waiting on spoolproof.saga (service, waiting_for, saga_id)
  where owner is null and waiting_for is not null;
create index saga_owned on spoolproof.saga (owner) where owner is not null;
create index saga_live on spoolproof.saga (service, name, version, state) where finished_at is null;
create index saga_finished on spoolproof.saga (finished_at) where finished_at is not null;
create table spoolproof.saga_step (
  saga_id text not null references spoolproof.saga on delete cascade,
  phase text not null check (phase in ('do', 'compensate', 'flow')),
  name text not null,
  item text not null,
  state text not null check (state in ('started', 'succeeded', 'refused', 'unavailable', 'unknown', 'skipped')),
  seq integer not null,
  attempts integer not null,
  charged integer not null,
  is_maybe_landed boolean not null,
  epoch bigint not null,
  arguments text not null,
  output bytea,
  error text not null,
  started_at timestamptz not null,
  finished_at timestamptz,
  primary key (saga_id, phase, name, item)) with (fillfactor = 80);
create table spoolproof.saga_signal (
  n bigint generated always as identity primary key,
  saga_id text not null references spoolproof.saga on delete cascade deferrable initially deferred,
  message_id text not null,
  type text not null,
  body bytea not null,
  received_at timestamptz not null,
  unique (saga_id, message_id));
