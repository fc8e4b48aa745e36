//! `POST /pull` (section 7).

use serde_json::{Value as Json, json};

use super::body::{Body, caller_of, parse_id};
use super::refusal::Refusal;
use super::{Admitted, Answer, waiting};
use crate::http::json_response;
use crate::plasma::Call;
use crate::plasma::cookie::Cookie;
use crate::plasma::engine::{Caller, Dialect};
use crate::plasma::metrics::{Stopwatch, Work};
use crate::plasma::pull::{PullRefused, PullReply, PullRequest};
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
    let pull = PullRequest { dialect, client_group_id, cookie, rows_max };
    if admitted.wait_ms > 0 {
        return waiting::pull(call, &request.head, admitted, &pull, watch);
    }
    let reply = call.engine.pull(call.imports, &caller, &pull).map_err(|refused| refusal(refused, dialect))?;
    Ok(answer(call, &caller, &pull, &reply, watch))
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
