//! `POST /query` (section 9).

use serde_json::{Map, Value as Json, json};

use super::body::{Body, integer};
use super::refusal::Refusal;
use super::{Admitted, Answer};
use crate::http::json_response;
use crate::plasma::Call;
use crate::plasma::engine::Dialect;
use crate::plasma::query::QueryRefused;
use crate::registry::Request;

/// Answers a query: one of the settings by its name, or (where the settings let clients) one of the client's own.
pub fn query(call: &Call<'_>, request: &Request, admitted: &Admitted) -> Answer {
    let body = Body::read(call, request)?;
    match body.0.get("protocolVersion").and_then(integer) {
        Some(1) => {}
        Some(got) => return Err(Refusal::ProtocolMismatch { dialect: Dialect::Native, request: "query", got }),
        None => return Err(Refusal::invalid("protocolVersion must be an integer")),
    }
    body.check_schema(call, Dialect::Native)?;
    let parameters: Option<Map<String, Json>> = serde_json::from_value(body.0.get("params").cloned().unwrap_or(Json::Null))
        .map_err(|_| Refusal::invalid("params must be an object"))?;
    let source = match body.0.get("query") {
        Some(Json::String(name)) => {
            call.settings.named_queries.get(name).ok_or_else(|| Refusal::invalid(format!("unknown query: {name}")))?
        }
        Some(_) if call.settings.named_queries_only => return Err(Refusal::Forbidden("named-queries-only")),
        Some(source) => source,
        None => return Err(Refusal::invalid("query is missing")),
    };
    let reply = call.engine.query(call.imports, &admitted.ctx, source, parameters.as_ref()).map_err(|refused| match refused {
        QueryRefused::Invalid(problem) => Refusal::invalid(problem.to_string()),
        QueryRefused::Unbound(problem) => Refusal::invalid(problem.to_string()),
        QueryRefused::TooMuch(problem) => Refusal::invalid(problem),
        QueryRefused::Failure(failure) => failure.into(),
    })?;
    Ok(json_response(200, json!({"ok": true, "version": reply.version, "rows": reply.rows}).to_string()))
}
