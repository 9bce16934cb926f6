-- The transaction of a row has its number before the row has its id: CASE evaluates in order. So whoever has read how far
-- the ids are drawn, and takes a number for itself after that, has a higher number than everybody who holds one of these
-- ids, and a snapshot tells who of them is still at it.
lock table spoolproof.outbox;
create sequence spoolproof.outbox_order as bigint owned by spoolproof.outbox.id;
select setval('spoolproof.outbox_order', last_value, is_called) from spoolproof.outbox_id_seq;
alter table spoolproof.outbox alter column id drop identity;
alter table spoolproof.outbox alter column id
  set default case when pg_current_xact_id() is not null then nextval('spoolproof.outbox_order') end;

-- Set when it has been read how far the ids are drawn, so that the commit waits until that is on the disk: a crash of the
-- server must not give an id out again that a relay has already passed.
create sequence spoolproof.outbox_mark;

-- an identity asked for no right of its own from whoever may insert
grant usage, select on sequence spoolproof.outbox_order to public;
grant update on sequence spoolproof.outbox_mark to public;
