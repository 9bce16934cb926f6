-- Questions that a person decides, and the chain of what was done to each. closed_at: for retention alone.
create table spoolproof.review_item (
  id text collate "C" primary key,
  service text not null,
  kind text not null,
  subject text not null,
  state text not null check (state in ('open', 'resolved')),
  opened_at timestamptz not null,
  due_at timestamptz not null,
  claim_until timestamptz,
  resolved_at timestamptz,
  record text not null,
  message bytea);
create unique index review_item_open on spoolproof.review_item (service, kind, subject) where state = 'open';
create index review_item_due on spoolproof.review_item (state, due_at, id);
create index review_item_resolved on spoolproof.review_item (resolved_at) where resolved_at is not null;

create table spoolproof.review_event (
  review_id text collate "C" not null,
  n int not null,
  record text not null,
  closed_at timestamptz,
  primary key (review_id, n));
create index review_event_closed on spoolproof.review_event (closed_at) where closed_at is not null;
