-- Batches and their items; an item's payload is there to be sent again.
create table spoolproof_batch (
  id text primary key,
  service text not null,
  job text not null,
  state text not null,
  total int not null,
  started_at real not null,
  finished_at real
) strict;
create index spoolproof_batch_started on spoolproof_batch (started_at);
create index spoolproof_batch_running on spoolproof_batch (service) where state = 'running';
create index spoolproof_batch_finished on spoolproof_batch (finished_at) where finished_at is not null;

create table spoolproof_batch_item (
  batch_id text not null,
  n int not null,
  state text not null,
  body text not null,
  record text not null,
  closed_at real,
  primary key (batch_id, n)
) strict;
create index spoolproof_batch_item_pending on spoolproof_batch_item (batch_id) where state = 'pending';
create index spoolproof_batch_item_closed on spoolproof_batch_item (closed_at) where closed_at is not null;
