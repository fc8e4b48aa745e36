//! The settings from top to bottom.

use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::Settings;
use super::blocks::{self, Blobs, ChangeLog, Live, Migrations, OnError, OnMetric, OnPushed, Poke, Sequencer, optional};
use crate::auth::Auth;
use crate::cors::Cors;
use crate::plasma::envelope::EnvelopeLimits;
use crate::plasma::language::parse_query;
use crate::plasma::mutators::Mutators;
use crate::plasma::schema::Schema;
use crate::settings::Settings as Keys;

/// What pages of other origins may do (section 5.6).
const CORS_METHODS: &str = "GET, HEAD, POST, PUT, OPTIONS";
const CORS_REQUEST_HEADERS: &str = "authorization, content-type, range, if-none-match, x-replicache-requestid, x-plasma-client-group, \
                                    x-plasma-client, last-event-id";
const CORS_EXPOSED_HEADERS: &str = "etag, content-range, accept-ranges";
/// The longest that a mutation may hold the database.
const MUTATOR_TIMEOUT_MS_MAX: u64 = 5000;

/// Takes everything that is known out of the keys. None where something is missing, which is then a problem.
pub(super) fn read(keys: &mut Keys) -> Option<Settings> {
    let base_path = base_path(keys);
    let schema = schema(keys).map(Rc::new);
    let mutators = mutators(keys, schema.as_deref());
    let schema_version = schema_version(keys);
    let auth = Auth::take(keys);
    let envelope_limits = envelope_limits(keys);
    let blobs = Blobs::read(keys, schema.as_deref());
    if blobs.is_none() && schema.as_ref().is_some_and(|schema| schema.has_files()) {
        keys.problem("blobs", "is missing: the schema has a column of type file");
    }
    if optional(keys, "requireTableAuth").unwrap_or(false)
        && let Some(schema) = &schema
    {
        keys.problems.extend(schema.tables_without_auth());
    }
    if optional::<u64>(keys, "protocolVersion").is_some_and(|version| version != 1) {
        keys.problem("protocolVersion", "must be 1: there is no other");
    }
    let seed = blocks::seed(keys, schema.as_deref(), &envelope_limits);
    let named_queries = named_queries(keys, schema.as_deref());
    let public_address = keys.take_public_address();
    let rest = Rest::read(keys);
    let warnings = rest.warnings(auth.as_ref(), public_address.as_deref());
    Some(Settings {
        base_path,
        envelope_limits,
        blobs,
        seed,
        named_queries,
        dialect: blocks::dialect(keys),
        hooks_in_background: keys.take_word("waitUntil", ("inline", false), &[("background", true)]),
        push_mutations_max: count(keys, "maxMutationsPerPush", 200),
        page_rows_max: count(keys, "maxPullPageSize", 1000),
        read_auth_refs_max: keys.take_positive("readAuthMaxRefs", 128),
        read_auth_exact: keys.take_word("readAuthMode", ("newest", false), &[("exact", true)]),
        over_limit_rejects: keys.take_word("overLimit", ("apply-prefix", false), &[("reject", true)]),
        named_queries_only: keys.take_word("queryPolicy", ("any", false), &[("named", true)]),
        client_group_ttl_ms: keys.take_positive("clientGroupTtlMs", 30 * 24 * 3_600_000),
        live: Live::read(keys),
        cors: cors(keys),
        admin_token: admin_token(keys),
        migrations: Migrations::read(keys),
        app_memory_bytes: keys.take_positive("appMemoryBytes", 64 << 20),
        on_pushed: rest.on_pushed,
        on_error: rest.on_error,
        on_metric: rest.on_metric,
        payload_bytes_max: rest.payload_bytes_max,
        body_bytes_max: rest.body_bytes_max,
        poke: rest.poke,
        change_log: rest.change_log,
        sequencer: rest.sequencer,
        mutator_timeout_ms: rest.mutator_timeout_ms,
        warnings,
        // Last, so that every key has been taken when one of them is missing.
        schema: schema?,
        mutators: mutators?,
        schema_version: schema_version?,
        auth: auth?,
    })
}

/// What bounds or warnings look at.
struct Rest {
    on_pushed: OnPushed,
    on_error: OnError,
    on_metric: OnMetric,
    poke: Option<Poke>,
    change_log: ChangeLog,
    sequencer: Sequencer,
    payload_bytes_max: u64,
    body_bytes_max: u64,
    mutator_timeout_ms: u64,
}

impl Rest {
    fn read(keys: &mut Keys) -> Self {
        let rest = Self {
            on_pushed: OnPushed::read(keys),
            on_error: OnError::read(keys),
            on_metric: OnMetric::read(keys),
            poke: Poke::read(keys),
            change_log: ChangeLog::read(keys),
            sequencer: Sequencer::read(keys),
            payload_bytes_max: keys.take_positive("maxPayloadBytes", 1 << 20),
            body_bytes_max: keys.take_positive("hostMaxBodyBytes", 16 << 20),
            mutator_timeout_ms: keys.take_positive("mutatorTimeoutMs", 1000),
        };
        if rest.body_bytes_max < rest.payload_bytes_max {
            keys.problem("hostMaxBodyBytes", "must not be less than maxPayloadBytes");
        }
        if rest.mutator_timeout_ms > MUTATOR_TIMEOUT_MS_MAX {
            keys.problem("mutatorTimeoutMs", &format!("must be at most {MUTATOR_TIMEOUT_MS_MAX}"));
        }
        rest
    }

    fn warnings(&self, auth: Option<&Auth>, public_address: Option<&str>) -> Vec<String> {
        let mut warnings = auth.map(|auth| auth.warnings(public_address)).unwrap_or_default();
        if self.poke.is_none() {
            warnings.push("poke: off: clients learn of changes only when they pull".into());
        }
        warnings
    }
}

fn count(keys: &mut Keys, key: &str, default: u64) -> usize {
    usize::try_from(keys.take_positive(key, default)).unwrap_or(usize::MAX)
}

/// `path` is where the host mounts it; `basePath` may say the same.
fn base_path(keys: &mut Keys) -> String {
    let own: Option<String> = optional(keys, "basePath");
    let mounted: Option<String> = optional(keys, "path");
    if let (Some(own), Some(mounted)) = (&own, &mounted)
        && own.trim_end_matches('/') != mounted.trim_end_matches('/')
    {
        keys.problem("basePath", "is not the path that the mount has");
    }
    let path = mounted.or(own).unwrap_or_else(|| "/sync".into());
    if !path.is_empty() && !path.starts_with('/') {
        keys.problem("basePath", "must be empty or begin with a slash");
    }
    path.trim_end_matches('/').to_owned()
}

fn schema(keys: &mut Keys) -> Option<Schema> {
    let Some(source) = keys.take("schema", &[]) else {
        keys.problem("schema", "is missing");
        return None;
    };
    Schema::parse(&source, "schema").map_err(|problems| keys.problems.extend(problems)).ok()
}

fn mutators(keys: &mut Keys, schema: Option<&Schema>) -> Option<Mutators> {
    let source = keys.take("mutators", &[]).unwrap_or_else(|| Json::Object(Map::new()));
    let auto_crud = optional(keys, "autoCrud").unwrap_or(false);
    let parsed = Mutators::parse(schema?, &source, "mutators", auto_crud, true);
    parsed.map_err(|problems| keys.problems.extend(problems)).ok()
}

fn schema_version(keys: &mut Keys) -> Option<String> {
    match keys.take("schemaVersion", &[]) {
        Some(Json::String(version)) => Some(version),
        Some(_) => {
            keys.problem("schemaVersion", "must be a string");
            None
        }
        None => {
            keys.problem("schemaVersion", "is missing");
            None
        }
    }
}

fn envelope_limits(keys: &mut Keys) -> EnvelopeLimits {
    let mut block = keys.block("envelopeValidation");
    let limits = EnvelopeLimits {
        ciphertext_bytes_max: optional(&mut block, "maxCiphertextBytes"),
        allowed_key_ids: optional(&mut block, "allowedKeyIds"),
        kem_ciphertext_bytes_max: optional(&mut block, "maxKemCiphertextBytes").unwrap_or(4096),
    };
    keys.end_block(block);
    limits
}

fn named_queries(keys: &mut Keys, schema: Option<&Schema>) -> Map<String, Json> {
    let queries: Map<String, Json> = optional(keys, "namedQueries").unwrap_or_default();
    for (name, query) in &queries {
        if let Some(Err(problem)) = schema.map(|schema| parse_query(schema, query)) {
            keys.problem(&format!("namedQueries.{name}"), &problem.to_string());
        }
    }
    queries
}

fn cors(keys: &mut Keys) -> Cors {
    let mut block = keys.block("cors");
    let origins = optional(&mut block, "origins").unwrap_or_default();
    keys.end_block(block);
    Cors { origins, methods: CORS_METHODS, request_headers: CORS_REQUEST_HEADERS, exposed_headers: CORS_EXPOSED_HEADERS }
}

fn admin_token(keys: &mut Keys) -> Option<String> {
    let token: Option<String> = optional(keys, "adminToken");
    if token.as_ref().is_some_and(String::is_empty) {
        keys.problem("adminToken", "must not be empty");
    }
    token
}
