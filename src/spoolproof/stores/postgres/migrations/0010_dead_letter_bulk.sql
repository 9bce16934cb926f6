-- One verb on many dead letters: the whole as one value, and what it is about. is_moved: null until it was taken.
create table spoolproof.dead_letter_bulk (
  id uuid primary key,
  record text not null,
  started_at timestamptz not null,
  ended_at timestamptz);
create index dead_letter_bulk_live on spoolproof.dead_letter_bulk (started_at, id) where ended_at is null;
create index dead_letter_bulk_ended on spoolproof.dead_letter_bulk (ended_at) where ended_at is not null;
create table spoolproof.dead_letter_bulk_item (
  bulk_id uuid not null references spoolproof.dead_letter_bulk on delete cascade,
  dead_letter_id uuid not null,
  is_moved int,
  primary key (bulk_id, dead_letter_id));
create index dead_letter_bulk_next on spoolproof.dead_letter_bulk_item (bulk_id, dead_letter_id) where is_moved is null;
