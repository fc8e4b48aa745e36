//! URLs that replace credentials for a while (docs/protocols/plasma.md, section 10.4): those of the store where it signs, else the
//! server's own.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value as Json, json};
use sha2::Sha256;

use super::blob;
use super::body::{Body, integer};
use super::refusal::Refusal;
use super::{Admitted, Answer};
use crate::encoding::{base64url, base64url_decode};
use crate::http::{content_length, header_text, json_response, query_parameter};
use crate::imports::RequestHead;
use crate::plasma::Call;
use crate::plasma::blobs::Found;
use crate::registry::{BodyIn, Request};

/// How long a URL holds, in seconds.
const EXPIRES_IN_SECONDS: u64 = 900;
const EXPIRES_IN_SECONDS_MAX: u64 = 86_400;

/// What a signature covers.
struct Signed<'a> {
    /// `put` or `get`
    operation: &'a str,
    hash: &'a str,
    expires_at_ms: u64,
    /// Of what is put: its bytes. Of what is got: `FIRST-LAST`, or nothing for all of it.
    extent: &'a str,
    /// Of what is put.
    content_type: &'a str,
}

impl Signed<'_> {
    fn mac(&self, secret: &str) -> Result<Hmac<Sha256>, Refusal> {
        let Signed { operation, hash, expires_at_ms, extent, content_type } = self;
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|error| Refusal::Internal(error.to_string()))?;
        Ok(mac.chain_update(format!("{operation}\n{hash}\n{expires_at_ms}\n{extent}\n{content_type}")))
    }
}

/// Whether a request comes with a signed URL.
pub fn is_signed(head: &RequestHead) -> bool {
    query_parameter(head, "sig").is_some()
}

/// Checks a signed URL, which stands for credentials.
pub fn admit(call: &Call<'_>, hash: &str, head: &RequestHead) -> Result<Admitted, Refusal> {
    let bad = || Refusal::Forbidden("bad-signature");
    let parameter = |name: &str| query_parameter(head, name);
    let puts = head.method == "PUT";
    let operation = if puts { "put" } else { "get" };
    let expires_at_ms = parameter("exp").as_deref().and_then(canonical).ok_or_else(bad)?;
    let size = if puts { content_length(head).map(|size| size.to_string()) } else { None };
    let extent = size.or_else(|| parameter("range").filter(|_| !puts)).unwrap_or_default();
    let content_type = if puts { blob::content_type(header_text(head, "content-type"))? } else { "" };
    let signature = parameter("sig").and_then(|text| base64url_decode(&text)).ok_or_else(bad)?;
    let secret = secret(call, false)?.ok_or_else(bad)?;
    let signed = Signed { operation, hash, expires_at_ms, extent: &extent, content_type };
    if parameter("op").as_deref() != Some(operation) || signed.mac(&secret)?.verify_slice(&signature).is_err() {
        return Err(bad());
    }
    if expires_at_ms <= call.imports.now_ms {
        return Err(Refusal::Forbidden("expired"));
    }
    Ok(Admitted { signed: true, ..Admitted::default() })
}

/// A number as this server writes it: there is one text of a signed URL, not several that say the same.
fn canonical(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// The range that a signed URL is for.
pub fn signed_range(head: &RequestHead, admitted: &Admitted) -> Option<String> {
    query_parameter(head, "range").filter(|_| admitted.signed).map(|range| format!("bytes={range}"))
}

fn secret(call: &Call<'_>, make: bool) -> Result<Option<String>, Refusal> {
    match &blob::settings(call)?.presign_secret {
        Some(secret) => Ok(Some(secret.clone())),
        None => Ok(call.engine.signing_secret(call.imports, make)?),
    }
}

/// The server's own URL.
fn own_url(call: &Call<'_>, head: &RequestHead, signed: &Signed<'_>) -> Result<String, Refusal> {
    let secret = secret(call, true)?.ok_or_else(|| Refusal::Unavailable("the secret that signs URLs is not there".into()))?;
    let signature = base64url(signed.mac(&secret)?.finalize().into_bytes());
    let origin = header_text(head, "host").map(|host| format!("{}://{host}", if head.secure { "https" } else { "http" }));
    let Signed { operation, hash, expires_at_ms, extent, .. } = signed;
    let range = if *operation == "get" && !extent.is_empty() { format!("&range={extent}") } else { String::new() };
    let (origin, base) = (origin.unwrap_or_default(), &call.settings.base_path);
    Ok(format!("{origin}{base}/blob/{hash}?op={operation}&exp={expires_at_ms}{range}&sig={signature}"))
}

/// Answers `/blob/{hash}/upload-url`.
pub fn upload_url(call: &Call<'_>, hash: &str, request: &Request) -> Answer {
    let body = read(call, request)?;
    let limit = blob::settings(call)?.bytes_max;
    let size = match body.get("size").and_then(integer).and_then(|size| u64::try_from(size).ok()) {
        Some(size) if size > limit => return Err(Refusal::PayloadTooLarge { limit, got: size }),
        Some(size) => size,
        None => return Err(invalid("size must be a number of bytes")),
    };
    let content_type = match body.get("contentType") {
        None | Some(Json::Null) => blob::content_type(None)?,
        Some(Json::String(given)) => blob::content_type(Some(given.trim()))?,
        Some(_) => return Err(invalid("contentType must be a string")),
    };
    let (valid_ms, expires_at_ms) = validity(call, &body)?;
    // One that is damaged is to be uploaded again.
    let already_uploaded = matches!(call.engine.find_blob(call.imports, hash)?, Found::Whole(_));
    let of_store = call.imports.storage.presign_upload(&call.engine.direct_key(hash), hash, size, valid_ms);
    let url = match of_store.map_err(|error| Refusal::Unavailable(format!("storage: {error:?}")))? {
        Some(url) => url,
        None => {
            let extent = size.to_string();
            own_url(call, &request.head, &Signed { operation: "put", hash, expires_at_ms, extent: &extent, content_type })?
        }
    };
    let answer = json!({
        "method": "PUT", "url": url, "headers": {"content-type": content_type}, "expiresAt": expires_at_ms,
        "alreadyUploaded": already_uploaded,
    });
    Ok(json_response(200, answer.to_string()))
}

/// Answers `/blob/{hash}/download-url`.
pub fn download_url(call: &Call<'_>, hash: &str, request: &Request, admitted: &Admitted) -> Answer {
    let body = read(call, request)?;
    let range = match body.get("range") {
        None | Some(Json::Null) => String::new(),
        Some(range) => part(range).ok_or_else(|| invalid("range must be {start, end}, with start at most end"))?,
    };
    let (valid_ms, expires_at_ms) = validity(call, &body)?;
    let blob = blob::readable(call, hash, admitted)?;
    let of_store = call.imports.storage.presign_download(&blob.object, valid_ms);
    let url = match of_store.map_err(|error| Refusal::Unavailable(format!("storage: {error:?}")))? {
        Some(url) => url,
        None => own_url(call, &request.head, &Signed { operation: "get", hash, expires_at_ms, extent: &range, content_type: "" })?,
    };
    Ok(json_response(200, json!({"url": url, "expiresAt": expires_at_ms}).to_string()))
}

fn invalid(reason: &str) -> Refusal {
    Refusal::BlobInvalidRequest(reason.into())
}

/// The body, which may be left out.
fn read(call: &Call<'_>, request: &Request) -> Result<Map<String, Json>, Refusal> {
    if matches!(request.body, BodyIn::Empty) {
        return Ok(Map::new());
    }
    Body::read(call, request).map(|body| body.0).map_err(|refusal| match refusal {
        Refusal::InvalidRequest(reason) => Refusal::BlobInvalidRequest(reason),
        other => other,
    })
}

/// `FIRST-LAST` of `{start, end}`.
fn part(range: &Json) -> Option<String> {
    let bound = |name: &str| range.get(name).and_then(integer).and_then(|bound| u64::try_from(bound).ok());
    let (start, end) = (bound("start")?, bound("end")?);
    (start <= end).then(|| format!("{start}-{end}"))
}

/// For how long, and until when.
fn validity(call: &Call<'_>, body: &Map<String, Json>) -> Result<(u64, u64), Refusal> {
    let seconds = match body.get("expiresInSec") {
        None | Some(Json::Null) => EXPIRES_IN_SECONDS,
        Some(given) => integer(given)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| (1..=EXPIRES_IN_SECONDS_MAX).contains(seconds))
            .ok_or_else(|| invalid("expiresInSec must be from 1 to 86400"))?,
    };
    let valid_ms = seconds * 1000;
    Ok((valid_ms, call.imports.now_ms.saturating_add(valid_ms)))
}
