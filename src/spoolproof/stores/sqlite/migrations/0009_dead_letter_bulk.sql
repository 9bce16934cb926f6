-- One verb on many dead letters: the whole as one value, and what it is about. is_moved: null until it was taken.
create table spoolproof_dead_letter_bulk (
  id text primary key,
  record text not null,
  started_at real not null,
  ended_at real
) strict, without rowid;
create index spoolproof_dead_letter_bulk_live on spoolproof_dead_letter_bulk (started_at, id) where ended_at is null;
create index spoolproof_dead_letter_bulk_ended on spoolproof_dead_letter_bulk (ended_at) where ended_at is not null;
create table spoolproof_dead_letter_bulk_item (
  bulk_id text not null references spoolproof_dead_letter_bulk on delete cascade,
  dead_letter_id text not null,
  is_moved integer,
  primary key (bulk_id, dead_letter_id)
) strict, without rowid;
create index spoolproof_dead_letter_bulk_next
  on spoolproof_dead_letter_bulk_item (bulk_id, dead_letter_id) where is_moved is null;
