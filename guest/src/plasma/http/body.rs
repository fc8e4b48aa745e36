//! Bodies and what all of them have in common (section 5.3, steps 5 to 8; 5.4; 5.5).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};

use super::Admitted;
use super::refusal::Refusal;
use crate::contract::exports::syncline::sync::http::BodyFailure;
use crate::encoding::base64url;
use crate::gzip::{self, Uninflatable};
use crate::http::{content_length, is_gzip};
use crate::plasma::Call;
use crate::plasma::engine::{Caller, Dialect};
use crate::registry::{BodyIn, Request};

/// Longest id or name, in characters.
const ID_CHARACTERS_MAX: usize = 256;

/// A JSON body.
pub struct Body(pub Map<String, Json>);

/// The body of a push. Arguments that cannot be read are the error of their mutation alone: a refusal of the whole push would come back
/// for ever, and hold up all that waits behind it in the client.
pub struct PushBody {
    /// With null for such arguments.
    pub body: Body,
    /// By the place of their mutation: why.
    pub unreadable: BTreeMap<usize, String>,
}

/// Who calls, as the engine wants it.
pub fn caller_of(admitted: &Admitted) -> Caller {
    let user_id = match admitted.ctx.get("userId") {
        Some(Json::String(user_id)) => user_id.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    // Keys are in order, so equal contexts have equal texts.
    let digest = Sha256::digest(Json::Object(admitted.ctx.clone()).to_string());
    Caller { context: admitted.ctx.clone(), user_id, context_digest: base64url(&digest[..16]) }
}

/// An id or a name: 1 to 256 characters, none of them U+0000.
pub fn parse_id(name: &str, value: Option<&Json>) -> Result<String, Refusal> {
    match value.and_then(Json::as_str) {
        Some(id) if !id.is_empty() && id.chars().count() <= ID_CHARACTERS_MAX && !id.contains('\0') => Ok(id.to_owned()),
        _ => Err(Refusal::invalid(format!("{name} must be a string of 1 to {ID_CHARACTERS_MAX} characters"))),
    }
}

/// A number without a fraction.
pub fn integer(value: &Json) -> Option<i64> {
    let whole = |number: f64| number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_991.0;
    value.as_i64().or_else(|| value.as_f64().filter(|number| whole(*number)).map(|number| number as i64))
}

impl Body {
    /// Reads the body of a request.
    pub fn read(call: &Call<'_>, request: &Request) -> Result<Self, Refusal> {
        Self::parse(&inflated(call, request)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        match serde_json::from_slice(bytes) {
            Ok(Json::Object(body)) => Ok(Self(body)),
            Ok(_) => Err(Refusal::invalid("the body must be a JSON object")),
            Err(_) => Err(Refusal::invalid("the body is not JSON")),
        }
    }

    /// The dialect, by exactly one of two keys. `request`: `push` or `pull`.
    pub fn dialect(&self, request: &'static str) -> Result<Dialect, Refusal> {
        let other = format!("{request}Version");
        let (key, dialect, version) = match (self.0.get("protocolVersion"), self.0.get(&other)) {
            (Some(version), None) => ("protocolVersion", Dialect::Native, version),
            (None, Some(version)) => (other.as_str(), Dialect::Replicache, version),
            _ => return Err(Refusal::invalid(format!("exactly one of protocolVersion and {other} must be given"))),
        };
        match integer(version) {
            Some(1) => Ok(dialect),
            Some(got) => Err(Refusal::ProtocolMismatch { dialect, request, got }),
            None => Err(Refusal::invalid(format!("{key} must be an integer"))),
        }
    }

    /// Whether the client has this schema.
    pub fn check_schema(&self, call: &Call<'_>, dialect: Dialect) -> Result<(), Refusal> {
        let expected = &call.settings.schema_version;
        match self.0.get("schemaVersion") {
            Some(Json::String(got)) if got == expected => Ok(()),
            Some(Json::String(got)) => Err(Refusal::SchemaMismatch { dialect, expected: expected.clone(), got: got.clone() }),
            _ => Err(Refusal::invalid("schemaVersion must be a string")),
        }
    }
}

impl PushBody {
    /// Reads the body of a push.
    pub fn read(call: &Call<'_>, request: &Request) -> Result<Self, Refusal> {
        let bytes = inflated(call, request)?;
        match Body::parse(&bytes) {
            Ok(body) => Ok(Self { body, unreadable: BTreeMap::new() }),
            Err(refusal) => Self::with_unreadable(&bytes).ok_or(refusal),
        }
    }

    /// The body without the arguments that cannot be read; none where that is not all that is wrong with it.
    fn with_unreadable(bytes: &[u8]) -> Option<Self> {
        // What is kept raw is only skipped: neither its depth nor its escapes matter.
        let members: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes).ok()?;
        let mut body = Map::new();
        let mut unreadable = BTreeMap::new();
        for (key, raw) in members {
            let value = if key == "mutations" { mutations(raw, &mut unreadable)? } else { serde_json::from_str(raw.get()).ok()? };
            body.insert(key, value);
        }
        Some(Self { body: Body(body), unreadable })
    }
}

/// The mutations of a push, with null for arguments that cannot be read.
fn mutations(raw: &RawValue, unreadable: &mut BTreeMap<usize, String>) -> Option<Json> {
    let listed: Vec<BTreeMap<String, &RawValue>> = serde_json::from_str(raw.get()).ok()?;
    let mut mutations = Vec::with_capacity(listed.len());
    for (index, members) in listed.into_iter().enumerate() {
        let mut mutation = Map::new();
        for (key, raw) in members {
            let value = match serde_json::from_str(raw.get()) {
                Ok(value) => value,
                Err(problem) if key == "args" => {
                    unreadable.insert(index, format!("args cannot be read: {problem}"));
                    Json::Null
                }
                Err(_) => return None,
            };
            mutation.insert(key, value);
        }
        mutations.push(Json::Object(mutation));
    }
    Some(Json::Array(mutations))
}

/// The bytes of a body, inflated where they came in gzip.
fn inflated<'a>(call: &Call<'_>, request: &'a Request) -> Result<Cow<'a, [u8]>, Refusal> {
    let settings = call.settings;
    let announced = content_length(&request.head);
    let bytes = match &request.body {
        BodyIn::Bytes(bytes) => bytes,
        BodyIn::Empty => return Err(Refusal::invalid("the body must be a JSON object")),
        BodyIn::Failed(BodyFailure::TooLarge) => {
            let limit = settings.body_bytes_max;
            return Err(Refusal::PayloadTooLarge { limit, got: announced.unwrap_or(0).max(limit + 1) });
        }
        BodyIn::Failed(_) | BodyIn::Stored(_) => return Err(Refusal::Unavailable("the body could not be read".into())),
    };
    if !is_gzip(&request.head) {
        return Ok(Cow::Borrowed(bytes));
    }
    let limit = if announced.is_some() { settings.payload_bytes_max } else { settings.body_bytes_max };
    match gzip::inflate(bytes, limit) {
        Ok(inflated) => Ok(Cow::Owned(inflated)),
        Err(Uninflatable::TooLarge(limit)) => Err(Refusal::PayloadTooLarge { limit, got: limit + 1 }),
        Err(Uninflatable::Malformed) => Err(Refusal::invalid("the body is not gzip")),
    }
}
