//! Envelopes of encrypted columns: their shape and limits. The server never decrypts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

/// What an envelope may look like beyond its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvelopeLimits {
    /// Characters of the base64 text `ct`; none: any.
    pub ciphertext_bytes_max: Option<usize>,
    /// Key ids that are taken; none: any.
    pub allowed_key_ids: Option<Vec<String>>,
    /// Characters of the base64 text `kem.ct`.
    pub kem_ciphertext_bytes_max: usize,
}

impl Default for EnvelopeLimits {
    fn default() -> Self {
        Self { ciphertext_bytes_max: None, allowed_key_ids: None, kem_ciphertext_bytes_max: 4096 }
    }
}

/// Whether a value is an envelope within the limits; the error says what is wrong in a few words.
pub fn check(value: &Json, limits: &EnvelopeLimits) -> Result<(), String> {
    let object = value.as_object().ok_or("not an object")?;
    if object.get("v").and_then(Json::as_f64) != Some(1.0) {
        return Err("v must be 1".into());
    }
    text(object, "alg")?;
    let key_id = text(object, "keyId")?;
    base64(object, "iv", "iv")?;
    let ciphertext = base64(object, "ct", "ct")?;
    if let Some(limit) = limits.ciphertext_bytes_max.filter(|limit| ciphertext.len() > *limit) {
        return Err(format!("ct is longer than {limit}"));
    }
    if limits.allowed_key_ids.as_ref().is_some_and(|allowed| !allowed.iter().any(|id| id == key_id)) {
        return Err(format!("keyId {key_id} is not allowed"));
    }
    match object.get("kem") {
        None => Ok(()),
        Some(kem) => check_kem(kem.as_object().ok_or("kem must be an object")?, limits),
    }
}

fn check_kem(kem: &Map<String, Json>, limits: &EnvelopeLimits) -> Result<(), String> {
    if kem.get("alg").is_some_and(|alg| !alg.is_string()) {
        return Err("kem.alg must be a string".into());
    }
    let ciphertext = base64(kem, "ct", "kem.ct")?;
    if ciphertext.len() > limits.kem_ciphertext_bytes_max {
        return Err(format!("kem.ct is longer than {}", limits.kem_ciphertext_bytes_max));
    }
    if kem.contains_key("epk") {
        base64(kem, "epk", "kem.epk")?;
    }
    Ok(())
}

/// The first violation in the arguments of a mutation: every object in them that has a string `ct` and a `keyId` counts as an envelope.
pub fn violation_in(arguments: &Json, limits: &EnvelopeLimits) -> Option<String> {
    match arguments {
        Json::Array(members) => members.iter().find_map(|member| violation_in(member, limits)),
        Json::Object(object) => {
            let is_envelope = object.get("ct").is_some_and(Json::is_string) && object.contains_key("keyId");
            let own = if is_envelope { check(arguments, limits).err() } else { None };
            own.or_else(|| object.values().find_map(|member| violation_in(member, limits)))
        }
        _ => None,
    }
}

fn text<'a>(object: &'a Map<String, Json>, key: &str) -> Result<&'a str, String> {
    object.get(key).and_then(Json::as_str).ok_or_else(|| format!("{key} must be a string"))
}

fn base64<'a>(object: &'a Map<String, Json>, key: &str, name: &str) -> Result<&'a str, String> {
    let text = object.get(key).and_then(Json::as_str).ok_or_else(|| format!("{name} must be a string"))?;
    STANDARD.decode(text).map_err(|_| format!("{name} is not base64"))?;
    Ok(text)
}
