//! Data mode (section 8.2): the changes themselves, as `rep.poke()` takes them.
//!
//! Invariant: each patch begins at the cookie at which the one before it ended. One page is sent per call; the next follows when
//! the client has taken it.

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

/// Sends the next page, if there is anything new for the client.
pub fn catch_up(call: &Call<'_>, attachment: &mut Attachment, outcome: &mut Outcome) {
    let expires_in_ms = attachment.expires_in_ms(call.imports.now_ms);
    let Some(changes) = &mut attachment.changes else { return };
    let cookie = Cookie::parse(&changes.cookie).unwrap_or(Cookie::Null);
    let caller = caller_of(&Admitted { ctx: changes.ctx.clone(), ..Admitted::default() });
    let pull = PullRequest {
        dialect: Dialect::Replicache,
        client_group_id: changes.client_group_id.clone(),
        cookie,
        rows_max: call.settings.page_rows_max,
    };
    match call.engine.pull(call.imports, &caller, &pull) {
        Ok(reply) => {
            let after = reply.cookie.to_json();
            if after != changes.cookie {
                outcome.send.push(page(&changes.cookie, &after, &reply));
                changes.cookie = after;
            }
            outcome.pace = reply.has_more;
        }
        Err(PullRefused::ClientStateNotFound) => {
            outcome.send.push(events::state_lost());
            outcome.close = Some(close(code::GOING_AWAY));
        }
        Err(PullRefused::ClientGroupOwner) => {
            outcome.send.push(Frame::Text(events::unauthorized()));
            outcome.close = Some(close(code::UNAUTHORIZED));
        }
        Err(PullRefused::Failure(failure)) => {
            let retry_ms = if failure == Failure::Aborted { 0 } else { RETRY_MS };
            let fields = json!({"problem": failure.to_string()}).to_string();
            call.imports.effects.log(Level::Warn, "plasma: a stream of changes could not be read and looks again", &fields);
            outcome.alarm = Alarm::AfterMs(expires_in_ms.map_or(retry_ms, |end_ms| end_ms.min(retry_ms)));
        }
    }
}

fn page(before: &Json, after: &Json, reply: &PullReply) -> Frame {
    events::changes(before, after, &json!(reply.last_mutation_ids), &reply.patch)
}
