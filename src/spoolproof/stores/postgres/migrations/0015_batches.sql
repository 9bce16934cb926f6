-- Batches and their items; an item's payload is there to be sent again.
create table spoolproof.batch (
  id text primary key,
  service text not null,
  job text not null,
  state text not null,
  total int not null,
  started_at timestamptz not null,
  finished_at timestamptz
);
create index batch_started on spoolproof.batch (started_at);
create index batch_running on spoolproof.batch (service) where state = 'running';
create index batch_finished on spoolproof.batch (finished_at) where finished_at is not null;

create table spoolproof.batch_item (
  batch_id text not null,
  n int not null,
  state text not null,
  body text not null,
  record text not null,
  closed_at timestamptz,
  primary key (batch_id, n)
);
create index batch_item_pending on spoolproof.batch_item (batch_id) where state = 'pending';
create index batch_item_closed on spoolproof.batch_item (closed_at) where closed_at is not null;
