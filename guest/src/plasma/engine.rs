//! The engine: what pushes, pulls, writes and jobs do to the database of a mount. It knows no HTTP and no topics.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::blobs::BlobReads;
use super::envelope::EnvelopeLimits;
use super::failure::Failure;
use super::live::LiveQueries;
use super::mutators::Mutators;
use super::pull::{PartialShown, Shown};
use super::schema::Schema;
use super::write::StatementCache;
use crate::app::Description;
use crate::imports::{Imports, Transaction};
use crate::sql::Sql;

/// The database of a mount.
pub const DATABASE: &str = "plasma";

/// How schemas are migrated at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MigrationMode {
    /// What is safe is done, the rest refused.
    #[default]
    Auto,
    /// Any difference is refused.
    Check,
    /// Nothing is compared: somebody else sees to the tables. Missing ones are created.
    Off,
}

/// What the engine takes from the settings.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Name of the mount, for the app.
    pub mount: String,
    /// As in the settings.
    pub schema_version: String,
    /// `sequencer.region`.
    pub region: String,
    /// `migrations.mode`.
    pub migrations: MigrationMode,
    /// `migrations.allowDestructive`.
    pub allow_destructive: bool,
    /// `seed`: rows by table, in wire form.
    pub seed: Vec<(String, Vec<Json>)>,
    /// `envelopeValidation`.
    pub envelopes: EnvelopeLimits,
    /// `blobs.requireUploaded`.
    pub require_uploaded: bool,
    /// `blobs.default.prefix`: beginning of the keys of objects.
    pub blob_prefix: String,
    /// `changeLog.beforeImages`.
    pub before_images: bool,
    /// `changeLog.triggers`.
    pub triggers: bool,
    /// `clientGroupTtlMs`.
    pub client_group_ttl_ms: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            mount: "plasma".into(),
            schema_version: "1".into(),
            region: "local".into(),
            migrations: MigrationMode::Auto,
            allow_destructive: false,
            seed: Vec::new(),
            envelopes: EnvelopeLimits::default(),
            require_uploaded: false,
            blob_prefix: "plasma/blobs/".into(),
            before_images: true,
            triggers: false,
            client_group_ttl_ms: 30 * 24 * 3600 * 1000,
        }
    }
}

/// Who calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// What predicates and mutators see as `ctx`.
    pub context: Map<String, Json>,
    /// `ctx.userId` as text.
    pub user_id: String,
    /// A digest of what the visibility of rows may depend on.
    pub context_digest: String,
}

/// The dialect of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `protocolVersion`
    Native,
    /// `pushVersion`, `pullVersion`
    Replicache,
}

/// What is about to be committed.
#[derive(Debug)]
pub struct Committing<'a> {
    /// The version that becomes current.
    pub version: u64,
    /// Writes to rows that changed something.
    pub rows_changed: u64,
    /// Their tables.
    pub tables: &'a BTreeSet<String>,
    /// Mutations that were processed for the first time, failed ones among them; 0 for writes of the server's side.
    pub new_mutations: u64,
    /// Whose push it is.
    pub client_group_id: Option<&'a str>,
    /// The client of the last new mutation.
    pub client_id: Option<&'a str>,
    /// Who pushes; none for the server itself.
    pub caller: Option<&'a Caller>,
}

/// What happens beside the rows. Called inside the transaction, just before its commit: what is published there shares its fate.
pub trait Hooks {
    /// New versions are about to be committed.
    fn committing(&self, change: &Committing<'_>);
}

/// Nothing happens beside the rows.
pub struct NoHooks;

impl Hooks for NoHooks {
    fn committing(&self, _: &Committing<'_>) {}
}

/// The engine of one mount in one instance. It keeps nothing but what follows from its settings.
pub struct Engine {
    pub(super) schema: Rc<Schema>,
    pub(super) mutators: Mutators,
    pub(super) options: EngineOptions,
    pub(super) cache: StatementCache,
    pub(super) blob_reads: BlobReads,
    pub(super) shown: Rc<Shown>,
    pub(super) partial_shown: PartialShown,
    pub(super) live: LiveQueries,
    sql: OnceCell<Sql>,
    app: OnceCell<Description>,
}

impl Engine {
    /// From checked settings.
    pub fn new(schema: Rc<Schema>, mutators: Mutators, options: EngineOptions) -> Self {
        let shown = Shown::all(&schema);
        let (cache, live, partial_shown) = Default::default();
        let (blob_reads, sql, app) = (BlobReads::default(), OnceCell::new(), OnceCell::new());
        Self { schema, mutators, options, cache, blob_reads, shown, partial_shown, live, sql, app }
    }

    /// The schema of the settings.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// How statements are written; asked for once.
    pub fn sql(&self, imports: Imports<'_>) -> Result<&Sql, Failure> {
        if let Some(known) = self.sql.get() {
            return Ok(known);
        }
        let asked = Sql::of(imports.executor, DATABASE)?;
        Ok(self.sql.get_or_init(|| asked))
    }

    /// What the app has; asked for once.
    pub fn app(&self, imports: Imports<'_>) -> Result<&Description, Failure> {
        if let Some(known) = self.app.get() {
            return Ok(known);
        }
        let asked = Description::of(imports.app).map_err(|error| Failure::Unavailable(error.to_string()))?;
        Ok(self.app.get_or_init(|| asked))
    }

    /// Becomes the writer of the database.
    pub(super) fn begin(&self, imports: Imports<'_>) -> Result<Box<dyn Transaction>, Failure> {
        Ok(imports.executor.begin(DATABASE)?)
    }
}
