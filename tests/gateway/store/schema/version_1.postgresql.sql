CREATE TABLE kin ( id BIGINT NOT NULL, route TEXT NOT NULL, epoch TEXT NOT NULL, period BIGINT NOT NULL, revision BIGINT NOT NULL, variant TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, role TEXT NOT NULL, reason TEXT NOT NULL, propensity FLOAT, by_unit BOOLEAN NOT NULL, forced BOOLEAN NOT NULL, method TEXT NOT NULL, status BIGINT, fault TEXT, served TEXT, PRIMARY KEY (id) );

CREATE TABLE calls ( id TEXT COLLATE "C" NOT NULL, kin BIGINT NOT NULL, route TEXT NOT NULL, at_ms BIGINT NOT NULL, unit TEXT, key TEXT, latency_ms FLOAT, overhead_ms FLOAT, prediction TEXT, more TEXT, open_by TEXT, PRIMARY KEY (id, kin, at_ms) ) PARTITION BY RANGE (at_ms);

CREATE INDEX calls_at ON calls (route, at_ms);

CREATE INDEX calls_key ON calls (route, key, at_ms) WHERE key IS NOT NULL;

CREATE INDEX calls_open ON calls (open_by) WHERE open_by IS NOT NULL;

CREATE TABLE feedback ( seq BIGSERIAL NOT NULL, identity TEXT NOT NULL, revision BIGINT NOT NULL, received_ms BIGINT NOT NULL, occurred_ms BIGINT, event_ms BIGINT NOT NULL, metric TEXT NOT NULL, value TEXT NOT NULL, prediction_id TEXT, route TEXT, key TEXT, item TEXT, event_id TEXT, target TEXT COLLATE "C", status TEXT NOT NULL, counted TEXT NOT NULL, due_ms BIGINT NOT NULL, PRIMARY KEY (seq) );

CREATE INDEX feedback_due ON feedback (due_ms) WHERE status = 'waiting';

CREATE INDEX feedback_orphaned ON feedback (seq) WHERE status = 'orphaned';

CREATE INDEX feedback_key ON feedback (route, key, event_ms) WHERE key IS NOT NULL;

CREATE INDEX feedback_identity ON feedback (identity) WHERE (event_id IS NOT NULL OR key IS NOT NULL);

CREATE INDEX feedback_target ON feedback (target);

CREATE TABLE definitions ( route TEXT NOT NULL, metric TEXT NOT NULL, since_ms BIGINT NOT NULL, hash TEXT NOT NULL, body TEXT, closed_until BIGINT NOT NULL, PRIMARY KEY (route, metric, since_ms) );

CREATE TABLE epochs ( route TEXT NOT NULL, epoch TEXT NOT NULL, began_ms BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (route, epoch) );

CREATE TABLE newest_calls ( route TEXT NOT NULL, epoch TEXT NOT NULL, at_ms BIGINT NOT NULL, PRIMARY KEY (route, epoch) );

CREATE TABLE plans ( route TEXT NOT NULL, revision BIGINT NOT NULL, epoch TEXT NOT NULL, period BIGINT NOT NULL, at_ms BIGINT NOT NULL, plan TEXT NOT NULL, shares TEXT NOT NULL, PRIMARY KEY (route, revision) );

CREATE TABLE tallies ( id BIGSERIAL NOT NULL, route TEXT NOT NULL, epoch TEXT NOT NULL, period BIGINT NOT NULL, variant TEXT NOT NULL, version TEXT NOT NULL, role TEXT NOT NULL, against TEXT NOT NULL, metric TEXT NOT NULL, definition TEXT NOT NULL, phase TEXT NOT NULL, n BIGINT NOT NULL, m FLOAT NOT NULL, m2 FLOAT NOT NULL, d FLOAT NOT NULL, d2 FLOAT NOT NULL, md FLOAT NOT NULL, positive BIGINT NOT NULL, negative BIGINT NOT NULL, d_max FLOAT NOT NULL, PRIMARY KEY (id) );

CREATE UNIQUE INDEX tallies_place ON tallies (route, epoch, period, variant, version, role, against, metric, definition, phase);

CREATE TABLE units ( tally BIGINT NOT NULL, unit TEXT NOT NULL, m FLOAT NOT NULL, d FLOAT NOT NULL, PRIMARY KEY (tally, unit) );

CREATE TABLE arrivals ( route TEXT NOT NULL, epoch TEXT NOT NULL, period BIGINT NOT NULL, unit TEXT NOT NULL, at_ms BIGINT NOT NULL, id TEXT NOT NULL, revision BIGINT NOT NULL, variant TEXT NOT NULL, PRIMARY KEY (route, epoch, period, unit) );

CREATE TABLE stretches ( route TEXT NOT NULL, epoch TEXT NOT NULL, period BIGINT NOT NULL, revision BIGINT NOT NULL, variant TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (route, epoch, period, revision, variant) );

CREATE TABLE latency ( route TEXT NOT NULL, epoch TEXT NOT NULL, variant TEXT NOT NULL, role TEXT NOT NULL, bucket BIGINT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (route, epoch, variant, role, bucket) );

CREATE TABLE faults ( route TEXT NOT NULL, epoch TEXT NOT NULL, variant TEXT NOT NULL, role TEXT NOT NULL, fault TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (route, epoch, variant, role, fault) );

CREATE TABLE forced ( route TEXT NOT NULL, epoch TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (route, epoch) );

CREATE TABLE feedback_counts ( route TEXT NOT NULL, metric TEXT NOT NULL, status TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (route, metric, status) );

CREATE TABLE counts ( name TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (name) );

CREATE TABLE offsets ( segment TEXT NOT NULL, "offset" BIGINT NOT NULL, PRIMARY KEY (segment) );

CREATE TABLE writers ( writer TEXT NOT NULL, mark_ms BIGINT NOT NULL, bye BOOLEAN NOT NULL, gone BOOLEAN NOT NULL, PRIMARY KEY (writer) );

CREATE TABLE numbers ( name TEXT NOT NULL, value BIGINT NOT NULL, PRIMARY KEY (name) );

CREATE TABLE events ( seq BIGSERIAL NOT NULL, at_ms BIGINT NOT NULL, kind TEXT NOT NULL, route TEXT, detail TEXT NOT NULL, PRIMARY KEY (seq) );

CREATE TABLE bodies ( id TEXT COLLATE "C" NOT NULL, at_ms BIGINT NOT NULL, route TEXT NOT NULL, request TEXT, answer TEXT, PRIMARY KEY (id) );

CREATE TABLE schema_version ( version BIGINT NOT NULL, PRIMARY KEY (version) );

CREATE TABLE lease ( name TEXT NOT NULL, holder TEXT NOT NULL, fencing BIGINT NOT NULL, expires_ms BIGINT NOT NULL, backend BIGINT NOT NULL, PRIMARY KEY (name) );

CREATE TABLE nodes ( node TEXT NOT NULL, life BIGINT NOT NULL, config TEXT NOT NULL, revision BIGINT NOT NULL, seen_ms BIGINT NOT NULL, PRIMARY KEY (node) );

CREATE TABLE intake ( seq BIGSERIAL NOT NULL, node TEXT NOT NULL, writer TEXT NOT NULL, n BIGINT NOT NULL, bytes BIGINT NOT NULL, taken BIGINT NOT NULL, lines BYTEA NOT NULL, PRIMARY KEY (seq) );

CREATE INDEX intake_node ON intake (node);

CREATE TABLE publications ( revision BIGINT NOT NULL, config TEXT NOT NULL, node TEXT NOT NULL, at_ms BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (revision) );

CREATE INDEX publications_config ON publications (config, revision);

CREATE TABLE journal_numbers ( chain TEXT NOT NULL, number BIGINT NOT NULL, PRIMARY KEY (chain) );

CREATE TABLE outbox ( seq BIGSERIAL NOT NULL, sink TEXT NOT NULL, at_ms BIGINT NOT NULL, n BIGINT NOT NULL, bytes BIGINT NOT NULL, events BYTEA NOT NULL, PRIMARY KEY (seq) );

CREATE INDEX outbox_sink ON outbox (sink, seq);

CREATE TABLE sink_counts ( sink TEXT NOT NULL, result TEXT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (sink, result) );

CREATE TABLE feedback_targets ( target TEXT COLLATE "C" NOT NULL, seq BIGINT NOT NULL, PRIMARY KEY (target, seq) );

CREATE INDEX feedback_targets_seq ON feedback_targets (seq);

CREATE VIEW predictions AS SELECT calls.id, calls.at_ms, kin.route, kin.epoch, kin.period, kin.revision, kin.variant, kin.model, kin.version, kin.role, kin.reason, kin.propensity, kin.by_unit, kin.forced, kin.method, kin.status, kin.fault, kin.served, calls.unit, calls.key, calls.latency_ms, calls.overhead_ms, calls.prediction, calls.more, calls.open_by IS NOT NULL AS open FROM calls JOIN kin ON kin.id = calls.kin;
