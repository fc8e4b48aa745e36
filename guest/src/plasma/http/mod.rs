//! Plain HTTP (docs/protocols/plasma.md, section 5): `route` → `admit` (head only) → `body` → `push` | `pull` | `admin` → `refusal` on
//! any way out. CORS and gzip are put on in one place, here.
//!
//! The order of checks is that of section 5.3: whatever the head can decide is decided before a byte of the body is read.

mod admin;
mod admit;
mod blob;
mod body;
mod credentials;
mod presign;
mod pull;
mod push;
mod query;
mod refusal;
mod route;
mod waiting;

use crate::http::{compress, json_response};
use crate::imports::RequestHead;
use crate::registry::{Admission, Request, Response};

use super::Call;
use super::metrics::{Stopwatch, Work};
use super::realtime;

pub use admit::{Admitted, admit_caller};
pub use body::{caller_of, parse_id};
pub use query::{asked_parameters, asked_query};
pub use refusal::Refusal;
pub use route::{BlobPart, Route, route};

/// An answer before CORS and gzip, or why there is none.
pub type Answer = Result<Response, Refusal>;

/// Decides from the head.
pub fn admit(call: &Call<'_>, head: &RequestHead) -> Admission {
    if head.method == "OPTIONS" {
        return Admission::Refuse(call.settings.cors.preflight(head));
    }
    let watch = Stopwatch::start();
    let route = route(&call.settings.base_path, &head.path);
    match admit::admit(call, route.as_ref(), head) {
        Ok(accept) => Admission::Accept(accept),
        Err(refusal) => {
            let kind = route.as_ref().and_then(|route| route.metric(&head.method));
            Admission::Refuse(refused(call, head, kind, &watch, &refusal))
        }
    }
}

/// Answers a request that was admitted.
pub fn handle(call: &Call<'_>, request: &Request) -> Response {
    let watch = Stopwatch::start();
    let head = &request.head;
    let Some(route) = route(&call.settings.base_path, &head.path) else {
        return refused(call, head, None, &watch, &Refusal::NotFound);
    };
    let admitted = Admitted::decode(&request.context);
    let answer = match &route {
        Route::Push => push::push(call, request, &admitted, &watch),
        Route::Pull => pull::pull(call, request, &admitted, &watch),
        Route::Poke => realtime::open_stream(call, head, &admitted),
        Route::Query => query::query(call, request, &admitted),
        Route::Snapshot => query::snapshot(call, request, &admitted),
        Route::Live => realtime::open_live(call, head, &admitted),
        Route::Health => health(call),
        Route::Admin(name) => admin::admin(call, name, request),
        Route::Blob { hash, part: BlobPart::UploadUrl } => presign::upload_url(call, hash, request),
        Route::Blob { hash, part: BlobPart::DownloadUrl } => presign::download_url(call, hash, request, &admitted),
        Route::Blob { hash, part: BlobPart::Bytes } if head.method == "PUT" => blob::put(call, hash, request, &watch),
        Route::Blob { hash, part: BlobPart::Bytes } => blob::get(call, hash, head, &admitted, &watch),
        Route::Socket => Err(Refusal::NotFound),
    };
    match answer {
        Ok(response) => dress(call, head, response),
        Err(refusal) => refused(call, head, route.metric(&head.method), &watch, &refusal),
    }
}

/// Goes on with a request that waited.
pub fn resume(call: &Call<'_>, state: &[u8]) -> Response {
    let watch = Stopwatch::start();
    let (head, answer) = waiting::resume(call, state, &watch);
    match answer {
        Ok(response) => dress(call, &head, response),
        Err(refusal) => refused(call, &head, Route::Pull.metric(&head.method), &watch, &refusal),
    }
}

/// A refusal on its way out: reported, counted, dressed.
fn refused(call: &Call<'_>, head: &RequestHead, kind: Option<&str>, watch: &Stopwatch, refusal: &Refusal) -> Response {
    call.refused(refusal);
    if let Some(kind) = kind {
        call.measured(kind, watch, false, &Work::Nothing);
    }
    dress(call, head, refusal.response())
}

/// Puts on what every response carries.
pub fn dress(call: &Call<'_>, head: &RequestHead, mut response: Response) -> Response {
    response.headers.extend(call.settings.cors.headers(head));
    compress(head, &mut response);
    response
}

fn health(call: &Call<'_>) -> Answer {
    let version = call.engine.version(call.imports)?;
    let body = serde_json::json!({
        "ok": true, "protocolVersion": 1, "schemaVersion": call.settings.schema_version, "version": version,
    });
    Ok(json_response(200, body.to_string()))
}
