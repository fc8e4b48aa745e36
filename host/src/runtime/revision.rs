//! What a mount runs at a time. A reload exchanges it as a whole; connections stay.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use http::Method;

use super::bindings::guest::GuestPre;
use super::bindings::guest::exports::syncline::sync::mounts::Closes;
use super::imports::app::App;
use super::plans::Plan;
use super::queue::Close;
use super::quota::Quota;
use super::remote::Remote;
use super::state::State;
use crate::storage::folders::Folder;

/// Code and settings of a mount, and what follows from them.
pub(crate) struct Revision {
    /// Another one with each exchange; the component knows it from `configure`.
    pub(crate) number: u64,
    pub(crate) plan: Plan,
    /// How the host closes by itself.
    pub(crate) closes: Arc<HostCloses>,
    pub(crate) code: Code,
    /// What its databases and objects may hold; none: no limit.
    pub(crate) quota: Option<Arc<Quota>>,
    /// What of the plan's documents was fetched, by name.
    pub(crate) documents: Vec<(String, Vec<u8>)>,
    pub(crate) identity: Identity,
}

/// Where the calls of a mount are made.
#[derive(Clone)]
pub(crate) enum Code {
    /// Here, by instances of a component.
    Component {
        /// What the component's `app` import is bridged to.
        app: Arc<App>,
        /// The component itself.
        pre: GuestPre<State>,
    },
    /// Elsewhere.
    Remote(Arc<dyn Remote>),
}

impl Revision {
    /// The folders whose files are objects of the mount; what they are relative to is the host's to say.
    pub(crate) fn folders(&self, relative_to: &Path) -> Vec<Folder> {
        folders(&self.plan, relative_to)
    }

    /// The same with other documents.
    pub(crate) fn with_documents(&self, number: u64, documents: Vec<(String, Vec<u8>)>) -> Self {
        let (plan, closes, code) = (self.plan.clone(), self.closes.clone(), self.code.clone());
        Self { number, plan, closes, code, quota: self.quota.clone(), documents, identity: self.identity.clone() }
    }
}

/// The folders of a plan.
pub(crate) fn folders(plan: &Plan, relative_to: &Path) -> Vec<Folder> {
    plan.folders.iter().map(|folder| Folder { prefix: folder.prefix.clone(), path: relative_to.join(&folder.path) }).collect()
}

/// What a revision is made of: if it is the same, there is nothing to be exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// SHA-256 of the component.
    pub(crate) component_digest: [u8; 32],
    /// SHA-256 of the app component.
    pub(crate) app_digest: [u8; 32],
    /// JSON, the effective path among it.
    pub(crate) settings: String,
    /// Bytes that its databases and objects may hold.
    pub(crate) quota_bytes: Option<u64>,
}

/// The plan of the revision that ran when it was asked for.
pub(crate) struct CurrentPlan(pub(super) Arc<Revision>);

impl Deref for CurrentPlan {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0.plan
    }
}

impl CurrentPlan {
    /// How long the body of a request may be that goes to the component without being admitted first; none: it is to be
    /// admitted.
    pub(crate) fn takes_directly(&self, method: &Method, path: &str, announced_bytes: Option<u64>) -> Option<u64> {
        let direct = self.direct.as_ref()?;
        let fits = announced_bytes.is_some_and(|bytes| bytes <= direct.body_bytes_max);
        (fits && method == Method::POST && direct.paths.iter().any(|direct| direct == path)).then_some(direct.body_bytes_max)
    }
}

/// The closes of the plan, as the host keeps them.
pub(crate) struct HostCloses {
    pub(crate) slow: Close,
    pub(crate) idle: Close,
    pub(crate) too_large: Close,
    pub(crate) failed: Close,
    pub(crate) shutdown: Close,
}

impl From<&Closes> for HostCloses {
    fn from(closes: &Closes) -> Self {
        Self {
            slow: closes.slow.clone().into(),
            idle: closes.idle.clone().into(),
            too_large: closes.too_large.clone().into(),
            failed: closes.failed.clone().into(),
            shutdown: closes.shutdown.clone().into(),
        }
    }
}
