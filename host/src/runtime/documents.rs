//! Documents that the host fetches for a mount (`mounts.document`: JWKS …). The last one that came is kept, across
//! restarts too (among the key-value facts of the host's own); instances get it by `configure` with a new revision.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT_ENCODING, ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use hyper::{Request, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::OWN_NAME;
use super::mount::MountCore;
use super::plans::Document;
use crate::outbound::HttpClient;
use crate::storage::KeyValue;

/// Time for one fetch.
const FETCH: Duration = Duration::from_secs(5);
/// Bytes of a document.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// A component that asks for a document gets it fetched no more often than this.
pub(crate) const ASKED_AGAIN: Duration = Duration::from_secs(10);
/// A document is refreshed no more often than this, whatever the plan says.
const REFRESH_MS_MIN: u64 = 1000;
/// After a fetch that failed it is tried again after so long, or as often as it is refreshed if that is sooner.
const FAILED_AGAIN: Duration = Duration::from_secs(30);

/// The documents of one mount.
pub(crate) struct Documents {
    mount: String,
    keyvalue: Arc<dyn KeyValue>,
    http: Arc<HttpClient>,
    /// By name and URL: under another URL it is another document.
    entries: Mutex<HashMap<(String, String), Arc<Entry>>>,
    /// The plan is another now.
    changed: Notify,
}

#[derive(Default)]
struct Entry {
    /// What was fetched last.
    kept: Mutex<Option<Kept>>,
    /// Held while it is fetched: whoever waits gets what that brought.
    turn: tokio::sync::Mutex<()>,
    tried: Mutex<Tried>,
}

#[derive(Clone, Copy, Default)]
struct Tried {
    /// When a fetch began last.
    at: Option<Instant>,
    failed: bool,
}

/// A document as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
    /// In base64 where it is stored.
    #[serde(with = "base64_bytes")]
    body: Vec<u8>,
}

mod base64_bytes {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use super::STANDARD;
    use base64::Engine as _;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Documents {
    pub(super) fn new(mount: &str, keyvalue: Arc<dyn KeyValue>, http: Arc<HttpClient>) -> Self {
        Self { mount: mount.to_owned(), keyvalue, http, entries: Mutex::default(), changed: Notify::new() }
    }

    /// Tries to fetch those that were never tried, all at once.
    pub(super) async fn fetch_new(&self, documents: &[Document]) {
        futures_util::future::join_all(documents.iter().map(|document| self.refresh(document, None))).await;
    }

    /// Content by name; those that could never be fetched are missing.
    pub(super) fn of(&self, documents: &[Document]) -> Vec<(String, Vec<u8>)> {
        documents.iter().filter_map(|document| Some((document.name.clone(), self.content(document)?))).collect()
    }

    fn content(&self, document: &Document) -> Option<Vec<u8>> {
        let entry = self.entries.lock().get(&key_of(document)).cloned()?;
        let kept = entry.kept.lock();
        kept.as_ref().map(|kept| kept.body.clone())
    }

    /// Fetches a document, unless that was tried already, or less than so long ago.
    async fn refresh(&self, document: &Document, age_min: Option<Duration>) {
        let entry = self.entries.lock().entry(key_of(document)).or_default().clone();
        let _turn = entry.turn.lock().await;
        let tried = entry.tried.lock().at;
        if tried.is_some_and(|tried| age_min.is_none_or(|age_min| tried.elapsed() < age_min)) {
            return;
        }
        if tried.is_none() {
            let stored = self.stored(document).await;
            *entry.kept.lock() = stored;
        }
        entry.tried.lock().at = Some(Instant::now());
        let known = entry.kept.lock().clone();
        let fetched = self.fetch(document, known.as_ref()).await;
        entry.tried.lock().failed = fetched.is_err();
        match fetched {
            Ok(None) => {}
            Ok(Some(fresh)) => {
                self.store(document, &fresh).await;
                *entry.kept.lock() = Some(fresh);
            }
            Err(error) => {
                let kept = known.is_some();
                tracing::warn!(mount = self.mount, document = document.name, error, kept, "a document could not be fetched");
            }
        }
    }

    /// What a server has; none where it is what is known.
    async fn fetch(&self, document: &Document, known: Option<&Kept>) -> Result<Option<Kept>, String> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = document.url.parse().map_err(|_| "the URL is not valid".to_owned())?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let conditions = known.map(|known| [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)]);
        for (name, value) in conditions.into_iter().flatten() {
            if let Some(value) = value.as_ref().and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        let reply = self.http.send(request, FETCH, Some(DOCUMENT_BYTES_MAX)).await.map_err(|error| error.to_string())?;
        let header = |name: HeaderName| reply.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match reply.status {
            StatusCode::NOT_MODIFIED if known.is_some() => Ok(None),
            StatusCode::OK => {
                let (etag, last_modified) = (header(ETAG), header(LAST_MODIFIED));
                Ok(Some(Kept { url: document.url.clone(), etag, last_modified, body: reply.body.to_vec() }))
            }
            status => Err(format!("answered {}", status.as_u16())),
        }
    }

    fn stored_key(&self, document: &Document) -> String {
        format!("document/{}/{}", self.mount, document.name)
    }

    /// What an earlier process fetched from the same URL.
    async fn stored(&self, document: &Document) -> Option<Kept> {
        match self.keyvalue.get(OWN_NAME, &self.stored_key(document)).await {
            Ok(value) => value.and_then(|value| serde_json::from_slice(&value).ok()).filter(|kept: &Kept| kept.url == document.url),
            Err(error) => {
                tracing::warn!(mount = self.mount, document = document.name, %error, "a document that was kept cannot be read");
                None
            }
        }
    }

    async fn store(&self, document: &Document, kept: &Kept) {
        let stored = async {
            let value = serde_json::to_vec(kept).map_err(|error| error.to_string())?;
            self.keyvalue.set(OWN_NAME, &self.stored_key(document), value, None).await.map_err(|error| error.to_string())
        };
        if let Err(error) = stored.await {
            tracing::warn!(mount = self.mount, document = document.name, error, "a document cannot be kept for the next start");
        }
    }

    /// When the next refresh is due.
    fn due_next(&self, documents: &[Document]) -> Option<Instant> {
        documents.iter().filter_map(|document| self.due(document)).min()
    }

    fn due(&self, document: &Document) -> Option<Instant> {
        let refresh = Duration::from_millis(document.refresh_ms.max(REFRESH_MS_MIN));
        let tried = self.entries.lock().get(&key_of(document)).map_or_else(Tried::default, |entry| *entry.tried.lock());
        let pause = if tried.failed { refresh.min(FAILED_AGAIN) } else { refresh };
        (document.refresh_ms > 0).then(|| tried.at.map_or_else(Instant::now, |at| at + pause))
    }

    /// The plan is another now.
    pub(super) fn look_again(&self) {
        self.changed.notify_one();
    }
}

fn key_of(document: &Document) -> (String, String) {
    (document.name.clone(), document.url.clone())
}

impl MountCore {
    /// Fetches a document again, unless that was just done, and gives what there is then. Others wait for one fetch.
    pub(crate) async fn refresh_document(self: &Arc<Self>, document: &Document) -> Option<Vec<u8>> {
        let (mount, wanted) = (self.clone(), document.clone());
        // A task of its own: the fetch goes on where the call ends before it.
        let refreshing = self.runtime.spawn(async move {
            mount.documents.refresh(&wanted, Some(ASKED_AGAIN)).await;
            // Not waited for: it needs an instance, and the calls that wait here may have them all.
            mount.runtime.clone().spawn(async move { mount.hand_over_documents().await });
        });
        // An error means that the process ends.
        let _ = refreshing.await;
        self.documents.content(document)
    }

    /// Goes on with a new revision where documents are not those of the current one, if the component takes them.
    pub(super) async fn hand_over_documents(self: &Arc<Self>) {
        loop {
            let current = self.revision();
            let documents = self.documents.of(&current.plan.documents);
            if documents == current.documents {
                return;
            }
            let next = Arc::new(current.with_documents(self.next_revision_number(), documents));
            if let Err(error) = self.pool.take(self, &next, true).await {
                tracing::error!(mount = self.name, %error, "the component does not take a document: it goes on with what it had");
                return;
            }
            // Else a reload came in between: once more on what it brought.
            if self.exchange_from(&current, next) {
                return;
            }
        }
    }
}

/// Refreshes the documents of a mount as its plan says.
pub(super) async fn keep_fresh(mount: Weak<MountCore>, documents: Arc<Documents>) {
    loop {
        let due = {
            let Some(mount) = mount.upgrade().filter(|mount| !mount.is_stopping()) else { return };
            documents.due_next(&mount.plan().documents)
        };
        tokio::select! {
            biased;
            () = documents.changed.notified() => continue,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        let Some(mount) = mount.upgrade() else { return };
        for document in &mount.plan().documents {
            if documents.due(document).is_some_and(|due| due <= Instant::now()) {
                documents.refresh(document, Some(Duration::ZERO)).await;
            }
        }
        mount.hand_over_documents().await;
    }
}
