-- Keys that wait for the one of their messages that failed, and what waits behind it. SQLite changes no check, so both
-- tables are made again; the old audit goes first, or it would go with its dead letters.
create table spoolproof_dead_letter_next (
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
  state text not null default 'open' check (state in ('open', 'replaying', 'held', 'resolved', 'discarded')),
  replays integer not null default 0,
  note text,
  first_failed_at real not null,
  last_failed_at real not null,
  closed_at real,
  service text not null default '',
  given_id text,
  replayed_at real,
  version integer not null default 1,
  original_body blob,
  hold_seq integer,
  unique (consumer, message_id),
  check ((state in ('resolved', 'discarded')) = (closed_at is not null))
) strict;
insert into spoolproof_dead_letter_next (
  id, consumer, message_id, destination, routing_key, ordering_key, type, headers, body, reason, fingerprint, error_class,
  error, stack, attempts, state, replays, note, first_failed_at, last_failed_at, closed_at, service, given_id,
  replayed_at, version, original_body)
select
  id, consumer, message_id, destination, routing_key, ordering_key, type, headers, body, reason, fingerprint, error_class,
  error, stack, attempts, state, replays, note, first_failed_at, last_failed_at, closed_at, service, given_id,
  replayed_at, version, original_body
from spoolproof_dead_letter;
create table spoolproof_dead_letter_audit_next (
  id integer primary key,
  dead_letter_id text not null references spoolproof_dead_letter_next on delete cascade,
  at real not null default ((julianday('now') - 2440587.5) * 86400.0),
  actor text not null,
  verb text not null,
  detail text not null default ''
) strict;
insert into spoolproof_dead_letter_audit_next (id, dead_letter_id, at, actor, verb, detail)
select id, dead_letter_id, at, actor, verb, detail from spoolproof_dead_letter_audit;
drop table spoolproof_dead_letter_audit;
drop table spoolproof_dead_letter;
alter table spoolproof_dead_letter_next rename to spoolproof_dead_letter;
alter table spoolproof_dead_letter_audit_next rename to spoolproof_dead_letter_audit;
create index spoolproof_dead_letter_age on spoolproof_dead_letter (state, first_failed_at, id);
create index spoolproof_dead_letter_closed on spoolproof_dead_letter (closed_at) where closed_at is not null;
create index spoolproof_dead_letter_groups
  on spoolproof_dead_letter (fingerprint, consumer, last_failed_at, first_failed_at) where state = 'open';
create index spoolproof_dead_letter_held on spoolproof_dead_letter (consumer, ordering_key, hold_seq) where state = 'held';
create index spoolproof_dead_letter_audit_of on spoolproof_dead_letter_audit (dead_letter_id, id);

create table spoolproof_held_key (
  consumer text not null,
  ordering_key text not null,
  head text not null,
  last_seq integer not null default 0,
  since real not null default ((julianday('now') - 2440587.5) * 86400.0),
  primary key (consumer, ordering_key)
) strict, without rowid;
