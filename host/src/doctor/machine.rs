//! What the machine gives.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::config::Config;
use crate::control::Status;
use crate::executor::sqlite::backup::find_databases;

/// With less free space a server soon stops.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// With less free space somebody should look.
const FREE_BYTES_ENOUGH: u64 = 1 << 30;
/// A socket needs one each.
const FILES_ENOUGH: u64 = 4096;
/// Clocks of file systems may differ by this much.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);
/// 2025-01-01: nothing was written with this program before.
const CLOCK_EARLIEST: Duration = Duration::from_secs(1_735_689_600);

/// Space on the disk of a folder, or of the folder above that there is.
pub(super) fn free_space(folder: &Path) -> Check {
    let subject = "free space";
    let there = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let there: PathBuf = there.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned();
    let space = match rustix::fs::statvfs(&there) {
        Ok(space) => space,
        Err(error) => return Check::failed(subject, format!("{}: {error}", there.display())),
    };
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    let finding = format!("{} MiB at {}", free_bytes >> 20, there.display());
    match free_bytes {
        0..FREE_BYTES_MIN => Check::failed(subject, format!("{finding}: make room, or nothing can be saved")),
        FREE_BYTES_MIN..FREE_BYTES_ENOUGH => Check::warning(subject, format!("{finding}: make room soon")),
        _ => Check::ok(subject, finding),
    }
}

/// How many files and sockets a process may have open.
pub(super) fn file_descriptors() -> Check {
    let subject = "file descriptors";
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < FILES_ENOUGH => {
            Check::warning(subject, format!("a process may open {limit}, and each client takes one: raise it (ulimit -n, LimitNOFILE=)"))
        }
        Some(limit) => Check::ok(subject, format!("a process may open {limit}")),
        None => Check::ok(subject, "no limit"),
    }
}

/// The clock is not behind what was written before.
pub(super) fn clock(databases: &Path) -> Check {
    let subject = "clock";
    let now = SystemTime::now();
    if now < SystemTime::UNIX_EPOCH + CLOCK_EARLIEST {
        return Check::failed(subject, "it stands before 2025: set it (NTP)");
    }
    let files = find_databases(databases).unwrap_or_default();
    let written = files.iter().filter_map(|file| std::fs::metadata(databases.join(file)).and_then(|metadata| metadata.modified()).ok());
    match written.max().and_then(|last| last.duration_since(now).ok()) {
        Some(ahead) if ahead > CLOCK_TOLERANCE => {
            Check::failed(subject, format!("data was written {} s in the future: set the clock (NTP)", ahead.as_secs()))
        }
        _ => Check::ok(subject, "not behind the data"),
    }
}

/// Every configured address can be listened on, or the server does already.
pub(super) async fn listeners(config: &Config, status: Option<&Status>) -> Vec<Check> {
    let mut addresses: Vec<&str> = vec![&config.listen];
    for listen in config.mounts.iter().filter_map(|mount| mount.listen.as_deref()) {
        if !addresses.contains(&listen) {
            addresses.push(listen);
        }
    }
    let mut checks = Vec::new();
    for address in addresses {
        checks.push(listener(address, status).await);
    }
    checks
}

async fn listener(address: &str, status: Option<&Status>) -> Check {
    let subject = format!("listener {address}");
    let listening: Vec<_> = status.into_iter().flat_map(|status| &status.listeners).map(|listener| listener.url.as_str()).collect();
    let resolved: Vec<_> = match tokio::net::lookup_host(address).await {
        Ok(resolved) => resolved.collect(),
        Err(error) => return Check::failed(subject, format!("{error}: is the name right?")),
    };
    let ours =
        resolved.iter().any(|address| listening.iter().any(|url| url.split_once("://").is_some_and(|(_, at)| at == address.to_string())));
    if ours {
        return Check::ok(subject, "the server listens there");
    }
    match crate::server::bind(address).await {
        Ok(_) if status.is_some() && resolved.iter().all(|address| address.port() != 0) => {
            Check::warning(subject, "free, although a server runs on this data folder: it was started with another configuration")
        }
        Ok(_) => Check::ok(subject, "free"),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            Check::failed(subject, "another program listens there: stop it, or choose another address in `listen`")
        }
        Err(error) => Check::failed(subject, format!("{error}: is it an address of this machine?")),
    }
}
