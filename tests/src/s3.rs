//! A store that speaks as much of S3 as the host does. It keeps everything in memory, and is as strict as the real ones are.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The only bucket.
pub const BUCKET: &str = "bucket";
/// Whoever has this key is let in.
pub const ACCESS_KEY: &str = "test-access-key";
/// As in headers and in listings.
const MODIFIED: [&str; 2] = ["Sat, 03 Feb 2001 04:05:06 GMT", "2001-02-03T04:05:06.000Z"];
/// Smaller parts are refused, but the last.
const PART_BYTES_MIN: usize = 5 << 20;

#[derive(Clone)]
struct Object {
    content: Bytes,
    headers: HeaderMap,
}

/// An upload in parts.
struct Upload {
    name: String,
    headers: HeaderMap,
    parts: BTreeMap<u32, Bytes>,
}

#[derive(Default)]
struct State {
    objects: Mutex<BTreeMap<String, Object>>,
    uploads: Mutex<HashMap<String, Upload>>,
    uploads_made: AtomicU64,
    away: AtomicBool,
}

/// The store; it ends when dropped.
pub struct S3Store {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

type Reply = Response<Full<Bytes>>;

impl S3Store {
    /// Starts an empty store.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State::default());
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                let service = service_fn(move |request| answer(state.clone(), request));
                tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
            }
        });
        Self { address, state, accepting }
    }

    /// `storage.objects` for a place in the bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?region=eu-test-1&endpoint=http://{}", self.address)
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<String> {
        self.state.objects.lock().keys().cloned().collect()
    }

    /// Uploads in parts that were neither completed nor given up.
    pub fn open_uploads(&self) -> usize {
        self.state.uploads.lock().len()
    }

    /// Whether it refuses everything as if it were overloaded.
    pub fn set_away(&self, away: bool) {
        self.state.away.store(away, Ordering::Relaxed);
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    Response::builder().status(status).body(Full::new(body.into())).expect("a status")
}

fn refusal(status: u16, code: &str) -> Reply {
    reply(status, format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"))
}

fn etag(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    format!("\"{}\"", digest[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Signatures are not computed anew; but one must be there, of the right key.
fn is_signed(request: &Request<Incoming>, query: &HashMap<String, String>) -> bool {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let by_header = header.starts_with(&format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/")) && header.contains("/eu-test-1/s3/");
    let by_query = query.get("X-Amz-Credential").is_some_and(|credential| credential.starts_with(&format!("{ACCESS_KEY}/")))
        && query.contains_key("X-Amz-Signature")
        && query.contains_key("X-Amz-Expires");
    by_header || by_query
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let query: HashMap<String, String> =
        form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    if state.away.load(Ordering::Relaxed) {
        return Ok(refusal(503, "SlowDown"));
    }
    if !is_signed(&request, &query) {
        return Ok(refusal(403, "AccessDenied"));
    }
    let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let Some(name) = path.strip_prefix(&format!("/{BUCKET}")).map(|name| name.trim_start_matches('/').to_owned()) else {
        return Ok(refusal(404, "NoSuchBucket"));
    };
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(match (&method, name.as_str()) {
        (&Method::GET, "") => list(&state, &query),
        (&Method::GET | &Method::HEAD, _) => get(&state, &name, &headers),
        (&Method::PUT, _) => put(&state, name, headers, body, &query),
        (&Method::POST, _) => parts(&state, name, headers, &query),
        (&Method::DELETE, _) => match query.get("uploadId") {
            Some(id) => reply(if state.uploads.lock().remove(id).is_some() { 204 } else { 404 }, ""),
            None => {
                state.objects.lock().remove(&name);
                reply(204, "")
            }
        },
        _ => refusal(405, "MethodNotAllowed"),
    })
}

fn list(state: &State, query: &HashMap<String, String>) -> Reply {
    let text = |key: &str| query.get(key).map_or("", String::as_str);
    let count = query.get("max-keys").and_then(|count| count.parse().ok()).unwrap_or(1000_usize).min(1000);
    let after = if query.contains_key("continuation-token") { text("continuation-token") } else { text("start-after") };
    let objects = state.objects.lock();
    let found: Vec<_> = objects.iter().filter(|(name, _)| name.starts_with(text("prefix")) && name.as_str() > after).collect();
    let mut xml = String::from("<ListBucketResult>");
    for (name, object) in found.iter().take(count) {
        let (etag, size) = (etag(&object.content).replace('"', "&quot;"), object.content.len());
        let modified = MODIFIED[1];
        let entry =
            format!("<Contents><Key>{name}</Key><LastModified>{modified}</LastModified><ETag>{etag}</ETag><Size>{size}</Size></Contents>");
        xml.push_str(&entry);
    }
    let truncated = found.len() > count;
    write!(xml, "<IsTruncated>{truncated}</IsTruncated>").expect("strings take text");
    if let Some((name, _)) = found.get(count.wrapping_sub(1)).filter(|_| truncated) {
        write!(xml, "<NextContinuationToken>{name}</NextContinuationToken>").expect("strings take text");
    }
    reply(200, xml + "</ListBucketResult>")
}

fn get(state: &State, name: &str, headers: &HeaderMap) -> Reply {
    let Some(object) = state.objects.lock().get(name).cloned() else { return refusal(404, "NoSuchKey") };
    let size = object.content.len();
    let range = headers.get("range").and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let mut response = Response::builder().header("etag", etag(&object.content)).header("last-modified", MODIFIED[0]);
    for (key, value) in &object.headers {
        if key == "content-type" || key.as_str().starts_with("x-amz-meta-") {
            response = response.header(key, value);
        }
    }
    let content = match range {
        None => object.content,
        Some((first, last)) => {
            let first: usize = first.parse().expect("a range of the host begins somewhere");
            let end = last.parse().map_or(size, |last: usize| (last + 1).min(size));
            if first >= end {
                return refusal(416, "InvalidRange");
            }
            response = response.status(206).header("content-range", format!("bytes {first}-{}/{size}", end - 1));
            object.content.slice(first..end)
        }
    };
    response.header("content-length", content.len()).body(Full::new(content)).expect("headers of objects are valid")
}

fn put(state: &State, name: String, headers: HeaderMap, content: Bytes, query: &HashMap<String, String>) -> Reply {
    let etag = etag(&content);
    match query.get("uploadId") {
        None => drop(state.objects.lock().insert(name, Object { content, headers })),
        Some(id) => {
            let number = query.get("partNumber").and_then(|number| number.parse().ok()).expect("a part has a number");
            let mut uploads = state.uploads.lock();
            let Some(upload) = uploads.get_mut(id).filter(|upload| upload.name == name) else { return refusal(404, "NoSuchUpload") };
            upload.parts.insert(number, content);
        }
    }
    Response::builder().header("etag", etag).body(Full::default()).expect("a valid header")
}

fn parts(state: &State, name: String, headers: HeaderMap, query: &HashMap<String, String>) -> Reply {
    let Some(id) = query.get("uploadId") else {
        let id = format!("upload-{}", state.uploads_made.fetch_add(1, Ordering::Relaxed));
        state.uploads.lock().insert(id.clone(), Upload { name, headers, parts: BTreeMap::new() });
        return reply(200, format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"));
    };
    let Some(upload) = state.uploads.lock().remove(id).filter(|upload| upload.name == name) else { return refusal(404, "NoSuchUpload") };
    if upload.parts.values().rev().skip(1).any(|part| part.len() < PART_BYTES_MIN) {
        return refusal(400, "EntityTooSmall");
    }
    let content: Bytes = upload.parts.into_values().collect::<Vec<_>>().concat().into();
    let etag = etag(&content).replace('"', "&quot;");
    state.objects.lock().insert(name, Object { content, headers: upload.headers });
    reply(200, format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"))
}
