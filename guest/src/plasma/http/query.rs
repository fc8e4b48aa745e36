//! `POST /query` and `POST /snapshot` (section 9), and what live select has in common with them.

use serde_json::{Map, Value as Json, json};

use super::body::{Body, integer};
use super::refusal::Refusal;
use super::{Admitted, Answer};
use crate::http::json_response;
use crate::plasma::Call;
use crate::plasma::engine::Dialect;
use crate::plasma::query::{AsOf, QueryRefused};
use crate::plasma::settings::Settings;
use crate::registry::Request;

/// Answers a query: one of the settings by its name, or (where the settings let clients) one of the client's own.
pub fn query(call: &Call<'_>, request: &Request, admitted: &Admitted) -> Answer {
    let body = checked_body(call, request, "query")?;
    answer(call, &body, admitted, None)
}

/// Answers a query on the state of a former version.
pub fn snapshot(call: &Call<'_>, request: &Request, admitted: &Admitted) -> Answer {
    let body = checked_body(call, request, "snapshot")?;
    let as_of = as_of(body.0.get("asOf"))?;
    answer(call, &body, admitted, Some(as_of))
}

fn checked_body(call: &Call<'_>, request: &Request, name: &'static str) -> Result<Body, Refusal> {
    let body = Body::read(call, request)?;
    match body.0.get("protocolVersion").and_then(integer) {
        Some(1) => {}
        Some(got) => return Err(Refusal::ProtocolMismatch { dialect: Dialect::Native, request: name, got }),
        None => return Err(Refusal::invalid("protocolVersion must be an integer")),
    }
    body.check_schema(call, Dialect::Native)?;
    Ok(body)
}

fn answer(call: &Call<'_>, body: &Body, admitted: &Admitted, as_of: Option<AsOf>) -> Answer {
    let parameters = asked_parameters(body.0.get("params"))?;
    let source = asked_query(call.settings, body.0.get("query"))?;
    let reply = call.engine.query(call.imports, &admitted.ctx, source, parameters.as_ref(), as_of)?;
    Ok(json_response(200, json!({"ok": true, "version": reply.version, "rows": reply.rows}).to_string()))
}

/// The parameters of a query: an object, or nothing.
pub fn asked_parameters(asked: Option<&Json>) -> Result<Option<Map<String, Json>>, Refusal> {
    match asked {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Object(parameters)) => Ok(Some(parameters.clone())),
        Some(_) => Err(Refusal::invalid("params must be an object")),
    }
}

/// The query that is asked for, by its name or as it is.
pub fn asked_query<'a>(settings: &'a Settings, asked: Option<&'a Json>) -> Result<&'a Json, Refusal> {
    match asked {
        Some(Json::String(name)) => settings.named_queries.get(name).ok_or_else(|| Refusal::invalid(format!("unknown query: {name}"))),
        Some(_) if settings.named_queries_only => Err(Refusal::Forbidden("named-queries-only")),
        Some(source) => Ok(source),
        None => Err(Refusal::invalid("query is missing")),
    }
}

/// `{"version":n}` or `{"timestamp":ms}`
fn as_of(asked: Option<&Json>) -> Result<AsOf, Refusal> {
    let wrong = || Refusal::invalid("asOf must be an object with either version or timestamp, a non-negative integer");
    let asked = asked.and_then(Json::as_object).filter(|asked| asked.len() == 1).ok_or_else(wrong)?;
    let whole = |value: &Json| integer(value).and_then(|number| u64::try_from(number).ok()).ok_or_else(wrong);
    match (asked.get("version"), asked.get("timestamp")) {
        (Some(version), None) => Ok(AsOf::Version(whole(version)?)),
        (None, Some(at_ms)) => {
            Ok(AsOf::Timestamp(at_ms.as_f64().filter(|at_ms| *at_ms >= 0.0).map(|at_ms| at_ms as u64).ok_or_else(wrong)?))
        }
        _ => Err(wrong()),
    }
}

impl From<QueryRefused> for Refusal {
    fn from(refused: QueryRefused) -> Self {
        match refused {
            QueryRefused::Compacted(min_version) => Refusal::SnapshotCompacted(min_version),
            QueryRefused::Failure(failure) => failure.into(),
            invalid => Refusal::invalid(invalid.to_string()),
        }
    }
}
