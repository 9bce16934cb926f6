-- Messages that are not due yet. An id may be scheduled more than once, as it may be published more than once.
create table spoolproof_scheduled (
  id integer primary key autoincrement,
  service text not null,
  due_at real not null,
  shard integer not null,
  message_id text not null,
  destination text not null,
  type text not null,
  routing_key text,
  ordering_key text,
  headers text not null,
  body blob not null,
  created_at real not null default ((julianday('now') - 2440587.5) * 86400.0)
) strict;
create index spoolproof_scheduled_due on spoolproof_scheduled (service, due_at, id);
create index spoolproof_scheduled_message on spoolproof_scheduled (message_id);
