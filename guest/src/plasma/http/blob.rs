//! `/blob/{hash}` (docs/protocols/plasma.md, section 10): the bytes themselves go past this component; it decides who, where and
//! which part.

use serde_json::json;

use super::presign;
use super::refusal::Refusal;
use super::{Admitted, Answer};
use crate::contract::exports::syncline::sync::http::{BodyFailure, Upload};
use crate::http::{content_length, header, header_text, json_response};
use crate::imports::{ByteRange, Header, RequestHead};
use crate::plasma::Call;
use crate::plasma::blobs::{Blob, DEFAULT_CONTENT_TYPE, Kept, ReadRefused};
use crate::plasma::metrics::{Stopwatch, Work};
use crate::plasma::settings::Blobs;
use crate::ranges::{self, Wanted};
use crate::registry::{BodyIn, BodyOut, BodyPlan, Request, Response, empty_response};

/// Longest content type that is kept.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Bytes of a hash never change, and not everybody may see them.
const CACHE_CONTROL: &str = "private, max-age=31536000, immutable";

/// The settings of blobs; without them there is no such path.
pub fn settings<'a>(call: &Call<'a>) -> Result<&'a Blobs, Refusal> {
    call.settings.blobs.as_ref().ok_or(Refusal::NotFound)
}

/// Where the body of a PUT goes.
pub fn upload_plan(call: &Call<'_>, hash: &str, head: &RequestHead) -> Result<BodyPlan, Refusal> {
    let key = call.engine.upload_key(hash, call.connection);
    let content_type = content_type(header_text(head, "content-type"))?.to_owned();
    Ok(BodyPlan::Object(Upload { key, content_type, sha256: Some(hash.to_owned()), max_bytes: settings(call)?.bytes_max }))
}

/// A content type as it is kept.
pub fn content_type(given: Option<&str>) -> Result<&str, Refusal> {
    match given.filter(|given| !given.is_empty()) {
        None => Ok(DEFAULT_CONTENT_TYPE),
        Some(given) if given.len() <= CONTENT_TYPE_BYTES_MAX && !given.chars().any(char::is_control) => Ok(given),
        Some(_) => Err(Refusal::BlobInvalidRequest(format!("the content type must be text of at most {CONTENT_TYPE_BYTES_MAX} bytes"))),
    }
}

/// Answers a PUT, whose body is an object by now.
pub fn put(call: &Call<'_>, hash: &str, request: &Request, watch: &Stopwatch) -> Answer {
    let stored = match &request.body {
        BodyIn::Stored(stored) => stored,
        BodyIn::Failed(BodyFailure::TooLarge) => {
            let limit = settings(call)?.bytes_max;
            return Err(Refusal::PayloadTooLarge { limit, got: content_length(&request.head).unwrap_or(0).max(limit + 1) });
        }
        BodyIn::Failed(BodyFailure::WrongHash) => {
            let reason = "the SHA-256 of the body is another".to_owned();
            return Err(Refusal::BlobHashMismatch { hash: hash.to_owned(), reason });
        }
        BodyIn::Failed(BodyFailure::Unavailable) | BodyIn::Empty | BodyIn::Bytes(_) => {
            let cause = "the storage did not take the object".to_owned();
            return Err(Refusal::BlobUploadFailed { hash: hash.to_owned(), cause });
        }
    };
    let content_type = content_type(header_text(&request.head, "content-type"))?.to_owned();
    let blob = Blob { hash: hash.to_owned(), size: stored.size, content_type, object: stored.key.clone() };
    let status = match call.engine.keep_blob(call.imports, &blob)? {
        Kept::New => 201,
        Kept::Present => 200,
    };
    call.measured("blob-put", watch, true, &Work::Blob { kind: "blob-put", bytes: stored.size, range: false, status });
    Ok(json_response(status, json!({"ok": true, "hash": hash, "size": stored.size}).to_string()))
}

/// Answers a GET or HEAD.
pub fn get(call: &Call<'_>, hash: &str, head: &RequestHead, admitted: &Admitted, watch: &Stopwatch) -> Answer {
    let blob = readable(call, hash, admitted)?;
    let wanted = match (head.method.as_str(), presign::signed_range(head, admitted)) {
        ("GET", Some(range)) => ranges::of_range(&range, blob.size),
        ("GET", None) => ranges::wanted(head, hash, blob.size),
        _ => Wanted::Whole,
    };
    let size = blob.size;
    let response = match ranges::is_unchanged(head, hash) {
        true => Response { headers: validators(hash), ..empty_response(304) },
        false => body(blob, wanted),
    };
    let bytes = match &response.body {
        BodyOut::Object((_, range)) if head.method == "GET" => range.as_ref().map_or(size, |range| range.length),
        _ => 0,
    };
    let range = response.status == 206;
    call.measured("blob-get", watch, true, &Work::Blob { kind: "blob-get", bytes, range, status: response.status });
    Ok(response)
}

/// The blob of a hash, if it is there and the caller may read it.
pub fn readable(call: &Call<'_>, hash: &str, admitted: &Admitted) -> Result<Blob, Refusal> {
    let blob = call.engine.blob(call.imports, hash)?.ok_or_else(|| Refusal::BlobNotFound { hash: hash.to_owned() })?;
    // Whoever signed the URL had looked.
    if !admitted.signed {
        let cap = call.settings.read_auth_refs_max;
        let references_max = (!call.settings.read_auth_exact).then_some(cap);
        call.engine.check_blob_read(call.imports, &admitted.ctx, hash, references_max).map_err(|refused| match refused {
            ReadRefused::NotReadable => Refusal::Forbidden("blob-not-readable"),
            ReadRefused::CapHit => Refusal::BlobReadCapHit { hash: hash.to_owned(), cap },
            ReadRefused::Failure(failure) => failure.into(),
        })?;
    }
    Ok(blob)
}

fn validators(hash: &str) -> Vec<Header> {
    vec![header("etag", format!("\"{hash}\"")), header("cache-control", CACHE_CONTROL), header("accept-ranges", "bytes")]
}

/// The bytes, or some of them.
fn body(blob: Blob, wanted: Wanted) -> Response {
    let Blob { hash, size, content_type, object } = blob;
    let range = match wanted {
        Wanted::Unsatisfiable => {
            let headers = vec![
                header("content-range", format!("bytes */{size}")),
                header("accept-ranges", "bytes"),
                header("cache-control", "no-store"),
            ];
            return Response { headers, ..empty_response(416) };
        }
        Wanted::Whole => None,
        Wanted::Part(first, last) => Some((first, last)),
    };
    let mut headers = validators(&hash);
    headers.push(header("content-type", content_type.as_str()));
    headers.push(header("x-content-type-options", "nosniff"));
    if !is_shown(&content_type) {
        headers.push(header("content-disposition", "attachment"));
    }
    let Some((first, last)) = range else {
        return Response { status: 200, headers, body: BodyOut::Object((object, None)) };
    };
    headers.push(header("content-range", format!("bytes {first}-{last}/{size}")));
    let piece = ByteRange { start: first, length: last - first + 1 };
    Response { status: 206, headers, body: BodyOut::Object((object, Some(piece))) }
}

/// Whether browsers may show a type: what cannot run as a page of this origin.
fn is_shown(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let is_media = ["image/", "audio/", "video/"].iter().any(|kind| essence.starts_with(kind));
    is_media && !essence.contains("svg") && !essence.contains("xml") || ["text/plain", "application/pdf"].contains(&essence.as_str())
}
