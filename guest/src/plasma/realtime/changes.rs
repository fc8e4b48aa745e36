//! Data mode (section 8.2): the changes themselves, as `rep.poke()` takes them.
//!
//! Invariant: each patch begins at the cookie at which the one before it ended. One page is sent per call. A client that has more
//! to take than [`UNREAD_BYTES_MAX`] gets the next when it has taken most of that, so one that never reads costs nothing further:
//! what it misses it can be sent later in one patch.

use serde_json::{Value as Json, json};

use super::attachment::Attachment;
use super::events;
use crate::imports::{Frame, Level};
use crate::plasma::Call;
use crate::plasma::cookie::Cookie;
use crate::plasma::engine::Dialect;
use crate::plasma::failure::Failure;
use crate::plasma::http::{Admitted, caller_of};
use crate::plasma::plan::{close, code};
use crate::plasma::pull::{PullRefused, PullReply, PullRequest};
use crate::registry::{Alarm, Outcome};

/// After how long a stream looks again that could not read.
const RETRY_MS: u64 = 1000;

/// Bytes sent after which nothing follows until the host has said that the client took most of what was sent.
const UNREAD_BYTES_MAX: u64 = 64 << 10;

/// The client has taken most of what was sent.
pub fn drained(call: &Call<'_>, attachment: &mut Attachment, outcome: &mut Outcome) {
    let Some(changes) = &mut attachment.changes else { return };
    changes.waits = false;
    changes.unread_bytes = 0;
    if std::mem::take(&mut changes.more) {
        catch_up(call, attachment, outcome);
    }
}

/// Sends the next page, if there is anything new for the client.
pub fn catch_up(call: &Call<'_>, attachment: &mut Attachment, outcome: &mut Outcome) {
    let expires_in_ms = attachment.expires_in_ms(call.imports.now_ms);
    let Some(changes) = &mut attachment.changes else { return };
    if changes.waits {
        changes.more = true;
        return;
    }
    let cookie = Cookie::parse(&changes.cookie).unwrap_or(Cookie::Null);
    let caller = caller_of(&Admitted { ctx: changes.ctx.clone(), ..Admitted::default() });
    let pull = PullRequest {
        dialect: Dialect::Replicache,
        client_group_id: changes.client_group_id.clone(),
        cookie,
        rows_max: call.settings.page_rows_max,
        queries: Vec::new(),
    };
    match call.engine.pull(call.imports, &caller, &pull) {
        Ok(reply) => {
            if reply.cookie != pull.cookie {
                let after = reply.cookie.to_json();
                let page = page(&changes.cookie, &after, &reply);
                changes.unread_bytes += events::bytes(&page);
                outcome.send.push(page);
                changes.cookie = after;
            }
            changes.more = reply.has_more;
            changes.waits = reply.has_more || changes.unread_bytes > UNREAD_BYTES_MAX;
            outcome.pace |= changes.waits;
        }
        Err(PullRefused::ClientStateNotFound) => {
            outcome.send.push(events::state_lost());
            outcome.close = Some(close(code::GOING_AWAY));
        }
        Err(PullRefused::ClientGroupOwner) => {
            outcome.send.push(Frame::Text(events::unauthorized()));
            outcome.close = Some(close(code::UNAUTHORIZED));
        }
        Err(refused @ (PullRefused::Query(_) | PullRefused::Failure(_))) => {
            let retry_ms = if refused == PullRefused::Failure(Failure::Aborted) { 0 } else { RETRY_MS };
            let fields = json!({"problem": refused.to_string()}).to_string();
            call.imports.effects.log(Level::Warn, "plasma: a stream of changes could not be read and looks again", &fields);
            outcome.alarm = Alarm::AfterMs(expires_in_ms.map_or(retry_ms, |end_ms| end_ms.min(retry_ms)));
        }
    }
}

fn page(before: &Json, after: &Json, reply: &PullReply) -> Frame {
    events::changes(before, after, &json!(reply.last_mutation_ids), &reply.patch)
}
