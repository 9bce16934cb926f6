-- Dead letters by what failed, edited, and moved many at a time.
alter table spoolproof.dead_letter
  add column replayed_at timestamptz,
  add column version int not null default 1,
  add column original_body bytea;
create index dead_letter_groups on spoolproof.dead_letter (fingerprint, consumer, last_failed_at, first_failed_at)
  where state = 'open';
