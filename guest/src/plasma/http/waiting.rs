//! `POST /pull?wait=<ms>`: a pull that is answered when there is something new for the client, or when the time is up.
//!
//! It subscribes before it reads, so it misses nothing; what it read already does not wake it. It also ends at once when its client
//! group is forgotten, or its user's credentials are revoked.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::body::caller_of;
use super::refusal::Refusal;
use super::{Admitted, Answer, pull};
use crate::contract::exports::syncline::sync::http::Parked;
use crate::http::{header, header_text};
use crate::imports::{Mode, RequestHead, Subscription};
use crate::plasma::Call;
use crate::plasma::cookie::Cookie;
use crate::plasma::engine::Dialect;
use crate::plasma::metrics::Stopwatch;
use crate::plasma::pull::{PullReply, PullRequest, SyncedQuery};
use crate::plasma::realtime::Transport;
use crate::plasma::realtime::topics::{self, ORDER_KEY};
use crate::plasma::revocation::Revocation;
use crate::registry::{BodyOut, Response};

/// Headers of the request that its answer depends on.
const HEADERS: [&str; 2] = ["origin", "accept-encoding"];

/// A pull that waits.
#[derive(Serialize, Deserialize)]
struct Waiting {
    admitted: Admitted,
    client_group_id: String,
    native: bool,
    cookie: Json,
    rows_max: usize,
    queries: Vec<SyncedQuery>,
    /// When it is answered at the latest, milliseconds since 1970.
    until_ms: u64,
    headers: Vec<(String, String)>,
    /// The last revocation of the user's credentials when it began to wait: another one is one of these.
    revocation: Option<Revocation>,
}

/// Answers a pull, or lets it wait.
pub fn pull(call: &Call<'_>, head: &RequestHead, admitted: &Admitted, pull: &PullRequest, watch: &Stopwatch) -> Answer {
    let now_ms = call.imports.now_ms;
    let until_ms = now_ms.saturating_add(admitted.wait_ms).min(admitted.expires_at_ms.unwrap_or(u64::MAX));
    let headers = HEADERS.iter().filter_map(|name| Some(((*name).to_owned(), header_text(head, name)?.to_owned()))).collect();
    let user_id = caller_of(admitted).user_id;
    let ends = [topics::waiting_group_topic(&pull.client_group_id), topics::waiting_user_topic(&user_id)];
    for topic in call.waking_topic().into_iter().chain(ends) {
        let subscription = Subscription { topic, mode: Mode::ForwardText, group: String::new(), cursor: None, presence: None };
        call.imports.pubsub.subscribe(call.connection, subscription);
    }
    let revocation = call.engine.revocation(call.imports, &user_id)?;
    let waiting = Waiting {
        admitted: admitted.clone(),
        client_group_id: pull.client_group_id.clone(),
        native: pull.dialect == Dialect::Native,
        cookie: pull.cookie.to_json(),
        rows_max: pull.rows_max,
        queries: pull.queries.clone(),
        until_ms,
        headers,
        revocation,
    };
    look(call, waiting, watch)
}

/// Goes on with a pull that waited: the head of its request as far as its answer needs it, and what becomes of it.
pub fn resume(call: &Call<'_>, state: &[u8], watch: &Stopwatch) -> (RequestHead, Answer) {
    let waiting: Result<Waiting, _> = serde_json::from_slice(state);
    let headers = waiting.iter().flat_map(|waiting| &waiting.headers);
    let head = RequestHead {
        method: "POST".into(),
        path: format!("{}/pull", call.settings.base_path),
        query: None,
        headers: headers.map(|(name, value)| header(name, value.as_str())).collect(),
        remote_address: String::new(),
        secure: false,
    };
    let answer = match waiting {
        Ok(waiting) => check_revocation(call, &waiting).and_then(|()| look(call, waiting, watch)),
        // The code was exchanged meanwhile: the client asks again.
        Err(_) => Err(Refusal::Unavailable("a request that waited is of another version".into())),
    };
    (head, answer)
}

/// Whether the credentials were not revoked while the pull waited.
fn check_revocation(call: &Call<'_>, waiting: &Waiting) -> Result<(), Refusal> {
    let last = call.engine.revocation(call.imports, &caller_of(&waiting.admitted).user_id)?;
    let revoked = last.is_some() && last != waiting.revocation;
    if revoked { Err(Refusal::Unauthorized("the credentials were revoked".into())) } else { Ok(()) }
}

fn look(call: &Call<'_>, waiting: Waiting, watch: &Stopwatch) -> Answer {
    let caller = caller_of(&waiting.admitted);
    let dialect = if waiting.native { Dialect::Native } else { Dialect::Replicache };
    let cookie = Cookie::parse(&waiting.cookie).unwrap_or(Cookie::Null);
    let asked = PullRequest {
        dialect,
        client_group_id: waiting.client_group_id.clone(),
        cookie,
        rows_max: waiting.rows_max,
        queries: waiting.queries.clone(),
    };
    let reply = call.engine.pull(call.imports, &caller, &asked).map_err(|refused| pull::refusal(refused, dialect))?;
    let left_ms = waiting.until_ms.saturating_sub(call.imports.now_ms);
    if left_ms == 0 || !is_empty(&reply) {
        return Ok(pull::answer(call, &caller, &asked, &reply, watch));
    }
    let look_ms = if call.is_woken_by_all() { u64::MAX } else { call.settings.sequencer.poll_ms };
    let parked = Parked {
        state: serde_json::to_vec(&waiting).map_err(|error| Refusal::Internal(error.to_string()))?,
        timeout_ms: left_ms.min(look_ms),
        seen: vec![(ORDER_KEY.into(), reply.version)],
    };
    Ok(Response { status: 200, headers: Vec::new(), body: BodyOut::Parked(parked) })
}

/// Whether there is nothing in it for the client.
fn is_empty(reply: &PullReply) -> bool {
    reply.puts == 0 && reply.dels == 0 && reply.last_mutation_ids.is_empty() && !reply.reset && !reply.has_more && reply.patch == "[]"
}

impl Call<'_> {
    /// The topic on which each new version is told; none: on none.
    fn waking_topic(&self) -> Option<String> {
        let poke = self.settings.poke.as_ref()?;
        Some(if poke.coalesce_ms > 0 { self.throttled_topic() } else { self.poke_topic(Transport::Sse) })
    }

    /// Whether no version comes without being told: else whoever waits looks now and then. Where processes share the database
    /// the host watches it (`Plan::watch`).
    fn is_woken_by_all(&self) -> bool {
        self.settings.poke.is_some() && self.settings.on_pushed.poke
    }
}
