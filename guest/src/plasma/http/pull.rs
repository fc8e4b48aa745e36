//! `POST /pull` (section 7).

use serde_json::{Value as Json, json};

use super::body::{Body, caller_of, parse_id};
use super::query::{asked_parameters, asked_query};
use super::refusal::Refusal;
use super::{Admitted, Answer, waiting};
use crate::http::{json_response, query_parameter};
use crate::plasma::Call;
use crate::plasma::cookie::Cookie;
use crate::plasma::engine::{Caller, Dialect};
use crate::plasma::metrics::{Stopwatch, Work};
use crate::plasma::pull::{PullRefused, PullReply, PullRequest, QUERIES_MAX, SyncedQuery};
use crate::plasma::realtime::topics;
use crate::registry::{Request, Response};

/// Answers a pull.
pub fn pull(call: &Call<'_>, request: &Request, admitted: &Admitted, watch: &Stopwatch) -> Answer {
    let body = Body::read(call, request)?;
    let dialect = body.dialect("pull")?;
    body.check_schema(call, dialect)?;
    let client_group_id = parse_id("clientGroupID", body.0.get("clientGroupID"))?;
    let client_id = body.0.get("clientID").filter(|id| !id.is_null()).map(|id| parse_id("clientID", Some(id))).transpose()?;
    let cookie = Cookie::parse(body.0.get("cookie").unwrap_or(&Json::Null)).ok_or_else(|| Refusal::invalid("cookie is malformed"))?;
    admitted.check_ids(Some(&client_group_id), client_id.as_deref())?;
    let caller = caller_of(admitted);
    let rows_max = admitted.limit.unwrap_or(call.settings.page_rows_max);
    let queries = synced_queries(call, request, &body)?;
    let pull = PullRequest { dialect, client_group_id, cookie, rows_max, queries };
    if admitted.wait_ms > 0 {
        return waiting::pull(call, &request.head, admitted, &pull, watch);
    }
    let reply = call.engine.pull(call.imports, &caller, &pull).map_err(|refused| refusal(refused, dialect))?;
    Ok(answer(call, &caller, &pull, &reply, watch))
}

/// The named queries whose rows are wanted: `queries` of the body, or (for clients whose body is not theirs to say) of the URL.
fn synced_queries(call: &Call<'_>, request: &Request, body: &Body) -> Result<Vec<SyncedQuery>, Refusal> {
    let wrong = || Refusal::invalid(format!("queries must be a list of 1 to {QUERIES_MAX} objects with query, a name, and params"));
    let in_url = || query_parameter(&request.head, "queries").map(|text| serde_json::from_str(&text).map_err(|_| wrong())).transpose();
    let Some(listed) = body.0.get("queries").cloned().map_or_else(in_url, |listed| Ok(Some(listed)))? else { return Ok(Vec::new()) };
    let listed = listed.as_array().filter(|listed| (1..=QUERIES_MAX).contains(&listed.len())).ok_or_else(wrong)?;
    let query = |one: &Json| -> Result<SyncedQuery, Refusal> {
        let name = one.get("query").and_then(Json::as_str).ok_or_else(wrong)?;
        let source = asked_query(call.settings, one.get("query"))?.clone();
        Ok(SyncedQuery { name: name.to_owned(), source, parameters: asked_parameters(one.get("params"))?.unwrap_or_default() })
    };
    listed.iter().map(query).collect()
}

/// The answer to a pull.
pub(super) fn answer(call: &Call<'_>, caller: &Caller, pull: &PullRequest, reply: &PullReply, watch: &Stopwatch) -> Response {
    if reply.has_more && pull.dialect == Dialect::Replicache {
        topics::more_to_pull(call, &caller.user_id, &pull.client_group_id, &reply.cookie);
    }
    let text = encode(reply, pull.dialect);
    call.measured("pull", watch, true, &Work::Pull(reply, text.len()));
    json_response(200, text)
}

/// Why a pull was refused, in the words of a dialect.
pub fn refusal(refused: PullRefused, dialect: Dialect) -> Refusal {
    match refused {
        PullRefused::ClientGroupOwner => Refusal::Forbidden("client-group-owner"),
        PullRefused::ClientStateNotFound => Refusal::ClientStateNotFound(dialect),
        PullRefused::Query(refused) => refused.into(),
        PullRefused::Failure(failure) => failure.into(),
    }
}

/// The patch is text already; all else is put around it.
fn encode(reply: &PullReply, dialect: Dialect) -> String {
    let ok = if dialect == Dialect::Native { ",\"ok\":true" } else { "" };
    format!(
        "{{\"cookie\":{},\"lastMutationIDChanges\":{},\"patch\":{},\"hasMore\":{},\"reset\":{}{ok}}}",
        reply.cookie.to_json(),
        json!(reply.last_mutation_ids),
        reply.patch,
        reply.has_more,
        reply.reset,
    )
}
