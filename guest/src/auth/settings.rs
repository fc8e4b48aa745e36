//! The block `auth` of a mount's settings.

use std::cell::RefCell;

use serde_json::{Map, Value as Json};

use super::Auth;
use super::jwt::{Algorithm, JwtRules};
use super::keys::Keys;
use crate::settings::Settings;

/// How far clocks may be apart where nothing is said.
const LEEWAY_MS: u64 = 5000;

impl Auth {
    /// Takes the key `auth` out of settings. Problems are noted there; one that matters also gives none.
    pub fn take(settings: &mut Settings) -> Option<Self> {
        if !settings.has("auth") {
            settings.problem("auth", "is missing");
            return None;
        }
        let mut keys = settings.block("auth");
        let auth = read(&mut keys);
        settings.end_block(keys);
        auth
    }
}

fn read(keys: &mut Settings) -> Option<Auth> {
    let mode = keys.take("mode", &[]);
    let allow_insecure = keys.take_as("allowInsecure", &[]).unwrap_or(false);
    match mode.as_ref().and_then(Json::as_str) {
        Some("static") => tokens(keys).map(Auth::Static),
        Some("jwt") => jwt(keys).map(|rules| Auth::Jwt(Box::new(rules))),
        Some("app") => Some(Auth::App),
        Some("none") => {
            if !allow_insecure {
                keys.problem("mode", "\"none\" lets everybody in as one user; it needs allowInsecure: true");
            }
            let ctx = keys.take("ctx", &[]);
            let loopback_only = keys.take_as("loopbackOnly", &[]).unwrap_or(false);
            context(keys, "ctx", ctx.unwrap_or(Json::Null)).map(|ctx| Auth::Open { ctx, loopback_only })
        }
        _ => {
            keys.problem("mode", "must be one of \"static\", \"jwt\", \"app\", \"none\"");
            None
        }
    }
}

/// A context: an object that says who the user is.
fn context(keys: &mut Settings, key: &str, value: Json) -> Option<Map<String, Json>> {
    match value {
        Json::Object(ctx) if ctx.get("userId").and_then(Json::as_str).is_some_and(|user| !user.is_empty()) => Some(ctx),
        _ => {
            keys.problem(key, "must be an object with a text userId");
            None
        }
    }
}

/// The tokens themselves are not named in problems.
fn tokens(keys: &mut Settings) -> Option<Vec<(String, Map<String, Json>)>> {
    let Some(Json::Object(listed)) = keys.take("tokens", &[]) else {
        keys.problem("tokens", "must be an object of tokens and contexts");
        return None;
    };
    let mut tokens = Vec::new();
    for (index, (token, value)) in listed.into_iter().enumerate() {
        if token.is_empty() {
            keys.problem("tokens", "holds the empty token");
        }
        if let Some(ctx) = context(keys, &format!("tokens[{index}]"), value) {
            tokens.push((token, ctx));
        }
    }
    Some(tokens)
}

fn jwt(keys: &mut Settings) -> Option<JwtRules> {
    let algorithm = keys.take("alg", &[]).and_then(|name| Algorithm::ALL.into_iter().find(|of| name == of.name()));
    if algorithm.is_none() {
        keys.problem("alg", "must be one of \"HS256\", \"RS256\", \"ES256\", \"EdDSA\"");
    }
    let key = keys.take("key", &["jwks"]);
    let keys_url = keys.take_as::<String>("jwksUrl", &[]);
    match (&key, &keys_url) {
        (None, None) => keys.problem("key", "is missing: key or jwksUrl must be given"),
        (Some(_), Some(_)) => keys.problem("key", "must not be given beside jwksUrl"),
        (None, Some(url)) if !(url.starts_with("http://") || url.starts_with("https://")) => {
            keys.problem("jwksUrl", "must begin with http:// or https://");
        }
        (None, Some(_)) if algorithm == Some(Algorithm::Hs256) => keys.problem("jwksUrl", "serves public keys; HS256 needs key"),
        _ => {}
    }
    let parsed = key.zip(algorithm).map(|(key, algorithm)| Keys::of_settings(&key, algorithm));
    let parsed = parsed.and_then(|parsed| parsed.map_err(|problem| keys.problem("key", &problem)).ok());
    Some(JwtRules {
        keys: RefCell::new(parsed),
        keys_url,
        issuer: keys.take_as("issuer", &[]),
        audience: keys.take_as("audience", &[]),
        leeway_ms: keys.take_as("leewayMs", &[]).unwrap_or(LEEWAY_MS),
        user_claim: keys.take_as("userClaim", &[]).unwrap_or_else(|| "sub".into()),
        ctx_claims: keys.take_as("ctxClaims", &[]).unwrap_or_default(),
        algorithm: algorithm?,
    })
}
