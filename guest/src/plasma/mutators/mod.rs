//! Mutators: named changes that clients ask for.
//!
//! A name is looked for among the declarative ones, then the built-in ones (`autoCrud`), then it goes to the app.

mod app;
mod crud;
mod declarative;
pub(super) mod expression;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use declarative::Declarative;

use super::engine::Engine;
use super::failure::Failure;
use super::push::{Mutation, MutationError};
use super::schema::Schema;
use super::server_db::WriteRefused;
use super::write::Writer;

pub use app::OpenMutation;

/// The mutators of a mount.
#[derive(Debug, Default)]
pub struct Mutators {
    declarative: BTreeMap<String, Declarative>,
    auto_crud: bool,
    app: bool,
}

/// How a mutator ended without doing its work.
#[derive(Debug)]
pub enum Stopped {
    /// It failed for good: its error is recorded, its id is used up.
    Failed(MutationError),
    /// The app took so long that the transaction is over, too: recorded by another try without it.
    TimedOut(MutationError),
    /// It may succeed later; nothing is recorded.
    Passing(Failure),
}

impl Stopped {
    /// An error of no special name.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(MutationError { name: "Error".into(), message: message.into() })
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Passing(failure)
    }
}

impl From<WriteRefused> for Stopped {
    fn from(refused: WriteRefused) -> Self {
        match refused {
            WriteRefused::Failure(failure) => Self::Passing(failure),
            WriteRefused::Authorization { .. } => {
                Self::Failed(MutationError { name: "PlasmaAuthorizationError".into(), message: refused.to_string() })
            }
            WriteRefused::Invalid(message) => Self::failed(message),
        }
    }
}

impl Mutators {
    /// Parses the declarative ones (key `mutators`); every problem is named by the path of its key. `app`: whether the mount has
    /// an app that has mutators.
    pub fn parse(schema: &Schema, source: &Json, path: &str, auto_crud: bool, app: bool) -> Result<Self, Vec<String>> {
        let Some(object) = source.as_object() else { return Err(vec![format!("{path}: expected an object")]) };
        let mut problems = Vec::new();
        let mut declarative = BTreeMap::new();
        for (name, source) in object {
            match Declarative::parse(schema, source, &format!("{path}.{name}")) {
                Ok(mutator) => drop(declarative.insert(name.clone(), mutator)),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(Self { declarative, auto_crud, app }) } else { Err(problems) }
    }

    /// Whether a name is neither declared nor built in, so that the app has it, if anybody.
    pub fn goes_to_app(&self, schema: &Schema, name: &str) -> bool {
        self.app && !self.declarative.contains_key(name) && !(self.auto_crud && crud::find(schema, name).is_some())
    }
}

/// Who asks for a mutation.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its user.
    pub user_id: &'a str,
    /// What predicates and expressions see as `ctx`.
    pub context: &'a Map<String, Json>,
    /// The client group of the push.
    pub client_group_id: &'a str,
}

impl Engine {
    /// Runs a mutator. What it writes stays the caller's to keep or to undo.
    pub(super) fn run_mutator<'a>(&'a self, writer: &mut Writer<'a>, asker: Asker<'_>, mutation: &Mutation) -> Result<(), Stopped> {
        let name = mutation.name.as_str();
        if let Some(mutator) = self.mutators.declarative.get(name) {
            return mutator.run(writer, asker.context, mutation);
        }
        if let Some((table, action)) = crud::find(&self.schema, name).filter(|_| self.mutators.auto_crud) {
            return crud::run(writer, table, action, &mutation.arguments);
        }
        if self.mutators.app {
            return self.run_app_mutator(writer, asker, mutation);
        }
        Err(unknown(name))
    }
}

fn unknown(name: &str) -> Stopped {
    Stopped::failed(format!("unknown mutator: {name}"))
}
