-- Everything the first release keeps: outbox, inbox, dead letters, leases. Times are Unix seconds of SQLite's clock.
create table if not exists spoolproof_schema_version (
  version integer primary key,
  name text not null,
  applied_at real not null default ((julianday('now') - 2440587.5) * 86400.0)
) strict;

-- state: 0 ready, 1 deferred until available_at.
-- autoincrement: an id must never come back, or a late remove of the old row would take the new one.
create table spoolproof_outbox (
  id integer primary key autoincrement,
  shard integer not null,
  message_id text not null,
  destination text not null,
  type text not null,
  routing_key text,
  ordering_key text,
  headers text not null,
  body blob not null,
  state integer not null default 0 check (state in (0, 1)),
  attempts integer not null default 0,
  available_at real,
  last_error text,
  created_at real not null default ((julianday('now') - 2440587.5) * 86400.0),
  check ((state = 1) = (available_at is not null))
) strict;
create index spoolproof_outbox_ready on spoolproof_outbox (shard, id) where state = 0;
create index spoolproof_outbox_held on spoolproof_outbox (shard, destination, ordering_key, id) where state <> 0;
create index spoolproof_outbox_deferred on spoolproof_outbox (shard, available_at) where state = 1;

create table spoolproof_inbox (
  consumer text not null,
  message_id text not null,
  processed_at real not null default ((julianday('now') - 2440587.5) * 86400.0),
  primary key (consumer, message_id)
) strict, without rowid;
create index spoolproof_inbox_processed on spoolproof_inbox (processed_at);

create table spoolproof_dead_letter (
  id text primary key,
  consumer text not null,
  message_id text not null,
  destination text not null,
  routing_key text,
  ordering_key text,
  type text not null,
  headers text not null,
  body blob not null,
  reason text not null,
  fingerprint text not null,
  error_class text not null,
  error text not null,
  stack text not null,
  attempts text not null,
  state text not null default 'open' check (state in ('open', 'replaying', 'resolved', 'discarded')),
  replays integer not null default 0,
  note text,
  first_failed_at real not null,
  last_failed_at real not null,
  closed_at real,
  unique (consumer, message_id),
  check ((state in ('resolved', 'discarded')) = (closed_at is not null))
) strict;
create index spoolproof_dead_letter_age on spoolproof_dead_letter (state, first_failed_at, id);
create index spoolproof_dead_letter_closed on spoolproof_dead_letter (closed_at) where closed_at is not null;

create table spoolproof_dead_letter_audit (
  id integer primary key,
  dead_letter_id text not null references spoolproof_dead_letter on delete cascade,
  at real not null default ((julianday('now') - 2440587.5) * 86400.0),
  actor text not null,
  verb text not null,
  detail text not null default ''
) strict;
create index spoolproof_dead_letter_audit_of on spoolproof_dead_letter_audit (dead_letter_id, id);

-- owner is null and lease_until 0 while nobody holds it.
create table spoolproof_lease (
  kind text not null,
  name text not null,
  owner text,
  epoch integer not null default 0,
  lease_until real not null default 0,
  primary key (kind, name)
) strict, without rowid;

create table spoolproof_process (
  id text primary key,
  service text not null,
  host text not null,
  pid integer not null,
  roles text not null,
  is_draining integer not null default 0,
  started_at real not null default ((julianday('now') - 2440587.5) * 86400.0),
  expires_at real not null
) strict, without rowid;
