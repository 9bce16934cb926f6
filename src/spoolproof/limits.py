"""Every bound of the product, each with its reason. What a user may want to change is in `settings` instead."""

from __future__ import annotations

# --- a message ---------------------------------------------------------------------------------------------------
BODY_BYTES_MAX = 1024 * 1024
"""A larger payload belongs in object storage with its address in the message; brokers slow down for everybody."""
HEADERS_BYTES_MAX = 16 * 1024
"""User headers together, keys and values; AMQP needs a whole header in memory per delivery."""
HEADERS_COUNT_MAX = 64
SHORT_TEXT_BYTES_MAX = 255
"""id, type, key, correlation id: AMQP 0-9-1 short strings."""
MESSAGES_PER_TRANSACTION_MAX = 10_000
"""They are kept in memory until COMMIT; more than this is a bulk load, which wants several transactions."""

# --- outbox and relay --------------------------------------------------------------------------------------------
SHARDS_POSTGRES = 16
"""Enough for 16 relays, few enough to renew in one statement."""
SHARDS_SQLITE = 1
"""One machine, one writer: more shards would only add leases."""
LEASE_SECONDS = 15.0
LEASE_SECONDS_MAX = 300.0
"""Of what a user may set; a lease that lasts longer yet was written by another clock."""
RENEW_SHARE = 1 / 3
"""Of a lease, after which it is renewed: every 5 s, so that one renewal may be lost."""
FENCE_SHARE = 2 / 3
"""Of a lease, for which its holder trusts it: a lease minus one beat. No new publish later than this, 10 s, after the
last answered renewal was sent."""
SEEK_SECONDS = 1.5
"""How often free shards are sought: lease + sweep = take-over in at most 17 s."""
RELAY_BATCH_ROWS_MAX = 500
DELETE_INTERVAL_SECONDS = 0.01
DELETE_BATCH_ROWS_MAX = 256
CONFIRMED_UNDELETED_MAX = 10_000
"""Confirmed rows remembered while the store is away, so that its return republishes nothing. Full: the relay pauses."""
LATE_WRITER_SECONDS = 1.0
"""How long the relay's cursor waits for a transaction that may commit a lower id; most take milliseconds. Then it moves
on, and goes back once that one has ended."""
POLL_FIRST_SECONDS = 0.05
POLL_MAX_SECONDS = 1.0
"""A lost wake-up costs at most one poll."""
UNROUTABLE_DELAYS_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0)
"""Six minutes for a queue to be declared; the sixth return makes a dead letter."""
DEFERRED_ROW_SECONDS_MAX = 600.0
"""Twice the longest of them; a row that waits longer yet was deferred by another clock."""
WEBHOOK_DELAYS_SECONDS = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""± 10 %, after each failed attempt; the tenth makes a dead letter. Source: the schedule of the Standard Webhooks
specification, some 76 hours."""
WEBHOOK_DEFERRED_SECONDS_MAX = 1.2 * WEBHOOK_DELAYS_SECONDS[-1]
WEBHOOK_FAILING_SECONDS_MAX = 72 * 3_600.0
"""An endpoint that took nothing for so long is paused: somebody has to look."""
WEBHOOK_RETRY_AFTER_SECONDS_MAX = 3_600.0
WEBHOOK_CONNECT_SECONDS = 5.0
WEBHOOK_SECONDS = 15.0
"""From looking up the name to the end of the answer; the specification asks for 15 to 30."""
WEBHOOK_CONCURRENCY = 4
WEBHOOK_LANE_ROWS_MAX = 64
WEBHOOK_LANE_BYTES_MAX = 1024 * 1024
"""In memory for one endpoint: enough that its next POST need not wait for the store, and small times a thousand."""
WEBHOOK_ANSWER_BYTES_MAX = 16 * 1024
WEBHOOK_ENDPOINTS_MAX = 1_000
WEBHOOK_LOOK_SECONDS = 5.0
"""How late a process may learn that an endpoint was paused or changed."""
UNROUTABLE_PAUSE_COUNT = 100
UNROUTABLE_PAUSE_WINDOW_SECONDS = 60.0
UNROUTABLE_PROBE_SECONDS = 30.0
"""Over 100 returns of one (destination, type) in 60 s is a missing queue, not 100 bad messages: rows stay, one probe
each 30 s."""
NACK_PAUSE_FIRST_SECONDS = 1.0
NACK_PAUSE_MAX_SECONDS = 30.0
STATE_BYTES_MAX = 64 * 1024
"""A fact a process keeps for its successor is a few hundred bytes; what is larger belongs in a table of its own."""
ROWS_COUNTED_MAX = 100_000
"""Backlogs and dead letters are counted no further: an alarm rings long before, and a count reads every row."""
STATEMENT_SECONDS = 5.0
"""A statement without a limit hangs for ever on a dead peer."""
MAINTENANCE_STATEMENT_SECONDS = 30.0

# --- SQLite ------------------------------------------------------------------------------------------------------
WRITER_REQUESTS_MAX = 10_000
WRITER_BYTES_MAX = 64 * 1024 * 1024
"""Bodies kept in memory while they wait for the writer."""
WRITER_LOCK_POLL_SECONDS = 0.0005
"""How often a process looks whether another one has stopped writing; well under one fsync."""
WRITER_BATCH_MAX = 256
"""Requests that share one COMMIT: the fsync is then 1/256 of each, and the first waits for at most 256 inserts."""
CHECKPOINT_PAGES = 1000
CHECKPOINT_SECONDS = 10.0
CHECKPOINT_BUSY_SECONDS = 0.25
"""How long a checkpoint waits for readers of the old log; every writer waits with it."""
USER_TRANSACTION_SECONDS_MAX = 5.0
"""SQLite has one writer; whoever keeps it stops everybody."""
DATABASE_CLOSE_SECONDS = 10.0
"""Requests that wait are committed before the file is closed; a file that has not answered by then hangs."""
EMBEDDED_QUEUE_ROWS_MAX = 1_000_000

# --- spool -------------------------------------------------------------------------------------------------------
SPOOL_STORE_SECONDS = 2.0
"""How long a publish waits for the store before it goes to the spool: a caller with an HTTP request waits with it."""
SPOOL_FAILURES = 5
"""In a row; then nobody waits for the store any more, until it answers a ping."""
SPOOL_PROBE_SECONDS = 5.0
SPOOL_ADOPT_SECONDS = 15.0
"""How often files of processes that ended are looked for: a restart is found by its own start."""
SPOOL_MOVE_ROWS = 200
SPOOL_MOVES_PER_TURN = 25
SPOOL_FILLING = 0.8
"""Of any limit; from here on health and log say so."""

# --- PostgreSQL --------------------------------------------------------------------------------------------------
POSTGRES_CONNECTIONS_MAX = 20
"""For transactions, per process; opened as needed. The server's default of 100 serves four such processes."""
POSTGRES_UPKEEP_CONNECTIONS_MAX = 3
"""For leases, dead letters and pings, so that busy handlers never starve a renewal. The relay has one of its own."""
POSTGRES_CONNECT_SECONDS = 5.0
"""DNS, TCP, TLS and the log-in together; a healthy server needs well under 1 s."""
OUTBOX_ESTIMATE_SECONDS = 5.0
"""How often a publisher asks how full the outbox is; counting at every append would cost more than the append."""
SCHEDULED_ROWS_MAX = 1_000_000
"""Of one service; counted before a further one is taken, which a million rows still allow."""
SCHEDULE_DAYS_MAX = 366
"""What is due in a year is a plan of the business, and belongs into its own tables."""
SCHEDULE_SECONDS = 1.0
"""How often what is due is looked for: with a portion's own time a message is at most 2 s late."""
SCHEDULE_LATE_SECONDS = 5.0
"""What is promoted later than this is told: more than a look and a portion has come between."""
RECURRING_DECLARE_SECONDS = 5.0
"""How often a process says which functions it runs by the clock; one UPDATE for each."""
RECURRING_FRESH_SECONDS = 15.0
"""What nobody has declared for three times as long is not run; as long as a lease lasts."""
RECURRING_FORGOTTEN_SECONDS = 300.0
"""When it is deleted: a process that was frozen for less finds its times as they were."""
SCHEDULE_ROWS_MAX = 500
"""Moved at a time: short enough that nobody waits for it, also on SQLite."""
PROMOTE_ROWS_MAX = 1000
"""Deferred rows made ready in one statement, per shard; the next poll takes the rest."""
NOTIFY_INTERVAL_SECONDS = 0.05
"""NOTIFY takes a global lock at commit: rings of one process share one."""
LISTEN_PROBE_SECONDS = 15.0
LISTEN_PROBE_ANSWER_SECONDS = 2.0
"""A LISTEN connection is silent by nature: only asking shows that it is dead."""

# --- requests ----------------------------------------------------------------------------------------------------
REQUEST_SECONDS_MAX = 3600.0
"""What is asked for longer than that is a saga or an event back: who asks must live as long."""
REQUESTS_WAITING_MAX = 10_000
"""Requests of one process without an answer: each is a task that waits."""
REPLY_QUEUE_SECONDS = 600.0
"""Without a consumer, until the broker removes it: longer than an outage that a process lives through."""

# --- broker ------------------------------------------------------------------------------------------------------
PUBLISH_WINDOW = 256
"""Unconfirmed publishes per channel: hides a 10 ms confirm at 25 000/s and bounds the duplicates after a crash."""
PUBLISH_WINDOW_BYTES_MAX = 16 * 1024 * 1024
CONFIRM_SECONDS = 10.0
"""No confirm for this long is an unknown outcome, and the row stays; none at all, and the connection is given up."""
CONNECT_SECONDS = 5.0
"""DNS, TCP, TLS and AMQP open together; a healthy broker needs well under 1 s."""
CONNECT_ROUND_CAP_SECONDS = 60.0
RECONNECT_FIRST_SECONDS = 0.25
"""The first round after losing a good connection starts after 0 to this."""
STABLE_SECONDS = 30.0
"""Connected this long resets the back-off, so a flapping broker is not hammered."""
PROBE_INTERVAL_SECONDS = 0.5
PROBE_CONNECT_SECONDS = 1.0
HEARTBEAT_SECONDS = 8
"""The broker then says something at least every 8 s (it looks every 4 s whether it has said anything in between)."""
SILENCE_SECONDS = 10.0
"""Nothing heard for this long, or for a heartbeat and a quarter: the node is dead or frozen, another one is tried."""
FLAPS_ISSUE_COUNT = 3
"""Connections in a row that did not last: not an outage any more, but something that goes on."""
CLOSE_SECONDS = 5.0
RPC_SECONDS = 5.0
"""A broker that leaves a question unanswered for this long is taken for dead."""
DECLARE_SECONDS = 30.0
"""A new quorum queue elects a leader and touches the disk; on a busy cluster that is seconds, not milliseconds."""
TOPOLOGY_CHECK_SECONDS = 60.0
"""How often it is looked whether all that was declared is there; far below the six minutes of an unroutable row."""
TOPOLOGY_REPAIR_SECONDS = 1.0
"""How often at most while messages say that something is missing."""
QUEUE_SILENT_SECONDS = 3.0
"""A publish still unconfirmed after this, while later ones of other queues were: its queue has no leader. An election
takes well under a second."""
SILENT_KINDS_MAX = 256
FRESH_CHANNEL_SECONDS = 1.0
"""How long the first publish of a channel is waited for alone: a resource alarm is told within milliseconds of it."""
DECLARE_PATIENCE_SECONDS = 5.0
"""How long a new connection waits for the slowest of its queues; the declaration goes on, and nobody waits for it."""
VANISHED_KEPT_SECONDS = 600.0
"""How long an issue tells of what had vanished: what was in a queue is lost, and somebody should know."""
SETUP_SECONDS = 120.0
"""Declaring everything and opening every subscription on a new connection; dozens of queues are normal."""
LATE_CONFIRMS_MAX = 64
"""Unanswered publishes a channel may drag along before it is replaced."""
BLOCKED_ISSUE_SECONDS = 30.0
"""A resource alarm shorter than this is nobody's business."""
BARRED_KEPT_SECONDS = 120.0
"""Four probes of 30 s: a kind of message that was barred and is not sent any more is no issue."""
BARRED_ISSUES_MAX = 5
ENDS_WINDOW_SECONDS = 60.0
"""Two channels or connections lost over publishes within this: what was on its way goes on one by one."""
SUSPECT_WAIT_SECONDS = 1.0
"""How long a message that may be at fault waits for another one to go first."""
RESUBSCRIBE_FIRST_SECONDS = 1.0
RESUBSCRIBE_MAX_SECONDS = 30.0
TRIAL_MAX_SECONDS = 10.0
"""Between two looks, on a connection of its own, whether a queue that ended a connection can be consumed."""
TRIAL_SECONDS = 20.0
"""For one look; RabbitMQ needs 13 s to find that a quorum queue has no leader."""
TRIALS_MAX = 4
"""Such connections at once: each may be kept waiting by the broker for a quarter of a minute."""
DELIVERY_LIMIT = 50
"""Redeliveries by the broker before it dead-letters by itself: above our 8 attempts plus deploys."""
DELIVERIES_WORN = 10
"""Delivered this often, by restarts or by a gate that sends it back, a message goes as a copy, which the broker counts
anew. Half of what
RabbitMQ 4 allows in a queue that others declared."""
CLAIM_SECONDS = 30.0
"""Embedded broker: a delivery is claimed for 30 s; its process renews every third of that."""
EMBEDDED_SILENT_SECONDS = 10.0
"""Two statements at their limit; a file that takes longer hangs, and a broker on it counts as away."""
EMBEDDED_POLL_SECONDS = 0.05
"""How late a message of another process is noticed; one read of a counter each time."""
RESCUE_SECONDS = 0.5
"""How often the locks of peers are tried: the messages of a killed process go on within a second."""
RELEASE_ROWS_MAX = 1000
"""Delayed messages sent on in one commit; it bounds how long the writer is held."""

# --- SQS and SNS -------------------------------------------------------------------------------------------------
SQS_MESSAGE_BYTES_MAX = 256 * 1024
"""SNS's own limit, body and attributes together, for one message and for a batch."""
SQS_DELAY_SECONDS_MAX = 900
"""SQS's own limit."""
SQS_WAIT_SECONDS = 5
"""How long a receive waits for a message, and a stop for that receive: cut off, it may take messages along, which are
then unseen for a visibility timeout. Longer costs less: a request per queue each time."""
SQS_VISIBILITY_SECONDS = 60
"""How long a message is ours, extended every third of it: what a killed process held is back in a minute."""
SQS_RECEIVES_MAX = 1000
"""SQS's own limit for a redrive policy."""
SQS_HELD_SECONDS_MAX = 11 * 3600.0
"""SQS lets nobody keep a message for more than twelve hours."""
SQS_RETENTION_SECONDS = 14 * 86400
"""The longest there is; the default of four days is a long weekend."""
SQS_RECONNECT_SECONDS_MAX = 1.0
"""Between two tries while nothing answers, so that a return is used within a second."""
SQS_BACKOFF_SECONDS_MAX = 30.0
"""Between two tries after 5xx, a throttling or a refused key, doubling up to this."""

# --- consumer ----------------------------------------------------------------------------------------------------
ATTEMPTS = 8
DELAYS_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0)
"""With 8 attempts: two at once, six through the tiers, 21 minutes in all."""
TIERS_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 21600)
"""Delay queues; one fixed delay per queue, so nothing waits behind a longer one."""
ORDERED_ATTEMPTS = 7
ORDERED_DELAYS_SECONDS = (1.0, 5.0, 15.0, 60.0)
"""In its place, its lane waiting: 3.5 minutes and the handler's own time, far below the broker's own limit."""
ORDERED_LANES = 64
"""Keys that share a lane wait for each other; at the default concurrency that is one in six while all are busy."""
ORDERED_PREFETCH_PER_CONCURRENCY = 10
"""What waits behind a failing message of its key stays in the prefetch, and the others still need room there."""
ORDERED_DELIVERY_LIMIT = 1_000_000
"""An ordered message goes back whenever it was held for long, and no copy of it may begin anew: it is never worn out.
A quorum queue puts back at the head only what has a limit."""
ORDERED_BACK_SECONDS = 1.0
"""Between the reason to give everything back and doing so."""
HELD_MESSAGES_MAX = 10_000
"""Behind one held key; then its lane waits, and what comes stays in the broker."""
HELD_POLL_SECONDS = 1.0
"""How soon a released key goes on: an index that is nearly empty is read."""
HELD_KEYS_AT_ONCE = 100
HELD_FULL_SECONDS = 5.0
ORDERED_BEGUN_MAX = 10_000
"""Messages whose failed attempts one queue remembers here; the oldest go, and begin to count again."""
IMMEDIATE_RETRY_SECONDS = 0.1
COPY_PAUSE_FIRST_SECONDS = 0.5
COPY_PAUSE_MAX_SECONDS = 5.0
"""Between two tries to send one copy, doubling: its lane waits, and a refusal costs the broker a channel."""
HANDLER_SECONDS = 30.0
CONCURRENCY = 10
HANDLER_THREADS = 40
"""Of handlers that are plain functions, in one process: four queues at the default concurrency."""
PREFETCH_PER_CONCURRENCY = 2
"""Prefetch is twice the concurrency: hides a round trip; a crash redelivers at most that many."""
CONSUMER_TIMEOUT_SECONDS = 1800.0
"""RabbitMQ's own default; a handler may use at most two thirds of it."""
DEFER_IN_PLACE_SECONDS = 2.0
DEFER_FIRST_SECONDS = 1.0
DEFER_GROWTH_SECONDS_MAX = 300.0
"""A deferred message waits as long again as it has waited already, between these two: its wait doubles, and it is back
at most five minutes after the outage."""
DEFERRED_SECONDS_MAX = 86_400.0
"""An outage this long has an open breaker; deferred again without one, it is the message, and a person decides."""
AWAY_SECONDS_MAX = 60
"""The delay of a copy that goes in the place of a delivery held in vain."""
CONSUMER_TIMEOUT_ASKED_SECONDS = 10.0
"""How often it is asked whether the broker has shown a shorter one."""
UNKNOWN_SECONDS_MAX = 900.0
"""A type or version that no handler here knows waits this long: a rolling deploy, in which two releases of one service
read one queue, is over by then."""
UNKNOWN_WAIT_SECONDS_MAX = 60.0
"""How long it stays away at a time, so that the new release has it within a minute."""
BATCH_SECONDS = 0.2
"""How long the first message of a batch waits for others: no reader of a page notices it."""
CRASHES_MAX = 3
"""A message that ends its process so often is given up; one crash may be anybody's, three are its own."""
GATE_HOLD_SECONDS_MAX = 300.0
"""A delivery may wait this long for the next probe, or for the store, and never over a third of the broker's own limit
for a consumer."""
INBOX_RETENTION_SECONDS = 14 * 86400.0
PRUNE_ROWS_MAX = 5000
PRUNE_SECONDS = 60.0
CLOSED_RETENTION_SECONDS = 30 * 86400.0
STILL_FAILING_SECONDS = 300.0
"""What failed in this time fails still: longer than the delays of the first four attempts."""
REPLAY_STUCK_SECONDS = 3600.0
"""A replay that has come to no end by then is worth a look; the longest wait between two attempts is 15 min."""
BULK_PER_SECOND = 50
"""Dead letters that bulks move: a replay must not be an outage."""
BULK_REST_SECONDS = 1.0
CANARY_SECONDS = 60.0
"""How long the first one of a bulk replay may take to succeed before the others are left alone."""
PROCESS_RETENTION_SECONDS = 86400.0
ATTEMPT_HISTORY_MAX = 20
STACK_BYTES_MAX = 8 * 1024
STORE_PING_FIRST_SECONDS = 0.25
STORE_PING_MAX_SECONDS = 2.0
"""A consumer is back within 5 s of its database (invariant: none stays silent while healthy)."""
STORE_TRIAL_SECONDS = 5.0
"""After an outage, how long the one delivery that tries the store may take before another one tries it too."""
RERUNS = 3
"""How often a transaction that lost against another is run again before it counts as failed: two that collide need one
or two, ten on the same rows need three."""
RERUN_SECONDS = 0.1
RERUN_SECONDS_MAX = 1.0

# --- review ------------------------------------------------------------------------------------------------------
REVIEW_CLAIM_SECONDS = 900.0
"""How long a claim keeps others away: as long as one looks into one question, and no lunch break."""
REVIEW_SUBJECT_MAX = 320
"""Room for a saga's name, that of its question, and its key."""
REVIEW_TEXT_MAX = 4000
REVIEW_EVIDENCE_BYTES_MAX = 64 * 1024
REVIEW_DUE_SECONDS_MAX = 366 * 86_400.0
REVIEW_LEVELS = 3
"""After so many escalations one comes every day, and no more often."""
REVIEW_AGAIN_SECONDS_MIN = 1800.0
REVIEW_AGAIN_SECONDS_MAX = 86_400.0
REVIEW_SEEN_MAX = 100
"""Repeats of an open question that are noted: more say nothing new, and a trail is read whole."""
REVIEW_BULK_MAX = 1000
REVIEW_LOOK_SECONDS = 10.0
REVIEW_PAGE = 200
REVIEW_RETENTION_SECONDS = 365 * 86_400.0
"""Of resolved items and their trail: what auditors ask for."""

# --- reconciliation ----------------------------------------------------------------------------------------------
RECONCILIATION_KEY_MAX = 150
RECONCILIATION_PAGE = 200
"""Keys compared in one step: one query on each side, and what a crash repeats."""
RECONCILIATION_CHANGES_MAX = 100
RECONCILIATION_SHARE_MAX = 0.2
RECONCILIATION_SHARE_KEYS_MIN = 50
"""Of fewer keys a share says nothing."""
RECONCILIATION_LOOK_SECONDS = 1.0
RECONCILIATION_STALE_SECONDS = 60.0
"""A run whose last step is this long ago has lost its process, or its reader failed: whoever leads goes on with it."""
RECONCILIATION_TURN_SECONDS = 5.0
CHECKS_AT_ONCE = 20
CHECK_SECONDS = 30.0
CHECK_RETRY_SECONDS = 300.0

# --- batches -----------------------------------------------------------------------------------------------------
BATCH_ITEMS_MAX = 10_000
BATCH_ITEM_BYTES_MAX = 256 * 1024
BATCH_BYTES_MAX = 64 * 1024 * 1024
"""With the two above: a report, and the transaction that submits a batch, fit in memory."""
BATCH_VALUE_BYTES_MAX = 16 * 1024
BATCH_PAGE = 1000
BATCH_ID_CHARACTERS_MAX = 150
BATCH_ERROR_CHARACTERS_MAX = 500
BATCH_RETENTION_SECONDS = 7 * 86_400.0
"""Of reports, after the end; dead letters and review items of their items stay for as long as those do."""
BATCH_LOOK_SECONDS = 1.0
BATCH_SWEEP_SECONDS = 10.0
BATCH_LOST_SECONDS = 60.0
"""A batch that was sent this long ago is looked at for items that ended where their handler did not see it."""
JOB_CONCURRENCY = 8
JOB_ATTEMPTS = 3
JOB_SECONDS = 30.0
JOB_RUN_SECONDS = 900.0
JOB_BACK_OFF_SECONDS = (0.5, 15.0)

# --- policies ----------------------------------------------------------------------------------------------------
FACTS_SECONDS = 5.0
"""How late an isolation, a reset or a cooldown of one process is known in the others."""

# --- sagas -------------------------------------------------------------------------------------------------------
SAGA_POLL_SECONDS = 1.0
"""How late a timer, or a saga that another process started, is seen."""
SAGA_SWEEP_SECONDS = 1.0
"""How often sagas of dead processes are sought: lease, sweep and a claim are within 17 s."""
SAGA_COUNT_SECONDS = 30.0
SAGAS_CLAIMED_MAX = 200
"""Bounds memory, and what one crash hands over."""
SAGA_IN_PLACE_SECONDS = 5.0
"""A wait up to this is waited in the process; a longer one leaves nothing but a row."""
SAGA_STEP_SECONDS = 10.0
SAGA_TX_SECONDS = 5.0
SAGA_TX_IDLE_SECONDS = 10.0
"""Under a lease: a process that is frozen in a transaction holds up nobody who takes its sagas over."""
SAGA_RETRY_SECONDS = (1.0, 60.0)
SAGA_UNDO_RETRY_SECONDS = (1.0, 300.0)
SAGA_ATTEMPTS_MAX = 6
"""Attempts that count: one to two minutes of unknown outcomes, then a known state. An unavailable system is free."""
SAGA_UNDO_SECONDS = 86_400.0
"""An undo has a day before it needs a person."""
SAGA_DEADLINE_SECONDS = 604_800.0
SAGA_PROBE_SECONDS = 600.0
"""For how long a probe that knows nothing is asked again before a person is."""
SAGA_SETTLE_SECONDS = (60.0, 3600.0)
"""When after an undo a probe looks whether the call landed after all."""
SAGA_CRASH_DELAYS_SECONDS = (0.0, 5.0, 15.0, 60.0, 300.0)
"""The first takeover is immediate; a saga that ends its process must not end all of them at once."""
SAGA_CRASHES_MAX = 5
SAGA_VALUE_BYTES_MAX = 262_144
SAGA_STEPS_MAX = 10_000
"""A replay reads the journal whole."""
SAGA_KEY_CHARACTERS_MAX = 150
SAGA_ERROR_CHARACTERS_MAX = 500
SAGA_REVIEW_NAME_MAX = 50
SAGA_RETENTION_SECONDS = 90 * 86_400.0
"""A late duplicate of a start must not run an old order again."""
EFFECT_KEY_CHARACTERS_MAX = 400
"""Room for a saga's id, a step's name, an item and what a compensation adds."""
EFFECT_KEY_RETENTION_SECONDS = 90 * 86_400.0
"""As long as a saga's payload: no step is repeated later."""
SAGA_STRANGE_SECONDS = 5.0
"""How long a saga that another release has worked on is left to that."""
SAGA_LATE_SECONDS = 60.0
SAGA_STRANDED_SECONDS = 600.0
"""A rolling deploy is over by then: from here on health tells of sagas that no process has the code of."""
SAGA_WAKE_ROWS_MAX = 200

# --- process -----------------------------------------------------------------------------------------------------
DRAIN_SECONDS = 30.0
LOOP_DRAIN_SECONDS = 10.0
"""What a loop may take to flush and give back, once its turn has ended; a store that hangs must not hold the exit."""
EXIT_SECONDS = 15.0
"""Added to `drain_seconds`: a process that was told to end and has not by then is ended by force."""
LOOP_STALLED_SECONDS = 30.0
FIRST_CONTACT_SECONDS = 60.0
"""How long a start waits for its store before it gives up."""
FIRST_CONTACT_SPARED_SECONDS = 2.0
"""The same where publishes are kept without the store; the rest starts when it answers."""

# --- log ---------------------------------------------------------------------------------------------------------
LOG_REPEAT_SECONDS = 60.0
"""The same trouble is written once in this time; a minute is how often a person looks again."""
LOG_CAUSES_MAX = 1000
LOG_LINE_BYTES_MAX = 16 * 1024
"""Longer lines are cut: collectors split or drop them."""

# --- health ------------------------------------------------------------------------------------------------------
HEALTH_PING_SECONDS = 1.0
"""How often the store is asked whether it answers; with the next two, an outage is seen within 4 s."""
HEALTH_DOUBT_SECONDS = 0.5
"""How soon it is asked again after an answer that contradicts what is believed, and while it is away."""
HEALTH_ANSWERS = 2
"""In a row that turn a status: one lost packet takes no process out, one answer brings none back."""
HEALTH_ANSWER_SECONDS_MAX = 1.0
"""How long an answer may take: above it a database is no use to a request either."""
HEALTH_SAMPLE_SECONDS = 10.0
"""How often waiting rows and dead letters are counted, ± 10 %: a dashboard's number is at most this old."""
HEALTH_SAMPLE_SOON_SECONDS = 2.0
"""The same while rows wait for longer than this, or shards have nobody: something is amiss, and changes soon."""
HEALTH_GATE_SECONDS = 5.0
"""A gate that is still shut this long after the store answers again has another reason: it takes no writes."""
HEALTH_STALE_SECONDS = 30.0
"""What is older than three samples says nothing."""
READY_NEEDS_SECONDS = 30.0
"""Outlasts a reconnect, so that a restarted broker does not make every process unready."""
OUTBOX_OLD_SECONDS = 60.0
RELAY_MISSING_SECONDS = 60.0
"""Three take-overs of a lease (17 s each) have failed by then."""
EVENT_LOOP_SILENT_SECONDS = 10.0
"""A loop that has not turned for this long has a blocking call on it; a slow disk is below."""
HEALTH_BEAT_SECONDS = 1.0
HEALTH_ANSWER_SECONDS = 0.5
"""How long a probe waits for the loop's newest word before it answers with the last one: probes give up after 2 s."""
HEALTH_PORT_FIRST = 9464
HEALTH_PORT_LAST = 9563
"""The default port and how far it moves up when busy: a hundred services on one machine."""
HEALTH_REQUESTS_MAX = 32
HEALTH_REQUEST_SECONDS = 5.0
"""How long a caller may take to say what it wants."""
