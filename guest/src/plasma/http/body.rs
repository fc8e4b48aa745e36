//! Bodies and what all of them have in common (section 5.3, steps 5 to 8; 5.4; 5.5).

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
        let parse = |bytes: &[u8]| serde_json::from_slice::<Json>(bytes);
        let parsed = if is_gzip(&request.head) {
            let limit = if announced.is_some() { settings.payload_bytes_max } else { settings.body_bytes_max };
            let inflated = gzip::inflate(bytes, limit).map_err(|problem| match problem {
                Uninflatable::TooLarge(limit) => Refusal::PayloadTooLarge { limit, got: limit + 1 },
                Uninflatable::Malformed => Refusal::invalid("the body is not gzip"),
            })?;
            parse(&inflated)
        } else {
            parse(bytes)
        };
        match parsed {
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
