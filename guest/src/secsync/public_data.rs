//! The fields of `publicData` that apps add (docs/protocols/secsync.md, section 6.4).
//!
//! Fields that neither the protocol nor a schema knows are cut off before the signature is checked, so that the check
//! fails: a server that does not know a field refuses it instead of storing something else than was signed.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::frames::Kind;

/// The type of an additional field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldType {
    of: Type,
    optional: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    String,
    Number,
    Boolean,
    Any,
}

impl FieldType {
    /// By its name in the settings; a `?` behind it makes the field optional.
    pub fn named(name: &str) -> Option<Self> {
        let (name, optional) = match name.strip_suffix('?') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let of = match name {
            "string" => Type::String,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            "any" => Type::Any,
            _ => return None,
        };
        Some(Self { of, optional })
    }

    fn fits(self, value: Option<&Value>) -> bool {
        match (value, self.of) {
            (None, _) => self.optional,
            (Some(value), Type::String) => value.is_string(),
            (Some(value), Type::Number) => value.is_number(),
            (Some(value), Type::Boolean) => value.is_boolean(),
            (Some(_), Type::Any) => true,
        }
    }
}

/// What a kind of frame may carry in `publicData` besides its own fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Everything, as it is.
    Any,
    /// These fields.
    Fields(BTreeMap<String, FieldType>),
}

impl Default for Schema {
    /// No additional fields.
    fn default() -> Self {
        Self::Fields(BTreeMap::new())
    }
}

impl Schema {
    /// Cuts off what is neither a base field nor known here. False if a known field does not fit.
    /// A field that has the name of a base field is the base field.
    pub fn apply(&self, base: &[&str], public_data: &mut Map<String, Value>) -> bool {
        let Self::Fields(fields) = self else { return true };
        public_data.retain(|name, _| base.contains(&name.as_str()) || fields.contains_key(name));
        fields.iter().all(|(name, of)| base.contains(&name.as_str()) || of.fits(public_data.get(name)))
    }
}

/// The schemas of the three kinds of frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schemas {
    /// Of snapshots.
    pub snapshot: Schema,
    /// Of updates.
    pub update: Schema,
    /// Of ephemeral messages.
    pub ephemeral_message: Schema,
}

impl Schemas {
    /// The schema of a kind.
    pub fn of(&self, kind: Kind) -> &Schema {
        match kind {
            Kind::Snapshot => &self.snapshot,
            Kind::Update => &self.update,
            Kind::EphemeralMessage => &self.ephemeral_message,
        }
    }
}
