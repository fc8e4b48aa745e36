//! What the app of a mount may do (`wit/deps/app/plasma.wit`): read and write rows, always through the engine.
//!
//! It runs in another instance than the logic, within the same call. On which mount and settings it works, and at what, the
//! logic tells it by notes; which mutation is under way, by the row that the engine leaves for it ([`OpenMutation`]).
//!
//! [`OpenMutation`]: super::mutators::OpenMutation

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Map, Value as Json, json};

use super::PlasmaMount;
use super::hooks::WriteHooks;
use super::server_db::{Operation, Policy, WriteRefused, Written};
use crate::imports::Imports;

/// The key of the note that says which mount, on which settings.
const MOUNT_NOTE: &str = "plasma/mount";
/// The key of the note that says at what the app is.
const WORK_NOTE: &str = "plasma/work";

/// What the app was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Anything outside of a mutation: it acts as the server itself.
    Other,
    /// A mutation: it acts in the name of the mutation's caller.
    Mutation,
    /// To judge a write that is under way: it may look, and nothing else.
    Judgement,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Mutation => "mutation",
            Self::Judgement => "judgement",
        }
    }

    fn noted(imports: Imports<'_>) -> Self {
        let noted = imports.storage.noted(WORK_NOTE).unwrap_or_default();
        [Self::Mutation, Self::Judgement].into_iter().find(|work| work.name().as_bytes() == noted).unwrap_or(Self::Other)
    }
}

/// Tells services which mount, on which settings, the call is about.
pub(super) fn note_mount(imports: Imports<'_>, mount: &str, settings: &str) {
    imports.storage.note(MOUNT_NOTE, json!([mount, settings]).to_string().as_bytes());
    imports.storage.note(WORK_NOTE, Work::Other.name().as_bytes());
}

/// Has the app do something, and tells services what it is.
pub(super) fn working<T>(imports: Imports<'_>, work: Work, run: impl FnOnce() -> T) -> T {
    imports.storage.note(WORK_NOTE, work.name().as_bytes());
    let done = run();
    imports.storage.note(WORK_NOTE, Work::Other.name().as_bytes());
    done
}

/// A mount, and the note that it was made from.
type Known = (Vec<u8>, Rc<PlasmaMount>);

thread_local! {
    /// The mount of the last call. It follows from the note alone.
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// The mount that the call is about, and in whose name the app works on it.
pub struct Service<'a> {
    mount: Rc<PlasmaMount>,
    imports: Imports<'a>,
    work: Work,
}

fn invalid(why: impl std::fmt::Display) -> WriteRefused {
    WriteRefused::Invalid(why.to_string())
}

fn parsed<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, WriteRefused> {
    serde_json::from_str(text).map_err(|error| invalid(format!("{what}: {error}")))
}

fn mount_of(note: Vec<u8>) -> Result<Rc<PlasmaMount>, WriteRefused> {
    let known = KNOWN.with_borrow(|known| known.as_ref().filter(|(of, _)| *of == note).map(|(_, mount)| mount.clone()));
    if let Some(mount) = known {
        return Ok(mount);
    }
    let (name, settings): (String, String) = serde_json::from_slice(&note).map_err(invalid)?;
    let mount = Rc::new(PlasmaMount::new(&name, &settings, &[]).map_err(invalid)?);
    KNOWN.set(Some((note, mount.clone())));
    Ok(mount)
}

impl<'a> Service<'a> {
    /// What the notes of the call say.
    pub fn of(imports: Imports<'a>) -> Result<Self, WriteRefused> {
        let note = imports.storage.noted(MOUNT_NOTE).ok_or_else(|| invalid("this is no call of a plasma mount"))?;
        Ok(Self { mount: mount_of(note)?, imports, work: Work::noted(imports) })
    }

    /// In whose name the app acts where it names nobody. The engine puts the caller's context in place of the empty one.
    fn policy(&self) -> Policy {
        match self.work {
            Work::Mutation => Policy::Enforce(Map::new()),
            Work::Other | Work::Judgement => Policy::Bypass,
        }
    }

    /// Rows of a query, as a JSON array.
    pub fn query(&self, query: &str, parameters: &str) -> Result<String, WriteRefused> {
        let (query, parameters): (Json, Map<String, Json>) = (parsed("query", query)?, parsed("parameters", parameters)?);
        let rows = self.mount.engine.select(self.imports, &self.policy(), &query, Some(&parameters))?;
        Ok(json!(rows).to_string())
    }

    /// One row, as a JSON object.
    pub fn get(&self, table: &str, key: &str) -> Result<Option<String>, WriteRefused> {
        let key: Vec<Json> = parsed("key", key)?;
        let row = self.mount.engine.get(self.imports, &self.policy(), table, &key)?;
        Ok(row.map(|row| Json::Object(row).to_string()))
    }

    /// A new row.
    pub fn insert(&self, table: &str, row: &str) -> Result<(), WriteRefused> {
        self.apply(Operation::Insert { table: table.into(), row: parsed("row", row)? })
    }

    /// A new row, or columns of one.
    pub fn upsert(&self, table: &str, row: &str) -> Result<(), WriteRefused> {
        self.apply(Operation::Upsert { table: table.into(), row: parsed("row", row)? })
    }

    /// Columns of a row.
    pub fn update(&self, table: &str, key: &str, set: &str) -> Result<(), WriteRefused> {
        self.apply(Operation::Update { table: table.into(), key: parsed("key", key)?, set: parsed("set", set)? })
    }

    /// Removes a row.
    pub fn delete(&self, table: &str, key: &str) -> Result<(), WriteRefused> {
        self.apply(Operation::Delete { table: table.into(), key: parsed("key", key)? })
    }

    /// Several writes, all or none: with the rules for a context, or without any.
    pub fn write(&self, context: Option<&str>, operations: &str) -> Result<Written, WriteRefused> {
        let policy = match context {
            Some(context) => Policy::Enforce(parsed("as-context", context)?),
            None => Policy::Bypass,
        };
        let sources: Vec<Json> = parsed("operations", operations)?;
        let parse = |(index, source)| Operation::parse(source).map_err(|why| invalid(format!("operations[{index}]: {why}")));
        let operations: Vec<Operation> = sources.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        self.carry_out(&policy, &operations)
    }

    fn apply(&self, operation: Operation) -> Result<(), WriteRefused> {
        self.carry_out(&self.policy(), &[operation]).map(drop)
    }

    fn carry_out(&self, policy: &Policy, operations: &[Operation]) -> Result<Written, WriteRefused> {
        // The write that is judged has not entered the log yet: another one would take its place.
        if self.work == Work::Judgement {
            return Err(invalid("an app that judges a write cannot write"));
        }
        let call = self.mount.call(self.imports, 0);
        self.mount.engine.write(self.imports, policy, operations, &WriteHooks::of(&call))
    }
}
