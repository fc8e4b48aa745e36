//! What can be seen of a run time from outside: the load of its mounts, as metrics and as a status.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{MountCore, OWN_NAME, Runtime};
use crate::metrics::Load;

/// How long a look at the sizes of databases may take; then the last known ones stay.
const SIZES_MAX: Duration = Duration::from_secs(1);

/// A mount as `syncline status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountStatus {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: String,
    /// Connections that are open.
    pub connections: u64,
}

impl MountCore {
    fn load(&self) -> Load {
        let (instances_busy, instances_idle) = self.pool.counts();
        let (backlog_pieces, backlog_bytes) = self.backlog.size();
        let (gate_calls, waiting_bytes) = (self.gate.lock().calls_count(), self.budget.used());
        Load { instances_busy, instances_idle, gate_calls, backlog_pieces, backlog_bytes, waiting_bytes }
    }
}

impl Runtime {
    /// The mounts and their connections.
    pub fn status(&self) -> Vec<MountStatus> {
        let status = |mount: &std::sync::Arc<MountCore>| MountStatus {
            name: mount.name.clone(),
            protocol: mount.protocol.clone(),
            connections: u64::try_from(mount.connection_count()).unwrap_or(u64::MAX),
        };
        self.mounts().iter().map(status).collect()
    }

    /// All metrics, in the text format of Prometheus.
    pub async fn metrics_text(&self) -> Result<String, prometheus::Error> {
        let mounts = self.mounts();
        for mount in &mounts {
            self.metrics.load(&mount.name, &mount.load());
            self.metrics.usage(&mount.name, self.backends.executor.usage(&mount.name));
            let (bytes_max, used_bytes) = mount.quota().map_or((0, 0), |quota| (quota.bytes_max(), quota.used_bytes()));
            self.metrics.quota(&mount.name, bytes_max, used_bytes);
        }
        let names = mounts.iter().map(|mount| mount.name.as_str()).chain([OWN_NAME]);
        let sizes = async {
            for name in names {
                match self.backends.executor.size_bytes(name).await {
                    Ok(Some(size_bytes)) => self.metrics.database_size(name, size_bytes),
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, mount = name, "the size of its databases cannot be said"),
                }
            }
        };
        if timeout(SIZES_MAX, sizes).await.is_err() {
            tracing::debug!("the sizes of databases took too long to be looked at");
        }
        self.metrics.render()
    }
}
