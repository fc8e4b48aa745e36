//! Fetches documents of mounts, by one request of many at a time.

use crate::back::{Back, Opened, unavailable};
use crate::bindings::exports::syncline::spin::adapter;
use crate::ports::Request;
use crate::sql::Error;
use crate::store::documents::{self as rows, Kept};

/// Time for one fetch, in milliseconds.
const FETCH_MS: u64 = 5_000;
/// Bytes of a document.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Who asks for a document gets it fetched no more often than this, in milliseconds.
const ASKED_AGAIN_MS: u64 = 10_000;
/// A document is refreshed no more often than this, in milliseconds.
const REFRESH_MS_MIN: u64 = 1_000;
/// After a fetch that failed it is tried again after so long, in milliseconds.
const FAILED_AGAIN_MS: u64 = 30_000;

/// A number that grows with changes, and documents by name.
type Numbered = (u64, Vec<(String, Vec<u8>)>);

impl Back {
    /// The documents of a mount as they are, after those whose time is over were fetched, and the number of what is there.
    pub fn documents(&self, mount: &str) -> Result<Numbered, adapter::Error> {
        let wanted = self.mounts.borrow().get(mount).map(|mount| mount.documents.clone()).unwrap_or_default();
        if wanted.is_empty() {
            return Ok((0, Vec::new()));
        }
        let opened = self.opened_for_front()?;
        let mut kept = rows::all(&opened.database, mount).map_err(unavailable)?;
        let mut fetched = false;
        for document in &wanted {
            let known = kept.iter().find(|(name, kept)| *name == document.name && kept.url == document.url).map(|(_, kept)| kept);
            if self.is_due(document, known) {
                fetched |= self.refresh(&opened, mount, document, known).map_err(unavailable)?;
            }
        }
        if fetched {
            kept = rows::all(&opened.database, mount).map_err(unavailable)?;
        }
        let revision = kept.iter().map(|(_, kept)| kept.revision).max().unwrap_or(0);
        let body = |document: &adapter::Document| {
            let (_, kept) = kept.iter().find(|(name, kept)| *name == document.name && kept.url == document.url)?;
            Some((document.name.clone(), kept.body.clone()?))
        };
        Ok((revision, wanted.iter().filter_map(body).collect()))
    }

    fn is_due(&self, document: &adapter::Document, known: Option<&Kept>) -> bool {
        let Some(known) = known else { return true };
        if document.refresh_ms == 0 {
            return false;
        }
        let refresh_ms = document.refresh_ms.max(REFRESH_MS_MIN);
        let pause_ms = if known.failed { refresh_ms.min(FAILED_AGAIN_MS) } else { refresh_ms };
        self.now_ms() >= known.tried_ms.saturating_add(pause_ms)
    }

    /// `effects.refresh-document`: fetches it again, unless that was just done, and gives what there is then.
    pub fn refresh_document(&self, mount: &str, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let document = self.mounts.borrow().get(mount).and_then(|mount| mount.documents.iter().find(|known| known.name == name).cloned());
        let Some(document) = document else {
            self.log_own("warn", "the plan has no document of this name", &[("mount", mount), ("document", name)]);
            return Ok(None);
        };
        let opened = self.opened()?;
        let find = || {
            let kept = rows::all(&opened.database, mount)?;
            Ok::<_, Error>(kept.into_iter().find(|(known, kept)| known == name && kept.url == document.url).map(|(_, kept)| kept))
        };
        let known = find()?;
        if known.as_ref().is_some_and(|known| self.now_ms() < known.tried_ms.saturating_add(ASKED_AGAIN_MS)) {
            return Ok(known.and_then(|known| known.body));
        }
        if self.refresh(&opened, mount, &document, known.as_ref())? {
            self.try_call(|call| call.refreshed = true);
        }
        Ok(find()?.and_then(|known| known.body))
    }

    /// Fetches a document, if nobody else does; whether it is another now.
    fn refresh(&self, opened: &Opened, mount: &str, document: &adapter::Document, known: Option<&Kept>) -> Result<bool, Error> {
        let database = &opened.database;
        if !rows::take_turn(database, mount, &document.name, &document.url, known.map(|known| known.tried_ms), self.now_ms())? {
            return Ok(false);
        }
        match self.fetch(document, known) {
            Ok(Some(fresh)) => rows::keep(database, mount, &document.name, &fresh).map(|()| true),
            Ok(None) => rows::tried(database, mount, &document.name, false).map(|()| false),
            Err(error) => {
                let fields = [("mount", mount), ("document", document.name.as_str()), ("error", error.as_str())];
                self.log_own("warn", "a document could not be fetched", &fields);
                rows::tried(database, mount, &document.name, true).map(|()| false)
            }
        }
    }

    /// What a server has; none where it is what is known.
    fn fetch(&self, document: &adapter::Document, known: Option<&Kept>) -> Result<Option<Kept>, String> {
        let mut headers = vec![("accept-encoding".to_owned(), b"identity".to_vec())];
        if let Some(known) = known.filter(|known| known.body.is_some()) {
            let conditions = [("if-none-match", &known.etag), ("if-modified-since", &known.modified)];
            let given = conditions.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?.into_bytes())));
            headers.extend(given);
        }
        let request = Request {
            method: "GET",
            url: document.url.clone(),
            headers,
            body: Vec::new(),
            timeout_ms: FETCH_MS,
            answer_bytes_max: Some(DOCUMENT_BYTES_MAX),
        };
        let reply = self.ports.http.send(&request)?;
        match reply.status {
            304 if known.is_some_and(|known| known.body.is_some()) => Ok(None),
            200 => Ok(Some(Kept {
                url: document.url.clone(),
                etag: reply.header("etag").map(str::to_owned),
                modified: reply.header("last-modified").map(str::to_owned),
                body: Some(reply.body),
                ..Kept::default()
            })),
            status => Err(format!("answered {status}")),
        }
    }
}

impl Back {
    /// The same for the call that is under way; an error counts as a document that cannot be had.
    pub fn refresh_asked(&self, name: &str) -> Option<Vec<u8>> {
        let mount = self.try_call(|call| call.mount.clone())?;
        self.refresh_document(&mount, name).unwrap_or_else(|error| {
            let error = format!("{error:?}");
            self.log_own("warn", "a document cannot be kept", &[("mount", mount.as_str()), ("document", name), ("error", error.as_str())]);
            None
        })
    }
}
