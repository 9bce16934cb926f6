-- Everything the first release keeps: outbox, inbox, dead letters, leases.
create schema if not exists spoolproof;

create table spoolproof.schema_version (
  version int primary key,
  name text not null,
  applied_at timestamptz not null default clock_timestamp());

-- One row. store_id tells this database from every other; shards never changes while rows are in the outbox.
create table spoolproof.meta (
  is_only boolean primary key default true check (is_only),
  store_id uuid not null default gen_random_uuid(),
  shards smallint not null check (shards > 0));
insert into spoolproof.meta (shards) values (16);

-- state: 0 ready, 1 deferred until available_at.
-- The table churns: autovacuum must not wait until a fifth of it is dead.
create table spoolproof.outbox (
  shard smallint not null,
  id bigint generated always as identity,
  message_id text not null,
  destination text not null,
  type text not null,
  routing_key text,
  ordering_key text,
  headers jsonb not null,
  body bytea not null,
  state smallint not null default 0 check (state in (0, 1)),
  attempts int not null default 0,
  available_at timestamptz,
  last_error text,
  created_at timestamptz not null default clock_timestamp(),
  primary key (shard, id),
  check ((state = 1) = (available_at is not null))
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 20000);
create index outbox_held on spoolproof.outbox (shard, destination, ordering_key, id) where state <> 0;
create index outbox_deferred on spoolproof.outbox (shard, available_at) where state = 1;

create table spoolproof.inbox (
  consumer text not null,
  message_id text not null,
  processed_at timestamptz not null default clock_timestamp(),
  primary key (consumer, message_id)
) with (autovacuum_vacuum_scale_factor = 0.02);
create index inbox_processed on spoolproof.inbox (processed_at);

create table spoolproof.dead_letter (
  id uuid primary key,
  consumer text not null,
  message_id text not null,
  destination text not null,
  routing_key text,
  ordering_key text,
  type text not null,
  headers jsonb not null,
  body bytea not null,
  reason text not null,
  fingerprint text not null,
  error_class text not null,
  error text not null,
  stack text not null,
  attempts jsonb not null,
  state text not null default 'open' check (state in ('open', 'replaying', 'resolved', 'discarded')),
  replays int not null default 0,
  note text,
  first_failed_at timestamptz not null,
  last_failed_at timestamptz not null,
  closed_at timestamptz,
  unique (consumer, message_id),
  check ((state in ('resolved', 'discarded')) = (closed_at is not null)));
create index dead_letter_age on spoolproof.dead_letter (state, first_failed_at, id);
create index dead_letter_closed on spoolproof.dead_letter (closed_at) where closed_at is not null;

create table spoolproof.dead_letter_audit (
  id bigint generated always as identity primary key,
  dead_letter_id uuid not null references spoolproof.dead_letter on delete cascade,
  at timestamptz not null default clock_timestamp(),
  actor text not null,
  verb text not null,
  detail text not null default '');
create index dead_letter_audit_of on spoolproof.dead_letter_audit (dead_letter_id, id);

-- owner is null and lease_until -infinity while nobody holds it. Rows are updated in place every few seconds.
create table spoolproof.lease (
  kind text not null,
  name text not null,
  owner uuid,
  epoch bigint not null default 0,
  lease_until timestamptz not null default '-infinity',
  primary key (kind, name)
) with (fillfactor = 50);

create table spoolproof.process (
  id uuid primary key,
  service text not null,
  host text not null,
  pid int not null,
  roles text[] not null,
  is_draining boolean not null default false,
  started_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null
) with (fillfactor = 50);
