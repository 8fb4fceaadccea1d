"""The tables of ``state.db`` and how they came to be, one numbered step after the other; a step never changes."""

from __future__ import annotations

APPLICATION_ID = 0x52524353
"""``PRAGMA application_id`` of a state.db ("RRCS"), so that another program's database is never taken for one."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE revision (one INTEGER PRIMARY KEY CHECK (one = 1), value INTEGER NOT NULL)",
        "INSERT INTO revision VALUES (1, 0)",
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        """CREATE TABLE identity (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            owner TEXT NOT NULL,            -- names this root to the agents of all hosts
            created_at REAL NOT NULL)""",
        """CREATE TABLE operations (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            key TEXT NOT NULL UNIQUE,       -- the same key again is the same operation
            action TEXT NOT NULL,
            title TEXT NOT NULL,
            plan TEXT NOT NULL,             -- JSON
            state TEXT NOT NULL DEFAULT 'pending'
                CHECK (state IN ('pending', 'running', 'done', 'failed', 'refused')),
            by TEXT NOT NULL,
            created_at REAL NOT NULL,
            started_at REAL,
            ended_at REAL,
            error TEXT NOT NULL DEFAULT '',
            result TEXT NOT NULL DEFAULT '{}')""",
        "CREATE INDEX operations_open ON operations (number) WHERE state IN ('pending', 'running')",
        """CREATE TABLE steps (
            operation TEXT NOT NULL REFERENCES operations (id),
            name TEXT NOT NULL,
            at REAL NOT NULL,
            result TEXT NOT NULL DEFAULT '{}',
            PRIMARY KEY (operation, name)) WITHOUT ROWID""",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at REAL NOT NULL,
            type TEXT NOT NULL,
            subject TEXT NOT NULL,
            payload TEXT NOT NULL DEFAULT '{}',
            key TEXT UNIQUE)                -- one fact, one event""",
        "CREATE INDEX events_by_type ON events (type, id)",
        """CREATE TRIGGER events_stay_unchanged BEFORE UPDATE ON events
            BEGIN SELECT RAISE(ABORT, 'events are only ever added'); END""",
        """CREATE TRIGGER events_stay BEFORE DELETE ON events
            BEGIN SELECT RAISE(ABORT, 'events are only ever added'); END""",
        """CREATE TABLE supervisor (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            pid INTEGER NOT NULL,
            epoch INTEGER NOT NULL,         -- grows with every supervisor; agents refuse older ones
            started_at REAL NOT NULL,
            heartbeat_at REAL NOT NULL,
            lag_ms REAL)""",
        """CREATE TABLE pipelines (
            id TEXT PRIMARY KEY,
            config TEXT NOT NULL,
            params TEXT NOT NULL,           -- JSON
            operation TEXT UNIQUE,
            created_at REAL NOT NULL,
            ended_at REAL)""",
        """CREATE TABLE jobs (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            config TEXT NOT NULL,
            title TEXT NOT NULL,
            pipeline TEXT REFERENCES pipelines (id),
            params TEXT NOT NULL,           -- JSON, what the recipe needs
            needs TEXT NOT NULL DEFAULT '[]',
            wanted INTEGER NOT NULL DEFAULT 1,  -- attempts that the operator asked for
            cancel TEXT,                    -- JSON {by, reason, at} while a cancel is wanted
            settled TEXT,                   -- why the output counts as there without a clean exit of ours
            state TEXT NOT NULL DEFAULT 'waiting',
            why TEXT NOT NULL DEFAULT '',
            created_at REAL NOT NULL,
            started_at REAL,
            ended_at REAL,
            result TEXT NOT NULL DEFAULT '{}')""",
        "CREATE INDEX jobs_open ON jobs (state, number)",
        "CREATE INDEX jobs_of_pipeline ON jobs (pipeline)",
        """CREATE TABLE attempts (
            key TEXT PRIMARY KEY,           -- <job id>.<n>
            job TEXT NOT NULL REFERENCES jobs (id),
            n INTEGER NOT NULL,
            host TEXT NOT NULL,
            epoch INTEGER NOT NULL,         -- of the supervisor that decided it
            spec TEXT NOT NULL,             -- JSON as sent to the agent, without secrets
            digest TEXT NOT NULL,
            phase TEXT NOT NULL DEFAULT 'placed',
            exit TEXT,                      -- JSON, the agent's exit record
            reason TEXT NOT NULL DEFAULT '',
            unreachable_since REAL,
            acked INTEGER NOT NULL DEFAULT 0,
            placed_at REAL NOT NULL,
            started_at REAL,
            seen_at REAL,
            ended_at REAL,
            UNIQUE (job, n))""",
    ),
    (
        """CREATE TABLE hosts (
            name TEXT PRIMARY KEY,
            drained TEXT,                   -- JSON {by, reason, at}: no new jobs are placed there
            enrolled TEXT,                  -- JSON {fingerprint, by, at}
            facts TEXT NOT NULL DEFAULT '{}',
            facts_at REAL,
            code TEXT NOT NULL DEFAULT '{}',    -- JSON {python, bundle, root, at}, from the last bootstrap
            checked_at REAL,
            seen_at REAL,
            latency_ms REAL,
            state TEXT NOT NULL DEFAULT 'unknown',  -- at checked_at
            why TEXT NOT NULL DEFAULT '',
            troubles TEXT NOT NULL DEFAULT '[]',    -- JSON [[at, text], ...], newest first
            settings TEXT) WITHOUT ROWID""",  # as the supervisor read them, JSON
        """CREATE TABLE host_samples (
            host TEXT NOT NULL,
            at REAL NOT NULL,
            sample TEXT NOT NULL,           -- JSON
            PRIMARY KEY (host, at)) WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN bound TEXT",  # the only host that it may run on
        "ALTER TABLE jobs ADD COLUMN waits TEXT NOT NULL DEFAULT '[]'",  # JSON, [[reason, [host, ...]], ...]
        "ALTER TABLE attempts ADD COLUMN staged INTEGER NOT NULL DEFAULT 0",  # runs in a folder of its own
        "ALTER TABLE attempts ADD COLUMN pushed_at REAL",  # its inputs are on the host, verified there
        "ALTER TABLE attempts ADD COLUMN collected_at REAL",  # its outputs are here, verified and merged
        "ALTER TABLE attempts ADD COLUMN trouble TEXT NOT NULL DEFAULT ''",  # why a transfer has not come through yet
    ),
    ("ALTER TABLE attempts ADD COLUMN evidence TEXT",),  # JSON, what the host saw when the phase was last told
    (
        "ALTER TABLE jobs ADD COLUMN gang TEXT",  # id of the first of the jobs that run together
        "ALTER TABLE jobs ADD COLUMN member INTEGER NOT NULL DEFAULT 1",  # which of them it is
        "ALTER TABLE jobs ADD COLUMN members INTEGER NOT NULL DEFAULT 1",  # how many there are
    ),
    (
        """CREATE TABLE transfers (
            id TEXT PRIMARY KEY,
            number INTEGER NOT NULL UNIQUE, -- hosts refuse lower ones than they have seen for a name
            operation TEXT UNIQUE,
            title TEXT NOT NULL,
            cause TEXT NOT NULL,            -- distribute, promotion, rollback, export, found, repair
            name TEXT NOT NULL,             -- where it is published, below a host's base
            path TEXT NOT NULL,             -- the file on this machine
            sha256 TEXT NOT NULL,
            size INTEGER NOT NULL,
            kind TEXT NOT NULL,
            model TEXT,                     -- label of the registered model, if it is one
            budget TEXT NOT NULL DEFAULT '{}',  -- JSON, bytes a second
            by TEXT NOT NULL,
            paused TEXT,                    -- why it is
            resumed_at REAL,
            cancel TEXT,                    -- JSON {by, at} while a cancel is wanted
            state TEXT NOT NULL DEFAULT 'planned',
            created_at REAL NOT NULL,
            started_at REAL,
            live_at REAL,                   -- when the last host that was to have it had it
            ended_at REAL,
            use TEXT NOT NULL DEFAULT '{}')""",  # JSON, what it takes of the head's uplink
        "CREATE INDEX transfers_open ON transfers (number) WHERE ended_at IS NULL",
        """CREATE TABLE deliveries (
            transfer TEXT NOT NULL REFERENCES transfers (id),
            host TEXT NOT NULL,
            position INTEGER NOT NULL,
            wave INTEGER NOT NULL,          -- 0 for hosts with GPUs
            routes TEXT NOT NULL,           -- JSON, transports in order
            state TEXT NOT NULL DEFAULT 'planned',
            route INTEGER NOT NULL DEFAULT 0,
            tries INTEGER NOT NULL DEFAULT 0,
            attempts INTEGER NOT NULL DEFAULT 0,
            failure TEXT,                   -- JSON {reason, what, hint, blamed}
            history TEXT NOT NULL DEFAULT '[]', -- JSON [[at, transport, line], ...]
            fell_at REAL,                   -- when it went on with another transport
            progress TEXT NOT NULL DEFAULT '{}',    -- JSON, the last observation
            receipt TEXT,                   -- JSON, as the host gave it
            started_at REAL,
            live_at REAL,
            ended_at REAL,
            PRIMARY KEY (transfer, host)) WITHOUT ROWID""",
        """CREATE TABLE holdings (
            host TEXT NOT NULL,
            name TEXT NOT NULL,
            sha256 TEXT NOT NULL,           -- what the last receipt says
            held TEXT,                      -- what lay there at the last audit; NULL before the first
            why TEXT NOT NULL DEFAULT '',
            transfer TEXT NOT NULL,
            published_at REAL NOT NULL,
            audited_at REAL,
            PRIMARY KEY (host, name)) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE budget (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            value TEXT NOT NULL,            -- JSON as in transfers.budget: what all transfers share
            by TEXT NOT NULL,
            at REAL NOT NULL)""",
        "ALTER TABLE transfers ADD COLUMN limits TEXT NOT NULL DEFAULT '{}'",  # JSON, the budget in force
    ),
    (
        "ALTER TABLE operations ADD COLUMN lasting TEXT",  # names it in registry.db, which outlives this file
        "UPDATE operations SET lasting = id",  # what was begun under its id is known there by that
    ),
)
