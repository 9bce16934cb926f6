-- Questions that a person decides, and the chain of what was done to each. closed_at: for retention alone.
create table spoolproof_review_item (
  id text primary key,
  service text not null,
  kind text not null,
  subject text not null,
  state text not null check (state in ('open', 'resolved')),
  opened_at real not null,
  due_at real not null,
  claim_until real,
  resolved_at real,
  record text not null,
  message blob
) strict;
create unique index spoolproof_review_item_open on spoolproof_review_item (service, kind, subject) where state = 'open';
create index spoolproof_review_item_due on spoolproof_review_item (state, due_at, id);
create index spoolproof_review_item_resolved on spoolproof_review_item (resolved_at) where resolved_at is not null;

create table spoolproof_review_event (
  review_id text not null,
  n integer not null,
  record text not null,
  closed_at real,
  primary key (review_id, n)
) strict, without rowid;
create index spoolproof_review_event_closed on spoolproof_review_event (closed_at) where closed_at is not null;
