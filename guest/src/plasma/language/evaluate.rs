//! Predicates in memory, for the checks of writes.

use serde_json::{Map, Value as Json};

use super::{BindError, Bindings, Exists, Predicate};

/// Who knows other rows.
pub trait Lookup {
    /// Why it could not look; [`BindError`]s are among them.
    type Error: From<BindError>;
    /// Whether some row meets the condition, in which `outer` is a row.
    fn exists(&self, exists: &Exists, outer: &Map<String, Json>, bindings: &Bindings<'_>) -> Result<bool, Self::Error>;
}

/// Whether a predicate holds for a row; unknown is false.
pub fn evaluate<L: Lookup>(predicate: &Predicate, row: &Map<String, Json>, bindings: &Bindings<'_>, lookup: &L) -> Result<bool, L::Error> {
    todo!("{predicate:?} {row:?} {bindings:?} {:?}", std::ptr::from_ref(lookup))
}
