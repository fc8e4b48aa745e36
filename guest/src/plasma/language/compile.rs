//! Predicates as SQL.

use super::{Compiled, Exists, Sources};
use crate::imports::Dialect;

/// A statement that gives one row where the `exists` holds for the row in [`super::Bindings::outer`], else none.
pub fn compile_exists(exists: &Exists, dialect: Dialect, sources: &Sources) -> Compiled {
    todo!("{exists:?} {dialect:?} {sources:?}")
}
