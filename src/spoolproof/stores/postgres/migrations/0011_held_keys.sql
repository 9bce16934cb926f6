-- Keys that wait for the one of their messages that failed, and what waits behind it.
alter table spoolproof.dead_letter
  drop constraint dead_letter_state_check,
  add constraint dead_letter_state_check check (state in ('open', 'replaying', 'held', 'resolved', 'discarded')),
  add column hold_seq bigint;
create index dead_letter_held on spoolproof.dead_letter (consumer, ordering_key, hold_seq) where state = 'held';

create table spoolproof.held_key (
  consumer text not null,
  ordering_key text not null,
  head uuid not null,
  last_seq bigint not null default 0,
  since timestamptz not null default clock_timestamp(),
  primary key (consumer, ordering_key)
);
