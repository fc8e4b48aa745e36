//! Who a caller is: static tokens, JSON web tokens, the app, or nobody in particular. One block of settings for all protocols.
//!
//! Promise: no credential is ever logged or quoted in an answer, and a token is compared in the same time wherever it differs.

mod jwt;
mod keys;
mod loopback;
mod settings;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value as Json};

use crate::contract::exports::syncline::sync::mounts::Document;
use crate::cors::Cors;
use crate::http::head_json;
use crate::imports::{AppFailure, Imports, RequestHead};
use crate::secrets;

pub use jwt::{Algorithm, JwtRules};
pub use keys::Keys;

/// By which the host knows the document with keys.
pub const KEYS_DOCUMENT: &str = "jwks";

/// How callers are told apart.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Tokens of the settings, each with its context.
    Static(Vec<(String, Map<String, Json>)>),
    /// JSON web tokens.
    Jwt(Box<JwtRules>),
    /// The app's `authenticate`.
    App,
    /// Everybody is this one.
    Open {
        /// Who.
        ctx: Map<String, Json>,
        /// Everybody on this machine, that is.
        loopback_only: bool,
    },
}

/// A caller that was recognised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recognised {
    /// What is known of the caller, `userId` among it.
    pub ctx: Map<String, Json>,
    /// When the credentials end, milliseconds since 1970; none: they do not.
    pub expires_at_ms: Option<u64>,
}

/// Why a caller was not recognised.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Denied {
    /// The credentials are missing or not good; the text is for the client.
    #[error("{0}")]
    Refused(String),
    /// Nobody could say: the app fell, or there are no keys yet.
    #[error("{0}")]
    Unavailable(String),
}

impl Denied {
    fn refused(reason: &str) -> Self {
        Denied::Refused(reason.into())
    }
}

impl Auth {
    /// Whether the app says who calls.
    pub fn is_app(&self) -> bool {
        matches!(self, Auth::App)
    }

    /// What is valid and dangerous in its settings. `public_address` is where other machines reach the mount.
    pub fn warnings(&self, public_address: Option<&str>) -> Vec<String> {
        match self {
            Auth::Jwt(rules) => rules.warnings(),
            Auth::Open { loopback_only, .. } => vec![match public_address {
                _ if *loopback_only => "auth.mode: none: whoever works on this machine is let in as one user".into(),
                None => "auth.mode: none: whoever reaches the server is let in as one user".into(),
                Some(address) => format!("auth.mode: none: other machines reach {address}, and whoever does is let in as one user"),
            }],
            _ => Vec::new(),
        }
    }

    /// What the host has to fetch for it.
    pub fn documents(&self) -> Vec<Document> {
        match self {
            Auth::Jwt(rules) => rules.documents(),
            _ => Vec::new(),
        }
    }

    /// Takes the documents that the host has fetched. A document that cannot be read leaves things as they were.
    pub fn take_documents(&mut self, documents: &[(String, Vec<u8>)]) {
        if let Auth::Jwt(rules) = self {
            rules.take_documents(documents);
        }
    }

    /// Recognises a caller by a token (none: the request brought no credentials).
    pub fn recognise(
        &self,
        imports: Imports<'_>,
        mount: &str,
        token: Option<&str>,
        head: &RequestHead,
        cors: &Cors,
    ) -> Result<Recognised, Denied> {
        match (self, token.filter(|token| !token.is_empty())) {
            (Auth::Open { ctx, loopback_only }, _) => {
                if *loopback_only {
                    loopback::check(head, cors)?;
                }
                Ok(Recognised { ctx: ctx.clone(), expires_at_ms: None })
            }
            (Auth::App, token) => by_app(imports, mount, token.unwrap_or_default(), head),
            (_, None) => Err(Denied::refused("no credentials")),
            (Auth::Static(tokens), Some(token)) => by_list(tokens, token),
            (Auth::Jwt(rules), Some(token)) => rules.verify(token, imports.effects, imports.now_ms),
        }
    }
}

/// The whole list is walked, so that time says nothing about it.
fn by_list(tokens: &[(String, Map<String, Json>)], token: &str) -> Result<Recognised, Denied> {
    let mut found = None;
    for (known, ctx) in tokens {
        if secrets::equal(token, known) {
            found = Some(ctx);
        }
    }
    let ctx = found.ok_or_else(|| Denied::refused("invalid token"))?;
    Ok(Recognised { ctx: ctx.clone(), expires_at_ms: None })
}

/// The claims of the app are the context; `userId` and `roles` come from the identity, `exp` (seconds) is the end.
fn by_app(imports: Imports<'_>, mount: &str, token: &str, head: &RequestHead) -> Result<Recognised, Denied> {
    let identity =
        imports.app.authenticate(mount, token, &head_json(head).to_string()).map_err(|AppFailure { code, message, .. }| {
            match code.as_str() {
                "trapped" | "timed-out" => Denied::Unavailable("the app could not say".into()),
                _ if message.is_empty() => Denied::refused("invalid token"),
                _ => Denied::Refused(message),
            }
        })?;
    let mut ctx = match serde_json::from_str(&identity.claims) {
        Ok(Json::Object(claims)) => claims,
        _ if identity.claims.is_empty() => Map::new(),
        _ => return Err(Denied::Unavailable("the app gave claims that are no JSON object".into())),
    };
    let expires_at_ms = ctx.remove("exp").and_then(|at| at.as_f64()).map(|seconds| (seconds * 1000.0) as u64);
    if let Some(user_id) = identity.user_id {
        ctx.insert("userId".into(), user_id.into());
    }
    if !identity.roles.is_empty() {
        ctx.insert("roles".into(), identity.roles.into());
    }
    if expires_at_ms.is_some_and(|end| end <= imports.now_ms) {
        return Err(Denied::refused("token expired"));
    }
    Ok(Recognised { ctx, expires_at_ms })
}
