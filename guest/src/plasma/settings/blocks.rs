//! The objects within the settings.

use serde_json::{Map, Value as Json};

use crate::imports::Dialect;
use crate::plasma::envelope::EnvelopeLimits;
use crate::plasma::schema::{Schema, complete_row};
use crate::settings::Settings as Keys;

/// Rows by table, as written.
pub type SeedRows = Vec<(String, Vec<Map<String, Json>>)>;

/// What happens after a push that changed rows.
#[derive(Clone, Debug, PartialEq)]
pub struct OnPushed {
    /// Whether clients are poked.
    pub poke: bool,
    /// The topic of pokes.
    pub topic: String,
    /// Told by POST.
    pub webhook: Option<String>,
    /// Whether the app is told; none: if it says that it hears of it.
    pub app: Option<bool>,
}

/// Where errors go.
#[derive(Clone, Debug, PartialEq)]
pub struct OnError {
    /// Into the log.
    pub log: bool,
    /// How many the admin surface shows; 0: none are kept.
    pub ring: u64,
    /// Told by POST.
    pub webhook: Option<String>,
    /// Whether the app is told; none: if it says that it hears of it.
    pub app: Option<bool>,
}

/// Where metrics go.
#[derive(Clone, Debug, PartialEq)]
pub struct OnMetric {
    /// Whether they are counted.
    pub prometheus: bool,
    /// Whether the app is told; none: if it says that it hears of it.
    pub app: Option<bool>,
}

/// Realtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Poke {
    /// How often idle connections are pinged, milliseconds.
    pub ping_interval_ms: u64,
    /// The least time between two pokes of a connection, milliseconds.
    pub coalesce_ms: u64,
    /// After how long an event source comes back, milliseconds.
    pub retry_ms: u64,
    /// Whether changes themselves may be asked for.
    pub data_mode: bool,
    /// Connections of one user.
    pub connections_per_user_max: u64,
}

/// Bounds of live select.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// Subscriptions of a connection.
    pub per_connection_max: u64,
    /// Rows of a result.
    pub rows_max: u64,
}

/// What is kept of the change log.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeLog {
    /// Versions that a compaction keeps.
    pub keep_versions: Option<u64>,
    /// How long deletions are kept, milliseconds.
    pub tombstone_ttl_ms: Option<u64>,
    /// How often it is compacted, milliseconds.
    pub compact_every_ms: Option<u64>,
    /// Whether rows are kept as they were before a change.
    pub before_images: bool,
    /// Whether the database itself notes changes made behind the server's back.
    pub triggers: bool,
}

/// How versions are given out.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequencer {
    /// The name of this region.
    pub region: String,
    /// Whether ranges are reserved.
    pub reserves: bool,
    /// Versions per range.
    pub reserve: u64,
    /// How often the current version is looked at, milliseconds.
    pub poll_ms: u64,
}

/// What is done about a schema that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationsMode {
    /// What is safe is done.
    Auto,
    /// Any difference stops the start.
    Check,
    /// Nothing is compared.
    Off,
}

/// What may be done to the schema of a database at start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Migrations {
    /// What is done about a difference.
    pub mode: MigrationsMode,
    /// Whether tables and columns may be dropped and rebuilt.
    pub allow_destructive: bool,
}

/// Blobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Blobs {
    /// Where objects lie.
    pub prefix: String,
    /// Bytes of a blob.
    pub bytes_max: u64,
    /// Signs the server's own URLs.
    pub presign_secret: Option<String>,
    /// Whether a row may only name what is there.
    pub require_uploaded: bool,
    /// Bytes kept in memory.
    pub cache_bytes_max: u64,
    /// How often orphans are looked for, milliseconds.
    pub gc_every_ms: Option<u64>,
}

/// A value that may be absent or null.
pub(super) fn optional<T: serde::de::DeserializeOwned>(keys: &mut Keys, key: &str) -> Option<T> {
    keys.take_as::<Option<T>>(key, &[]).flatten()
}

/// A target of webhooks.
fn webhook(keys: &mut Keys) -> Option<String> {
    let url: Option<String> = optional(keys, "webhook");
    if url.as_ref().is_some_and(|url| !(url.starts_with("http://") || url.starts_with("https://"))) {
        keys.problem("webhook", "must begin with http:// or https://");
    }
    url
}

impl OnPushed {
    pub(super) fn read(keys: &mut Keys) -> Self {
        let mut block = keys.block("onPushed");
        let read = Self {
            poke: optional(&mut block, "poke").unwrap_or(true),
            topic: optional(&mut block, "topic").unwrap_or_else(|| "plasma/v".into()),
            webhook: webhook(&mut block),
            app: optional(&mut block, "app"),
        };
        keys.end_block(block);
        read
    }
}

impl OnError {
    pub(super) fn read(keys: &mut Keys) -> Self {
        let mut block = keys.block("onError");
        let read = Self {
            log: optional(&mut block, "log").unwrap_or(true),
            ring: optional(&mut block, "ring").unwrap_or(1000),
            webhook: webhook(&mut block),
            app: optional(&mut block, "app"),
        };
        if read.ring > 10_000 {
            block.problem("ring", "must be at most 10000");
        }
        keys.end_block(block);
        read
    }
}

impl OnMetric {
    pub(super) fn read(keys: &mut Keys) -> Self {
        let mut block = keys.block("onMetric");
        let read = Self { prometheus: optional(&mut block, "prometheus").unwrap_or(true), app: optional(&mut block, "app") };
        keys.end_block(block);
        read
    }
}

impl Poke {
    /// None: off.
    pub(super) fn read(keys: &mut Keys) -> Option<Self> {
        match keys.take("poke", &[]) {
            Some(Json::Bool(false)) => return None,
            None | Some(Json::Bool(true) | Json::Null) => {}
            Some(Json::Object(block)) => return Some(Self::of(keys, Keys::nested("poke", block))),
            Some(_) => keys.problem("poke", "must be an object, or false"),
        }
        Some(Self::of(keys, Keys::nested("poke", Map::new())))
    }

    fn of(keys: &mut Keys, mut block: Keys) -> Self {
        let read = Self {
            ping_interval_ms: block.take_positive("pingIntervalMs", 25_000),
            coalesce_ms: optional(&mut block, "coalesceMs").unwrap_or(0),
            retry_ms: optional(&mut block, "retryMs").unwrap_or(2000),
            data_mode: optional(&mut block, "dataMode").unwrap_or(true),
            connections_per_user_max: block.take_positive("maxConnectionsPerUser", 100),
        };
        keys.end_block(block);
        read
    }
}

impl Live {
    pub(super) fn read(keys: &mut Keys) -> Self {
        let mut block = keys.block("live");
        let read =
            Self { per_connection_max: block.take_positive("maxPerConnection", 50), rows_max: block.take_positive("maxRows", 10_000) };
        keys.end_block(block);
        read
    }
}

impl ChangeLog {
    pub(super) fn read(keys: &mut Keys) -> Self {
        let mut block = keys.block("changeLog");
        let read = Self {
            keep_versions: optional(&mut block, "keepVersions"),
            tombstone_ttl_ms: optional(&mut block, "tombstoneTtlMs"),
            compact_every_ms: optional(&mut block, "compactEveryMs"),
            before_images: optional(&mut block, "beforeImages").unwrap_or(true),
            triggers: optional(&mut block, "triggers").unwrap_or(false),
        };
        if read.compact_every_ms.is_some_and(|every| every < 1000) {
            block.problem("compactEveryMs", "must be at least 1000");
        }
        keys.end_block(block);
        read
    }
}

impl Sequencer {
    pub(super) fn read(keys: &mut Keys) -> Self {
        let mut block = keys.block("sequencer");
        let read = Self {
            region: optional(&mut block, "region").unwrap_or_else(|| "local".into()),
            reserves: block.take_word("mode", ("row-lock", false), &[("reserve", true)]),
            reserve: block.take_positive("reserve", 1),
            poll_ms: block.take_positive("pollMs", 1000),
        };
        if read.region.is_empty() {
            block.problem("region", "must not be empty");
        }
        keys.end_block(block);
        read
    }
}

impl Migrations {
    pub(super) fn read(keys: &mut Keys) -> Self {
        let mut block = keys.block("migrations");
        let read = Self {
            mode: block.take_word(
                "mode",
                ("auto", MigrationsMode::Auto),
                &[("check", MigrationsMode::Check), ("off", MigrationsMode::Off)],
            ),
            allow_destructive: optional(&mut block, "allowDestructive").unwrap_or(false),
        };
        keys.end_block(block);
        read
    }
}

impl Blobs {
    /// None: there are none. `schema`: tables may have no storage of their own.
    pub(super) fn read(keys: &mut Keys, schema: Option<&Schema>) -> Option<Self> {
        if !keys.has("blobs") {
            return None;
        }
        let mut block = keys.block("blobs");
        let names_table = |key: &&str| *key != "default" && schema.is_some_and(|schema| schema.table(key).is_some());
        let tables: Vec<String> = block.left().filter(names_table).map(str::to_owned).collect();
        for table in tables {
            block.take(&table, &[]);
            block.problem(&table, "per-table blob storage is not supported");
        }
        let prefix = blob_store(&mut block);
        let presign_secret = presign(&mut block);
        let read = Self {
            prefix,
            presign_secret,
            bytes_max: block.take_positive("maxBytes", 64 << 20),
            require_uploaded: optional(&mut block, "requireUploaded").unwrap_or(false),
            cache_bytes_max: optional(&mut block, "cacheMaxBytes").unwrap_or(0),
            gc_every_ms: optional(&mut block, "gcEveryMs"),
        };
        if read.gc_every_ms.is_some_and(|every| every < 1000) {
            block.problem("gcEveryMs", "must be at least 1000");
        }
        keys.end_block(block);
        Some(read)
    }
}

fn blob_store(blobs: &mut Keys) -> String {
    let mut block = blobs.block("default");
    block.take_word("store", ("storage", ()), &[]);
    let prefix = optional(&mut block, "prefix").unwrap_or_else(|| "plasma/blobs/".into());
    blobs.end_block(block);
    prefix
}

fn presign(blobs: &mut Keys) -> Option<String> {
    let mut block = blobs.block("presign");
    let secret: Option<String> = optional(&mut block, "secret");
    if secret.as_ref().is_some_and(String::is_empty) {
        block.problem("secret", "must not be empty");
    }
    blobs.end_block(block);
    secret
}

/// The SQL that `executor` or `dialect` expects of the host.
pub(super) fn dialect(keys: &mut Keys) -> Option<Dialect> {
    const KINDS: [(&str, Dialect); 3] = [("sqlite", Dialect::Sqlite), ("d1", Dialect::Sqlite), ("postgres", Dialect::Postgres)];
    let named = |name: &Json| KINDS.iter().find(|(kind, _)| name == kind).map(|(_, dialect)| *dialect);
    let executor = match keys.take("executor", &[]) {
        None | Some(Json::Null) => None,
        Some(Json::Object(block)) => {
            let mut block = Keys::nested("executor", block);
            let kind = block.take("kind", &[]);
            let found = kind.as_ref().and_then(named);
            if kind.is_some() && found.is_none() {
                block.problem("kind", "must be one of \"sqlite\", \"postgres\", \"d1\"");
            }
            block.take_positive("busyTimeoutMs", 5000);
            block.take_word("durability", ("full", ()), &[("normal", ())]);
            block.take_positive("statementCache", 200);
            block.take_positive("poolSize", 10);
            keys.end_block(block);
            found
        }
        Some(kind) => {
            let found = named(&kind);
            if found.is_none() {
                keys.problem("executor", "must be one of \"sqlite\", \"postgres\", \"d1\", or an object");
            }
            found
        }
    };
    let given = keys.has("dialect");
    let dialect = keys.take_word("dialect", ("sqlite", Dialect::Sqlite), &[("postgres", Dialect::Postgres)]);
    if given && executor.is_some_and(|executor| executor != dialect) {
        keys.problem("dialect", "does not match executor");
    }
    executor.or(given.then_some(dialect))
}

/// Rows of the first start, each one that an insert would take.
pub(super) fn seed(keys: &mut Keys, schema: Option<&Schema>, limits: &EnvelopeLimits) -> SeedRows {
    let tables: Map<String, Json> = optional(keys, "seed").unwrap_or_default();
    let mut seed = Vec::new();
    for (name, rows) in tables {
        let key = format!("seed.{name}");
        let Some(table) = schema.map(|schema| schema.table(&name)) else { continue };
        let Some(table) = table else {
            keys.problem(&key, "is no table of the schema");
            continue;
        };
        let Ok(rows) = serde_json::from_value::<Vec<Map<String, Json>>>(rows) else {
            keys.problem(&key, "must be a list of rows");
            continue;
        };
        for (index, row) in rows.iter().enumerate() {
            if let Err(problem) = complete_row(table, row, limits) {
                keys.problem(&format!("{key}[{index}]"), &problem.to_string());
            }
        }
        seed.push((name, rows));
    }
    seed
}
