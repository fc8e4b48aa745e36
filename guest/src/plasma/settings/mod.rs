//! Settings of a plasma mount (docs/protocols/plasma.md, section 2): every key with its default, every problem named.
//!
//! Keys may be spelt in camelCase or snake_case. Names of data (tables, columns, mutators, tokens, contexts) are taken as they are.

mod blocks;
mod sections;

use std::rc::Rc;

use serde_json::Value as Json;

use super::envelope::EnvelopeLimits;
use super::mutators::Mutators;
use super::schema::Schema;
use crate::auth::Auth;
use crate::cors::Cors;
use crate::imports::Dialect;
use crate::settings::Settings as Keys;

pub use blocks::{Blobs, ChangeLog, Live, Migrations, MigrationsMode, OnError, OnMetric, OnPushed, Poke, SeedRows, Sequencer};

/// What a mount does, and how.
#[derive(Debug)]
pub struct Settings {
    /// Prefix of every path, without a slash at its end.
    pub base_path: String,
    /// Tables and rules.
    pub schema: Rc<Schema>,
    /// Declarative mutators, and whether there are built-in ones.
    pub mutators: Mutators,
    /// The SQL that the mount expects its host to speak; none: whatever it speaks.
    pub dialect: Option<Dialect>,
    /// What clients must name.
    pub schema_version: String,
    /// How callers are told apart.
    pub auth: Auth,
    /// What happens after a push that changed rows.
    pub on_pushed: OnPushed,
    /// Where errors go.
    pub on_error: OnError,
    /// Where metrics go.
    pub on_metric: OnMetric,
    /// Whether hooks of the app run after the response instead of before it.
    pub hooks_in_background: bool,
    /// New mutations of one push.
    pub push_mutations_max: usize,
    /// Bytes of a body that announces its size, and of a frame.
    pub payload_bytes_max: u64,
    /// Bytes of any body.
    pub body_bytes_max: u64,
    /// Rows of one page.
    pub page_rows_max: usize,
    /// What envelopes may hold.
    pub envelope_limits: EnvelopeLimits,
    /// Blobs; none: there are none.
    pub blobs: Option<Blobs>,
    /// Refs that are looked at when a blob is read.
    pub read_auth_refs_max: u64,
    /// Whether all refs are looked at.
    pub read_auth_exact: bool,
    /// Whether a Replicache push with too many mutations is refused as a whole.
    pub over_limit_rejects: bool,
    /// Realtime; none: off.
    pub poke: Option<Poke>,
    /// Bounds of live select.
    pub live: Live,
    /// What is kept of the change log.
    pub change_log: ChangeLog,
    /// How long a client group is kept that does nothing, milliseconds.
    pub client_group_ttl_ms: u64,
    /// How versions are given out.
    pub sequencer: Sequencer,
    /// Pages of other origins.
    pub cors: Cors,
    /// Opens the admin surface; none: there is none.
    pub admin_token: Option<String>,
    /// Rows of the first start.
    pub seed: SeedRows,
    /// What may be done to the schema of a database at start.
    pub migrations: Migrations,
    /// Whether only named queries are taken.
    pub named_queries_only: bool,
    /// Queries by name.
    pub named_queries: serde_json::Map<String, Json>,
    /// How long the app may take for one mutation, milliseconds.
    pub mutator_timeout_ms: u64,
    /// Memory of an instance of the app, bytes.
    pub app_memory_bytes: u64,
    /// What is valid but has no effect, or a dangerous one.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads and checks settings (a JSON object). Each problem names its key.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut keys = Keys::parse(text)?;
        let read = sections::read(&mut keys);
        let problems = keys.finish();
        match read {
            Some(settings) if problems.is_empty() => Ok(settings),
            _ => Err(problems),
        }
    }
}
