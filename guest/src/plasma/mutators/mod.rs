//! Mutators: named changes that clients ask for.

use serde_json::Value as Json;

use super::schema::Schema;

/// The mutators of a mount: declarative ones, built-in ones (`autoCrud`), and those of the app for every other name.
#[derive(Debug, Default)]
pub struct Mutators {}

impl Mutators {
    /// Parses the declarative ones (key `mutators`); every problem is named by the path of its key. `app`: whether the mount has
    /// an app that has mutators.
    pub fn parse(schema: &Schema, source: &Json, path: &str, auto_crud: bool, app: bool) -> Result<Self, Vec<String>> {
        todo!("{schema:?} {source} {path} {auto_crud} {app}")
    }
}
