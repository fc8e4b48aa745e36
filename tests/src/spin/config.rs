//! The variable `config` of Syncline under Spin.

use serde_json::{Value, json};
use syncline::runtime::MountSettings;

/// What a server of the tests would be started with, as the variable `config`.
pub fn config(mounts: &[MountSettings], executor: Option<&str>, admin_token: Option<&str>) -> Value {
    let mount = |mount: &MountSettings| {
        let mut settings = mount.settings.clone();
        let mut of_mount = json!({"name": mount.name, "protocol": mount.protocol});
        if let Some(path) = settings.remove("path") {
            of_mount["path"] = path;
        }
        if let Some(quota) = mount.quota_bytes {
            of_mount["quota_bytes"] = quota.into();
        }
        of_mount["settings"] = settings.into();
        of_mount
    };
    let mut config = json!({ "mount": mounts.iter().map(mount).collect::<Vec<_>>() });
    if let Some(executor) = executor {
        config["executor"] = executor.into();
    }
    if let Some(token) = admin_token {
        config["admin_token"] = token.into();
    }
    config
}
