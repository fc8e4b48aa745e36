//! `POST /push` (section 6).

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::body::{Body, PushBody, caller_of, integer, parse_id};
use super::refusal::Refusal;
use super::{Admitted, Answer};
use crate::http::{header, json_response};
use crate::plasma::Call;
use crate::plasma::engine::Dialect;
use crate::plasma::errors::{Report, error_body};
use crate::plasma::hooks::WriteHooks;
use crate::plasma::metrics::{Stopwatch, Work};
use crate::plasma::push::{Mutation, MutationResult, MutationStatus, OverLimit, PushRefused, PushReply, PushRequest};
use crate::plasma::schema::{JSON_DEPTH_MAX, is_deeper_than};
use crate::registry::{Request, Response};

/// Processes a push and answers it.
pub fn push(call: &Call<'_>, request: &Request, admitted: &Admitted, watch: &Stopwatch) -> Answer {
    let PushBody { body, unreadable } = PushBody::read(call, request)?;
    let dialect = body.dialect("push")?;
    body.check_schema(call, dialect)?;
    let push = shape(call, &body, unreadable, dialect, request.failure.is_some())?;
    for mutation in &push.mutations {
        admitted.check_ids(Some(&push.client_group_id), Some(&mutation.client_id))?;
    }
    admitted.check_ids(Some(&push.client_group_id), None)?;
    let caller = caller_of(admitted);
    let pushed = call.engine.push(call.imports, &caller, &push, &WriteHooks::of(call));
    let reply = pushed.map_err(|refused| refusal(refused, dialect))?;
    call.report(&failed_mutations(&push.client_group_id, &reply.results));
    call.pushed(&caller, &push.client_group_id, &reply);
    call.measured("push", watch, reply.remaining == 0, &Work::Push(&reply));
    Ok(answer(&push, &reply))
}

/// The request, if its shape is right.
fn shape(
    call: &Call<'_>,
    body: &Body,
    mut unreadable: BTreeMap<usize, String>,
    dialect: Dialect,
    second_try: bool,
) -> Result<PushRequest, Refusal> {
    let client_group_id = parse_id("clientGroupID", body.0.get("clientGroupID"))?;
    let listed = body.0.get("mutations").and_then(Json::as_array).ok_or_else(|| Refusal::invalid("mutations must be an array"))?;
    let parse = |(index, source): (usize, &Json)| mutation(source, unreadable.remove(&index));
    let mutations: Vec<Mutation> = listed.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    let rejects = call.settings.over_limit_rejects || dialect == Dialect::Native;
    Ok(PushRequest {
        dialect,
        client_group_id,
        mutations,
        mutations_max: call.settings.push_mutations_max,
        over_limit: if rejects { OverLimit::Reject } else { OverLimit::ApplyPrefix },
        second_try,
        transaction_ms: call.settings.mutator_timeout_ms,
    })
}

fn mutation(source: &Json, unreadable: Option<String>) -> Result<Mutation, Refusal> {
    let source = source.as_object().ok_or_else(|| Refusal::invalid("a mutation must be an object"))?;
    let id = source.get("id").and_then(integer).and_then(|id| u64::try_from(id).ok()).filter(|id| *id >= 1);
    let timestamp = source.get("timestamp").and_then(Json::as_f64);
    let arguments = source.get("args").cloned().unwrap_or(Json::Null);
    let too_deep = || is_deeper_than(&arguments, JSON_DEPTH_MAX).then(|| format!("args are nested deeper than {JSON_DEPTH_MAX} levels"));
    let unreadable = unreadable.or_else(too_deep);
    Ok(Mutation {
        id: id.ok_or_else(|| Refusal::invalid("id of a mutation must be an integer from 1"))?,
        client_id: parse_id("clientID of a mutation", source.get("clientID"))?,
        name: parse_id("name of a mutation", source.get("name"))?,
        timestamp: timestamp.ok_or_else(|| Refusal::invalid("timestamp of a mutation must be a number"))?,
        arguments: if unreadable.is_some() { Json::Null } else { arguments },
        unreadable,
    })
}

fn refusal(refused: PushRefused, dialect: Dialect) -> Refusal {
    match refused {
        PushRefused::Invalid(reason) => Refusal::InvalidRequest(reason),
        PushRefused::TooMany { limit, got } => Refusal::TooManyMutations { limit, got },
        PushRefused::ClientGroupOwner => Refusal::Forbidden("client-group-owner"),
        PushRefused::ClientOfAnotherGroup => Refusal::Forbidden("client-belongs-to-another-group"),
        PushRefused::ClientStateNotFound => Refusal::ClientStateNotFound(dialect),
        PushRefused::Failure(failure) => failure.into(),
    }
}

fn failed_mutations(client_group_id: &str, results: &[MutationResult]) -> Vec<Report> {
    let report = |result: &MutationResult| match &result.status {
        MutationStatus::Error(error) => Some(Report::Mutation {
            client_group_id: client_group_id.to_owned(),
            client_id: result.client_id.clone(),
            mutation_id: result.id,
            mutation_name: result.name.clone(),
            cause: (error.name.clone(), error.message.clone()),
        }),
        _ => None,
    };
    results.iter().filter_map(report).collect()
}

fn answer(push: &PushRequest, reply: &PushReply) -> Response {
    if reply.remaining > 0 {
        let body = json!({
            "limit": push.mutations_max, "applied": reply.new_mutations, "remaining": reply.remaining,
            "lastMutationIDChanges": reply.last_mutation_ids,
        });
        let mut response = json_response(429, error_body("push-truncated", body).to_string());
        response.headers.push(header("retry-after", "0"));
        return response;
    }
    let results: Vec<Json> = reply.results.iter().map(result).collect();
    let body = json!({"ok": true, "lastMutationIDChanges": reply.last_mutation_ids, "cookie": reply.version, "results": results});
    json_response(200, body.to_string())
}

fn result(result: &MutationResult) -> Json {
    let status = match &result.status {
        MutationStatus::Applied => "applied",
        MutationStatus::Duplicate => "duplicate",
        MutationStatus::Error(error) => {
            let error = json!({"name": error.name, "message": error.message});
            return json!({"clientID": result.client_id, "id": result.id, "status": "error", "error": error});
        }
    };
    json!({"clientID": result.client_id, "id": result.id, "status": status})
}
