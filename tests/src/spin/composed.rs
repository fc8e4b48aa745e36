//! The component that Spin serves.

use syncline::compose::{Spin, for_spin};
use syncline::runtime::{GUEST_COMPONENT, MountSettings};

use super::{Kind, version};

/// The version of Spin that knows the final `wasi:http/handler@0.3.0`.
const SERVICES_SINCE: (u32, u32) = (4, 1);

/// Back adapter, services, the mounts' app and the logic with the front that a Spin of this kind takes.
///
/// # Errors
/// Another logic than the built-in one, or more than one app.
pub fn composed(kind: Kind, logic: &[u8], mounts: &[MountSettings]) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(logic == GUEST_COMPONENT, "only the built-in logic is composed for Spin");
    let mut apps: Vec<_> = mounts.iter().filter_map(|mount| mount.app.as_ref()).collect();
    apps.dedup();
    anyhow::ensure!(apps.len() <= 1, "what is composed has one app at most");
    let app = apps.first().map(std::fs::read).transpose()?;
    let front = match kind {
        Kind::Up if version().is_some_and(|version| version >= SERVICES_SINCE) => Spin::Service,
        Kind::Up | Kind::Fake => Spin::Portable,
    };
    Ok(for_spin(app.as_deref(), front)?)
}
