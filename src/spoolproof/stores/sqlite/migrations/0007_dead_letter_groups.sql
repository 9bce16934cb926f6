-- Dead letters by what failed, edited, and moved many at a time.
alter table spoolproof_dead_letter add column replayed_at real;
alter table spoolproof_dead_letter add column version integer not null default 1;
alter table spoolproof_dead_letter add column original_body blob;
create index spoolproof_dead_letter_groups
  on spoolproof_dead_letter (fingerprint, consumer, last_failed_at, first_failed_at) where state = 'open';
