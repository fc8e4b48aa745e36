//! What can be asked of a running server from elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::{ServerError, Shared, routes_on, set_budgets};
use crate::runtime::{MountSettings, Reloaded, Runtime, RuntimeError};

/// A listener of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// Where it listens, as a URL without a path.
    pub url: String,
    /// The mounts that it serves.
    pub mounts: Vec<String>,
}

/// A server, for whoever does not own it.
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) runtime: Arc<Runtime>,
    pub(super) listeners: Arc<Vec<Listener>>,
}

/// A listener with what its connections share.
pub(super) struct Listener {
    /// As configured.
    pub(super) listen: String,
    pub(super) address: SocketAddr,
    pub(super) shared: Arc<Shared>,
}

impl ServerHandle {
    /// The listeners and what they serve now, the main one first.
    pub fn listeners(&self) -> Vec<Listening> {
        let mounts = self.runtime.mounts();
        let listening = |listener: &Listener| Listening {
            url: format!("{}://{}", if listener.shared.tls.is_some() { "https" } else { "http" }, listener.address),
            mounts: mounts.iter().filter(|mount| mount.listen == listener.listen).map(|mount| mount.name.clone()).collect(),
        };
        self.listeners.iter().map(listening).collect()
    }

    /// The run time behind it.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Exchanges component and mounts while sockets stay open. On an error everything goes on as it was. Listeners stay
    /// as they are: a mount on another one needs a restart.
    pub async fn reload(&self, component: &[u8], mounts: &[MountSettings]) -> Result<Reloaded, RuntimeError> {
        if let Some(mount) = mounts.iter().find(|mount| !self.listeners.iter().any(|listener| listener.listen == mount.listen)) {
            return Err(RuntimeError::NeedsRestart { mount: mount.name.clone(), what: "`listen`" });
        }
        let reloaded = self.runtime.reload(component, mounts).await?;
        self.renew_routes();
        Ok(reloaded)
    }

    /// Other mounts are there now.
    pub(crate) fn renew_routes(&self) {
        for listener in self.listeners.iter() {
            set_budgets(&self.runtime, &listener.shared.limiter.limits);
            *listener.shared.routes.write() = routes_on(&listener.listen, &self.runtime);
        }
    }

    /// Reads all certificates anew from their files. If one of them cannot be used, nothing comes of it.
    pub fn read_certificates(&self) -> Result<Certificates, ServerError> {
        let mut read = Vec::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            if let Some(tls) = &listener.shared.tls {
                let certificate = tls.read().map_err(|error| ServerError::Tls { address: listener.listen.clone(), error })?;
                read.push((index, certificate));
            }
        }
        Ok(Certificates { listeners: self.listeners.clone(), read })
    }

    /// Reads all certificates anew and exchanges them; on an error all stay as they are.
    pub fn reload_certificates(&self) -> Result<(), ServerError> {
        self.read_certificates().map(Certificates::exchange)
    }
}

/// Certificates as their files hold them now.
pub struct Certificates {
    listeners: Arc<Vec<Listener>>,
    /// By the index of their listener.
    read: Vec<(usize, CertifiedKey)>,
}

impl Certificates {
    /// Gives them to new connections; those that are open go on.
    pub fn exchange(self) {
        for (index, certificate) in self.read {
            if let Some(tls) = self.listeners.get(index).and_then(|listener| listener.shared.tls.as_ref()) {
                tls.exchange(certificate);
            }
        }
    }
}
