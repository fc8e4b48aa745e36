//! One mount: its plan, and what this instance must do before calls for it.

use std::cell::RefCell;

use sha2::{Digest as _, Sha256};

use crate::bindings::syncline::spin::adapter;
use crate::bindings::syncline::sync::mounts::Plan;
use crate::config::MountConfig;
use crate::front::Front;
use crate::log::{Level, log, words};
use crate::ports::{Clock, Cursor};

/// How long a request waits while another one starts the mount.
const START_WAIT_MS: u64 = 20_000;
/// How often it looks whether that is done.
const START_LOOK_MS: u64 = 50;
/// An instance that lives on looks for other documents no more often than this.
const DOCUMENTS_MS: u64 = 1000;

/// Filled in by whoever composes: a digest of all parts. As long as that, and found nowhere else.
static PARTS_DIGEST: [u8; 64] = *b"syncline-digest-of-all-composed-parts-is-written-here-by-compose";

/// See the module.
pub(crate) struct Mount {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) path: Option<String>,
    pub(crate) settings: String,
    pub(crate) plan: Plan,
    /// Another one where component, protocol or settings are others.
    pub(crate) revision: String,
    prepared: RefCell<Prepared>,
}

/// What this instance has done for a mount.
#[derive(Default)]
struct Prepared {
    started: bool,
    /// The number of the documents that it was configured with.
    configured: Option<u64>,
    /// When documents were looked for last; none: they must be.
    looked_at_ms: Option<u64>,
}

/// Why a mount does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReady {
    /// The back adapter cannot do its part.
    #[error("{0}")]
    Adapter(String),
    /// It does not take its settings or documents.
    #[error("configure: {0}")]
    Configure(String),
    /// It could not create or migrate what it keeps.
    #[error("start: {0}")]
    Start(String),
    /// Another request does that, and takes long.
    #[error("it is still being started")]
    Starting,
}

impl From<adapter::Error> for NotReady {
    fn from(error: adapter::Error) -> Self {
        Self::Adapter(words(&error).to_owned())
    }
}

impl Mount {
    pub(crate) fn new(config: MountConfig, plan: Plan) -> Self {
        let MountConfig { name, protocol, path, settings } = config;
        let mut digest = Sha256::new();
        // Not folded into the code: the bytes are replaced after it was compiled.
        digest.update(std::hint::black_box(&PARTS_DIGEST));
        for part in [env!("CARGO_PKG_VERSION"), &protocol, &settings] {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        let revision = hex(&digest.finalize());
        Self { name, protocol, path, settings, plan, revision, prepared: RefCell::default() }
    }

    /// Documents were fetched anew.
    pub(crate) fn look_again(&self) {
        self.prepared.borrow_mut().looked_at_ms = None;
    }

    /// As the back adapter knows it.
    pub(crate) fn known(&self) -> adapter::Mount {
        let plan = &self.plan;
        adapter::Mount {
            name: self.name.clone(),
            folders: plan
                .folders
                .iter()
                .map(|folder| adapter::Folder { prefix: folder.prefix.clone(), path: folder.path.clone() })
                .collect(),
            documents: plan
                .documents
                .iter()
                .map(|document| adapter::Document {
                    name: document.name.clone(),
                    url: document.url.clone(),
                    refresh_ms: document.refresh_ms,
                })
                .collect(),
            post_targets: plan.post_targets.clone(),
        }
    }
}

impl<C: Clock> Front<C> {
    /// Does what must be done before calls for a mount: once per instance, and where documents changed.
    pub(crate) async fn ready(&self, mount: &Mount) -> Result<(), NotReady> {
        self.configure(mount)?;
        if mount.prepared.borrow().started || mount.plan.routes.is_empty() {
            return Ok(());
        }
        self.start(mount).await?;
        mount.prepared.borrow_mut().started = true;
        Ok(())
    }

    fn configure(&self, mount: &Mount) -> Result<(), NotReady> {
        let (configured, looked_at_ms) = {
            let prepared = mount.prepared.borrow();
            (prepared.configured, prepared.looked_at_ms)
        };
        let now_ms = self.clock.now_ms();
        let is_fresh = looked_at_ms.is_some_and(|looked_at_ms| now_ms.saturating_sub(looked_at_ms) < DOCUMENTS_MS);
        if configured.is_some() && (mount.plan.documents.is_empty() || is_fresh) {
            return Ok(());
        }
        let (number, documents) = if mount.plan.documents.is_empty() {
            (0, Vec::new())
        } else {
            match (self.adapter.documents(&mount.name), configured) {
                (Ok(found), _) => found,
                (Err(error), None) => return Err(error.into()),
                (Err(error), Some(_)) => {
                    log(Level::Warn, Some(&mount.name), "documents cannot be looked at now", words(&error));
                    return Ok(());
                }
            }
        };
        mount.prepared.borrow_mut().looked_at_ms = Some(now_ms);
        if configured == Some(number) {
            return Ok(());
        }
        // Revisions of the contract begin at 1.
        let revision = number.saturating_add(1);
        let done = self.logic.configure(&mount.name, &mount.protocol, revision, &mount.settings, &documents);
        match (done, configured) {
            (Ok(()), _) => {}
            (Err(text), None) => return Err(NotReady::Configure(text)),
            // The older revision goes on.
            (Err(text), Some(_)) => log(Level::Error, Some(&mount.name), "new documents were not taken", text),
        }
        mount.prepared.borrow_mut().configured = Some(number);
        Ok(())
    }

    async fn start(&self, mount: &Mount) -> Result<(), NotReady> {
        let give_up_ms = self.clock.now_ms().saturating_add(START_WAIT_MS);
        loop {
            match self.adapter.claim_start(&mount.name, &mount.revision)? {
                adapter::Start::Done => return Ok(()),
                adapter::Start::Step(cursor) => return self.start_steps(mount, cursor).await,
                adapter::Start::Busy if self.clock.now_ms() >= give_up_ms => return Err(NotReady::Starting),
                adapter::Start::Busy => self.clock.sleep(START_LOOK_MS).await,
            }
        }
    }

    async fn start_steps(&self, mount: &Mount, mut cursor: Cursor) -> Result<(), NotReady> {
        if cursor.is_none() {
            // Once per deployment, and not by every instance.
            mount.plan.warnings.iter().for_each(|warning| log(Level::Warn, Some(&mount.name), warning, ""));
        }
        loop {
            let step = self.call_long(mount, |logic| logic.start(&mount.name, cursor.as_deref())).await;
            let failed = match step {
                Ok(called) => match called.answer {
                    Ok(next) => {
                        self.adapter.started(&mount.name, &mount.revision, next.as_deref())?;
                        cursor = next;
                        None
                    }
                    Err(text) => Some(text),
                },
                Err(error) => Some(error.to_string()),
            };
            if let Some(text) = failed {
                self.adapter.start_failed(&mount.name);
                return Err(NotReady::Start(text));
            }
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}

/// Bytes in lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
