-- Keys of effects that a receiver has had, with the answer it gave. withdrawn: undone, or not to take place any more.
create table spoolproof.effect_key (
  service text not null,
  scope text not null,
  key text not null,
  state text not null check (state in ('landed', 'withdrawn')),
  answer bytea,
  created_at timestamptz not null default clock_timestamp(),
  primary key (service, scope, key));
create index effect_key_created on spoolproof.effect_key (created_at);
