//! Exchange of component and settings while sockets stay open.
//!
//! Everything is checked, and every mount that changes has created or migrated what it keeps, before anything is
//! exchanged: a reload that fails changes nothing that clients see. Calls under way end on the code that they began
//! with; the next call of a connection runs on the new one, which finds the attachment that the old one left. An
//! attachment of a format that it does not know makes it close that connection, and the client connects anew.

use std::sync::Arc;

use super::checker::Checked;
use super::{MountCore, MountSettings, Runtime, RuntimeError};

/// What a reload did to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountChange {
    /// It was not there before.
    Added,
    /// It runs other code or settings.
    Changed,
    /// Nothing of it changed.
    Unchanged,
    /// It is gone, and its connections are closed. Its data stays.
    Removed,
}

/// What a reload did: mounts as they are configured now, then those that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Name and change of each mount.
    pub mounts: Vec<(String, MountChange)>,
}

impl std::fmt::Display for Reloaded {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, change)) in self.mounts.iter().enumerate() {
            let change = match change {
                MountChange::Added => "added",
                MountChange::Changed => "changed",
                MountChange::Unchanged => "unchanged",
                MountChange::Removed => "removed",
            };
            write!(formatter, "{}{name} {change}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// What is to be done once nothing can go wrong any more.
enum Prepared {
    Keep(Arc<MountCore>),
    Add(Arc<MountCore>),
    Exchange(Arc<MountCore>, Arc<super::revision::Revision>),
}

impl Runtime {
    /// Exchanges component and mounts for others. On an error everything goes on as it was. Listeners are the server's:
    /// see [`crate::server::ServerHandle::reload`], which also brings its routes up to date.
    pub async fn reload(&self, component: &[u8], mounts: &[MountSettings]) -> Result<Reloaded, RuntimeError> {
        let mut current = self.checker.lock().await;
        let checker = current.as_ref().ok_or(RuntimeError::Elsewhere)?.with_component(component)?;
        let checked = checker.check_all(mounts).await?;
        for mount in mounts {
            let Some(core) = self.mount(&mount.name) else { continue };
            // Data belongs to a name: another protocol would not understand it.
            let what = if core.protocol != mount.protocol { Some("`protocol`") } else { None };
            let what = what.or(if core.listen != mount.listen { Some("`listen`") } else { None });
            if let Some(what) = what {
                return Err(RuntimeError::NeedsRestart { mount: mount.name.clone(), what });
            }
        }
        let mut prepared = Vec::with_capacity(mounts.len());
        for (mount, checked) in mounts.iter().zip(checked) {
            prepared.push(self.prepare(mount, checked).await?);
        }
        let reloaded = self.exchange(prepared).await;
        *current = Some(checker);
        Ok(reloaded)
    }

    async fn prepare(&self, mount: &MountSettings, checked: Checked) -> Result<Prepared, RuntimeError> {
        let Some(core) = self.mount(&mount.name) else { return Ok(Prepared::Add(self.add(mount, checked).await?)) };
        let revision = core.revision();
        if revision.identity == *checked.identity() {
            return Ok(Prepared::Keep(core));
        }
        core.documents.fetch_new(&checked.plan.documents).await;
        let next = checked.into_revision(core.next_revision_number(), self.quota_of(mount).await?, &core.documents);
        core.start(&next).await.map_err(|reason| RuntimeError::Start { mount: mount.name.clone(), reason })?;
        Ok(Prepared::Exchange(core, next))
    }

    async fn exchange(&self, prepared: Vec<Prepared>) -> Reloaded {
        let (mut mounts, mut reloaded) = (Vec::new(), Reloaded::default());
        for step in prepared {
            let (core, change) = match step {
                Prepared::Keep(core) => (core, MountChange::Unchanged),
                Prepared::Add(core) => (core, MountChange::Added),
                Prepared::Exchange(core, revision) => {
                    core.exchange(revision);
                    core.keep_posting();
                    // What was fetched since it was prepared.
                    core.hand_over_documents().await;
                    (core, MountChange::Changed)
                }
            };
            reloaded.mounts.push((core.name.clone(), change));
            mounts.push(core);
        }
        let before = std::mem::replace(&mut *self.mounts.write(), mounts.clone());
        let mut stopping = tokio::task::JoinSet::new();
        for gone in before.into_iter().filter(|before| !mounts.iter().any(|mount| Arc::ptr_eq(mount, before))) {
            reloaded.mounts.push((gone.name.clone(), MountChange::Removed));
            let drain = self.settings.drain;
            stopping.spawn(async move { gone.stop(drain).await });
        }
        self.jobs.look_again();
        stopping.join_all().await;
        reloaded
    }
}
