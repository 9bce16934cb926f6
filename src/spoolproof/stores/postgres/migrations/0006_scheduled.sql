-- Messages that are not due yet. An id may be scheduled more than once, as it may be published more than once.
create table spoolproof.scheduled (
  id bigint generated always as identity primary key,
  service text not null,
  due_at timestamptz not null,
  shard smallint not null,
  message_id text not null,
  destination text not null,
  type text not null,
  routing_key text,
  ordering_key text,
  headers jsonb not null,
  body bytea not null,
  created_at timestamptz not null default clock_timestamp());
create index scheduled_due on spoolproof.scheduled (service, due_at, id);
create index scheduled_message on spoolproof.scheduled (message_id);
