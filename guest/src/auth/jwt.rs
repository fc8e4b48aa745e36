//! JSON web tokens: compact JWS, one algorithm pinned by the settings.
//!
//! Invariant: a token never chooses its algorithm, and the kind of key follows from the settings alone; so neither `none` nor a
//! public key taken for a secret passes.

use std::cell::RefCell;

use serde_json::{Map, Value as Json};

use super::keys::Keys;
use super::{Denied, KEYS_DOCUMENT, Recognised};
use crate::contract::exports::syncline::sync::mounts::Document;
use crate::encoding::base64url_decode;
use crate::imports::Effects;

/// Longer ones are refused unread.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// A secret of HS256 has no fewer (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// How often keys are fetched anew without being asked for.
const KEYS_REFRESH_MS: u64 = 3_600_000;

/// What tokens are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA, PKCS#1 v1.5, with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 4] = [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    /// As in a token's head.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }
}

/// Which tokens are good, and what they say.
#[derive(Clone, Debug)]
pub struct JwtRules {
    /// The only one that is taken.
    pub algorithm: Algorithm,
    /// Those of the settings, or of the document once it is there.
    pub keys: RefCell<Option<Keys>>,
    /// Where the host fetches keys.
    pub keys_url: Option<String>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must be or hold.
    pub audience: Option<String>,
    /// How far clocks may be apart, milliseconds.
    pub leeway_ms: u64,
    /// The claim that is `userId`.
    pub user_claim: String,
    /// Claims that go into the context under their own names.
    pub ctx_claims: Vec<String>,
}

impl JwtRules {
    /// What is valid and dangerous.
    pub(super) fn warnings(&self) -> Vec<String> {
        let shortest_bytes = self.keys.borrow().as_ref().and_then(Keys::shortest_secret_bytes);
        let weak = format!("auth.key: the secret has fewer than {SECRET_BYTES_MIN} bytes: whoever has a token may find it by trying");
        if shortest_bytes.is_some_and(|bytes| bytes < SECRET_BYTES_MIN) { vec![weak] } else { Vec::new() }
    }

    pub(super) fn documents(&self) -> Vec<Document> {
        let document = |url: &String| Document { name: KEYS_DOCUMENT.into(), url: url.clone(), refresh_ms: KEYS_REFRESH_MS };
        self.keys_url.iter().map(document).collect()
    }

    pub(super) fn take_documents(&mut self, documents: &[(String, Vec<u8>)]) {
        if let Some((_, set)) = documents.iter().find(|(name, _)| self.keys_url.is_some() && name == KEYS_DOCUMENT) {
            self.take_set(set);
        }
    }

    fn take_set(&self, set: &[u8]) {
        let set = serde_json::from_slice::<Json>(set).ok();
        if let Some(keys) = set.and_then(|set| Keys::of_set(&set, self.algorithm).ok()) {
            self.keys.replace(Some(keys));
        }
    }

    /// Recognises the bearer of a token.
    pub fn verify(&self, token: &str, effects: &dyn Effects, now_ms: u64) -> Result<Recognised, Denied> {
        let invalid = || Denied::refused("invalid token");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid());
        }
        let (message, signature) = token.rsplit_once('.').ok_or_else(invalid)?;
        let (head, claims) = message.split_once('.').ok_or_else(invalid)?;
        let head = object(head).ok_or_else(invalid)?;
        let signature = base64url_decode(signature).ok_or_else(invalid)?;
        // `crit` names extensions that must be understood (RFC 7515, section 4.1.11): none are.
        if head.get("alg").and_then(Json::as_str) != Some(self.algorithm.name()) || head.contains_key("crit") {
            return Err(invalid());
        }
        let key_id = head.get("kid").and_then(Json::as_str);
        if !self.signed(key_id, message.as_bytes(), &signature, effects)? {
            return Err(invalid());
        }
        self.judge(&object(claims).ok_or_else(invalid)?, now_ms)
    }

    /// Whether a signature is good. A key that is not known may be a new one: the host is asked once.
    fn signed(&self, key_id: Option<&str>, message: &[u8], signature: &[u8], effects: &dyn Effects) -> Result<bool, Denied> {
        let by_known = |keys: &RefCell<Option<Keys>>| keys.borrow().as_ref().and_then(|keys| keys.verify(key_id, message, signature));
        if let Some(good) = by_known(&self.keys) {
            return Ok(good);
        }
        if self.keys_url.is_some()
            && let Some(set) = effects.refresh_document(KEYS_DOCUMENT)
        {
            self.take_set(&set);
        }
        if self.keys.borrow().is_none() {
            return Err(Denied::Unavailable("there are no keys yet".into()));
        }
        Ok(by_known(&self.keys).unwrap_or(false))
    }

    /// Times, issuer and audience, then who it is.
    fn judge(&self, claims: &Map<String, Json>, now_ms: u64) -> Result<Recognised, Denied> {
        let time_ms = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(at) => at.as_f64().map(|seconds| Some((seconds * 1000.0) as u64)).ok_or_else(|| Denied::refused("invalid token")),
        };
        let expires_at_ms = time_ms("exp")?.map(|at| at.saturating_add(self.leeway_ms));
        if expires_at_ms.is_some_and(|at| at <= now_ms) {
            return Err(Denied::refused("token expired"));
        }
        if time_ms("nbf")?.is_some_and(|at| at > now_ms.saturating_add(self.leeway_ms)) {
            return Err(Denied::refused("token not yet valid"));
        }
        if self.issuer.as_deref().is_some_and(|wanted| claims.get("iss").and_then(Json::as_str) != Some(wanted)) {
            return Err(Denied::refused("wrong issuer"));
        }
        let for_us = |wanted: &String| match claims.get("aud") {
            Some(Json::String(one)) => one == wanted,
            Some(Json::Array(several)) => several.iter().any(|one| one == wanted),
            _ => false,
        };
        if !self.audience.as_ref().is_none_or(for_us) {
            return Err(Denied::refused("wrong audience"));
        }
        let mut ctx = Map::new();
        for name in &self.ctx_claims {
            ctx.insert(name.clone(), claims.get(name).cloned().unwrap_or(Json::Null));
        }
        let user = claims.get(&self.user_claim).filter(|user| user.as_str().is_some_and(|user| !user.is_empty()));
        ctx.insert("userId".into(), user.cloned().ok_or_else(|| Denied::refused("token names no user"))?);
        Ok(Recognised { ctx, expires_at_ms })
    }
}

/// A part of a token: base64url of a JSON object.
fn object(part: &str) -> Option<Map<String, Json>> {
    serde_json::from_slice(&base64url_decode(part)?).ok()
}
