//! The component that Spin serves.

use syncline::runtime::MountSettings;

use super::Kind;

/// Back adapter, services, app and logic with the front that a Spin of this kind takes.
pub fn composed(_kind: Kind, _logic: &[u8], _mounts: &[MountSettings]) -> anyhow::Result<Vec<u8>> {
    anyhow::bail!("the adapters are not part of this version")
}
