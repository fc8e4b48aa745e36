//! The settings of a mount and the plan that follows from them (docs/protocols/secsync.md, section 10).

use serde::Deserialize;
use serde_json::{Map, Value};

use super::policy::{Access, Action, Glob, Rule};
use super::public_data::{FieldType, Schema, Schemas};
use crate::settings::Settings as Keys;

/// Which documents come into being when somebody opens them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AutoCreate {
    /// Every id, or none.
    Always(bool),
    /// Ids that fit one of the globs.
    Matching(Vec<Glob>),
}

impl AutoCreate {
    /// Whether an id may be created.
    pub fn allows(&self, doc_id: &str) -> bool {
        match self {
            Self::Always(always) => *always,
            Self::Matching(globs) => globs.iter().any(|glob| glob.fits(doc_id)),
        }
    }
}

/// How far the chain of snapshots is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentProof {
    /// Not at all.
    Off,
    /// Whenever there is an active snapshot.
    On,
    /// First snapshots too: they must have no parent.
    Strict,
}

/// What is written to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Logging {
    /// Nothing but failures of the server itself.
    Off,
    /// Refusals too.
    Error,
    /// What was saved too.
    Debug,
}

/// What is kept of superseded snapshots. Both limits must hold where both are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many superseded snapshots of a document keep their content.
    pub superseded_snapshots: Option<u32>,
    /// For so many days after they were superseded.
    pub max_age_days: Option<u32>,
}

/// Everything that can be set, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whether the mount has a route at all.
    pub enabled: bool,
    /// The path prefix: empty (root) or with a leading and without a trailing slash.
    pub path: String,
    /// Which documents come into being when somebody opens them.
    pub auto_create: AutoCreate,
    /// Who may read and write.
    pub access: Access,
    /// Who gets broadcasts.
    pub broadcast_access: Access,
    /// Updates on one snapshot after which a new one is demanded, by glob, most specific first; 0 is no limit.
    pub max_updates_per_snapshot: Vec<(Glob, u64)>,
    /// Additional fields of `publicData`.
    pub schemas: Schemas,
    /// Ephemeral messages without the right to send them: drop them (true) or close the connection.
    pub drop_denied_ephemeral: bool,
    /// Without broadcast access: close the connection (true) or say nothing more.
    pub close_on_broadcast_denied: bool,
    /// Whether signatures are checked.
    pub verify_signatures: bool,
    /// Whether lengths and base64 are checked.
    pub verify_shape: bool,
    /// How far parent proofs are checked.
    pub parent_proof: ParentProof,
    /// What is logged.
    pub logging: Logging,
    /// Largest frame from a client, bytes.
    pub max_message_bytes: u64,
    /// Unsent bytes after which a slow client is closed.
    pub max_backlog_bytes: u64,
    /// Bad frames in a row after which a client is closed; 0 is no limit.
    pub max_bad_frames: u64,
    /// Interval of WebSocket pings, milliseconds; 0 is off.
    pub ping_interval_ms: u64,
    /// What is kept of superseded snapshots; none keeps everything.
    pub retention: Option<Retention>,
    /// How long other authors' updates wait for the retry of a snapshot that missed updates, milliseconds; 0 is off.
    pub snapshot_grace_ms: u64,
    /// Whether refusals of updates right behind a refused one stay unsaid.
    pub quiet_pipelined_refusals: bool,
    /// How long a graceful stop waits for received frames, milliseconds.
    pub shutdown_drain_ms: u64,
    /// What is valid but has no effect, or a dangerous one.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads and checks settings (a JSON object). Each problem names its key.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut keys = Keys::parse(text)?;
        let public_address = keys.take_public_address();
        let of_policy: Vec<_> = ["policy", "deny_ephemeral"].into_iter().filter(|key| keys.has(key)).collect();
        let policy = policy(&mut keys);
        let verify = Verify::read(&mut keys);
        let mut settings = Self {
            enabled: keys.take_as("enabled", &[]).unwrap_or(true),
            path: keys.take_path("/secsync"),
            auto_create: auto_create(&mut keys),
            access: access(&mut keys, "access", &policy),
            broadcast_access: access(&mut keys, "broadcast_access", &policy),
            max_updates_per_snapshot: max_updates_per_snapshot(&mut keys),
            schemas: schemas(&mut keys),
            drop_denied_ephemeral: keys.take_word("deny_ephemeral", ("close", false), &[("drop", true)]),
            close_on_broadcast_denied: keys.take_word("on_broadcast_denied", ("silent", false), &[("close", true)]),
            verify_signatures: verify.signatures,
            verify_shape: verify.shape,
            parent_proof: verify.parent_proof,
            logging: keys.take_word("logging", ("off", Logging::Off), &[("error", Logging::Error), ("debug", Logging::Debug)]),
            max_message_bytes: keys.take_positive("max_message_bytes", 16 << 20),
            max_backlog_bytes: keys.take_positive("max_backlog_bytes", 16 << 20),
            max_bad_frames: keys.take_as("max_bad_frames", &[]).unwrap_or(20),
            ping_interval_ms: keys.take_as("ping_interval_ms", &[]).unwrap_or(30_000),
            retention: retention(&mut keys),
            snapshot_grace_ms: keys.take_as("snapshot_grace_ms", &[]).unwrap_or(0),
            quiet_pipelined_refusals: keys.take_as("quiet_pipelined_refusals", &[]).unwrap_or(true),
            shutdown_drain_ms: keys.take_as("shutdown_drain_ms", &[]).unwrap_or(5000),
            warnings: Vec::new(),
        };
        settings.warnings = settings.warnings(&of_policy, public_address.as_deref());
        match keys.finish() {
            problems if problems.is_empty() => Ok(settings),
            problems => Err(problems),
        }
    }

    /// What is worth a word to whoever runs the server. `of_policy` are the keys that were given and matter only where
    /// somebody may be denied something, `public_address` is where other machines reach the mount.
    fn warnings(&self, of_policy: &[&str], public_address: Option<&str>) -> Vec<String> {
        let mut warnings = Vec::new();
        let by_policy = |access: &Access| matches!(access, Access::Policy(_));
        let may_deny = |key: &str| match key {
            "policy" => by_policy(&self.access) || by_policy(&self.broadcast_access),
            _ => self.access != Access::AllowAll || self.broadcast_access != Access::AllowAll,
        };
        let because = "has no effect: neither access nor broadcast_access is \"policy\"";
        warnings.extend(of_policy.iter().filter(|key| !may_deny(key)).map(|key| format!("{key}: {because}")));
        for (key, access) in [("access", &self.access), ("broadcast_access", &self.broadcast_access)] {
            if matches!(access, Access::Policy(rules) if rules.is_empty()) {
                warnings.push(format!("{key}: nobody is allowed anything: there are no rules in policy"));
            }
            if let (Access::AllowAll, Some(address)) = (access, public_address) {
                warnings.push(format!("{key}: allow-all: other machines reach {address}, and whoever does is let in"));
            }
        }
        if self.close_on_broadcast_denied && self.broadcast_access == Access::AllowAll {
            warnings.push("on_broadcast_denied: has no effect: broadcast_access denies nothing".into());
        }
        if !self.verify_signatures {
            warnings.push("verify.signatures: off: anybody may write in the name of anybody".into());
        }
        if !self.enabled {
            warnings.push("enabled: off: the mount answers nowhere".into());
        }
        warnings
    }

    /// The limit of updates per snapshot of a document, from the most specific glob that fits; none is no limit.
    pub fn updates_limit(&self, doc_id: &str) -> Option<u64> {
        self.max_updates_per_snapshot.iter().find(|(glob, _)| glob.fits(doc_id)).map(|(_, limit)| *limit).filter(|limit| *limit > 0)
    }
}

fn auto_create(keys: &mut Keys) -> AutoCreate {
    match keys.take("auto_create", &[]) {
        None => AutoCreate::Always(true),
        Some(Value::Bool(always)) => AutoCreate::Always(always),
        Some(value) => match serde_json::from_value::<Vec<String>>(value) {
            Ok(globs) => AutoCreate::Matching(globs.into_iter().map(Glob::new).collect()),
            Err(_) => {
                keys.problem("auto_create", "must be true, false or a list of globs");
                AutoCreate::Always(false)
            }
        },
    }
}

fn access(keys: &mut Keys, key: &str, policy: &[Rule]) -> Access {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        AllowAll,
        Policy,
        App,
    }
    match keys.take_word(key, ("allow-all", Kind::AllowAll), &[("policy", Kind::Policy), ("app", Kind::App)]) {
        Kind::AllowAll => Access::AllowAll,
        Kind::Policy => Access::Policy(policy.to_vec()),
        Kind::App => Access::App,
    }
}

fn policy(keys: &mut Keys) -> Vec<Rule> {
    let Some(list) = keys.take_as::<Vec<Map<String, Value>>>("policy", &[]) else { return Vec::new() };
    let mut rules = Vec::new();
    for (index, rule) in list.into_iter().enumerate() {
        let mut inner = Keys::nested(&format!("policy[{index}]"), rule);
        let session_keys = required(&mut inner, "session_keys");
        let documents = required::<Vec<String>>(&mut inner, "documents").into_iter().map(Glob::new).collect();
        let mut actions = Vec::new();
        for name in required::<Vec<String>>(&mut inner, "actions") {
            match Action::named(&name) {
                Some(action) => actions.push(action),
                None => inner.problem("actions", &format!("{name:?} is no action")),
            }
        }
        let public_keys = inner.take_as("public_keys", &[]);
        let broadcast = inner.take_as("broadcast", &[]).unwrap_or(false);
        rules.push(Rule { session_keys, documents, actions, public_keys, broadcast });
        keys.problems.extend(inner.finish());
    }
    rules
}

fn required<T: serde::de::DeserializeOwned + Default>(keys: &mut Keys, key: &str) -> T {
    match keys.take(key, &[]) {
        None => {
            keys.problem(key, "is missing");
            T::default()
        }
        Some(value) => serde_json::from_value(value).unwrap_or_else(|error| {
            keys.problem(key, &error.to_string());
            T::default()
        }),
    }
}

fn max_updates_per_snapshot(keys: &mut Keys) -> Vec<(Glob, u64)> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Limit {
        Everywhere(u64),
        ByGlob(std::collections::BTreeMap<String, u64>),
    }
    let given = keys.take("max_updates_per_snapshot", &[]).map(serde_json::from_value);
    match given {
        None => Vec::new(),
        Some(Ok(Limit::Everywhere(limit))) => vec![(Glob::new("*"), limit)],
        Some(Ok(Limit::ByGlob(limits))) => {
            let mut limits: Vec<_> = limits.into_iter().map(|(glob, limit)| (Glob::new(glob), limit)).collect();
            limits.sort_by_key(|(glob, _)| std::cmp::Reverse(glob.literal_count()));
            limits
        }
        Some(Err(_)) => {
            keys.problem("max_updates_per_snapshot", "must be a number, or an object of globs and numbers");
            Vec::new()
        }
    }
}

fn schemas(keys: &mut Keys) -> Schemas {
    let mut schemas = Schemas::default();
    if let Some(map) =
        keys.take_as("additional_public_data", &["additionalAuthenticationDataValidations", "additional_authentication_data_validations"])
    {
        let mut inner = Keys::nested("additional_public_data", map);
        schemas.snapshot = schema(&mut inner, "snapshot");
        schemas.update = schema(&mut inner, "update");
        schemas.ephemeral_message = schema(&mut inner, "ephemeral_message");
        keys.problems.extend(inner.finish());
    }
    schemas
}

fn schema(keys: &mut Keys, key: &str) -> Schema {
    match keys.take(key, &[]) {
        None => Schema::default(),
        Some(Value::String(word)) if word == "any" => Schema::Any,
        Some(Value::Object(fields)) => {
            let mut known = std::collections::BTreeMap::new();
            for (field, value) in fields {
                match value.as_str().and_then(FieldType::named) {
                    Some(of) => {
                        known.insert(field, of);
                    }
                    None => keys.problem(
                        &format!("{key}.{field}"),
                        r#"must be "string", "number", "boolean" or "any", with a "?" behind it if it may be absent"#,
                    ),
                }
            }
            Schema::Fields(known)
        }
        Some(_) => {
            keys.problem(key, r#"must be "any" or an object of field names and types"#);
            Schema::default()
        }
    }
}

struct Verify {
    signatures: bool,
    shape: bool,
    parent_proof: ParentProof,
}

impl Verify {
    fn read(keys: &mut Keys) -> Self {
        let mut inner = Keys::nested("verify", keys.take_as("verify", &[]).unwrap_or_default());
        let verify = Self {
            signatures: inner.take_as("signatures", &[]).unwrap_or(true),
            shape: inner.take_as("shape", &[]).unwrap_or(true),
            parent_proof: inner.take_word(
                "parent_proof",
                ("on", ParentProof::On),
                &[("off", ParentProof::Off), ("strict", ParentProof::Strict)],
            ),
        };
        keys.problems.extend(inner.finish());
        verify
    }
}

fn retention(keys: &mut Keys) -> Option<Retention> {
    match keys.take("retention", &[])? {
        Value::String(word) if word == "keep" => None,
        Value::Object(map) => {
            let mut inner = Keys::nested("retention", map);
            let retention = Retention {
                superseded_snapshots: inner.take_as("superseded_snapshots", &[]),
                max_age_days: inner.take_as("max_age_days", &[]),
            };
            let problems = inner.finish();
            if problems.is_empty() && retention.superseded_snapshots.is_none() && retention.max_age_days.is_none() {
                keys.problem("retention", "must name superseded_snapshots, max_age_days or both");
            }
            keys.problems.extend(problems);
            Some(retention)
        }
        _ => {
            keys.problem("retention", r#"must be "keep" or an object"#);
            None
        }
    }
}
