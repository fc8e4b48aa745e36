//! What can be said of a configuration without touching anything.

use std::net::SocketAddr;

use super::{Config, ConfigError, ExecutorPlace, ObjectsPlace, log_filter};
use crate::executor::sqlite::Synchronous;

impl Config {
    /// Checks what concerns the host; what concerns a mount's protocol is for [`crate::runtime::Checker`]. Gives
    /// warnings of what is valid but has no effect, or a dangerous one.
    pub fn check(&self) -> Result<Vec<String>, ConfigError> {
        let mut warnings = Vec::new();
        check_address("listen", &self.listen)?;
        for (index, mount) in self.mounts.iter().enumerate() {
            if let Some(listen) = &mount.listen {
                let key = format!("mount[{index}].listen");
                check_address(&key, listen)?;
                if *listen == self.listen {
                    warnings.push(format!("{key}: has no effect: it is the main listener's address"));
                }
            }
            for (key, file) in [("app", &mount.app), ("settings_file", &mount.settings_file)] {
                if let Some(file) = file.as_ref().filter(|file| !file.is_file()) {
                    let message = format!("{} is not a file", file.display());
                    return Err(ConfigError::Value { key: format!("mount[{index}].{key}"), message });
                }
            }
        }
        self.server_settings()?;
        let places = self.places()?;
        log_filter(&self.log.level)
            .map_err(|message| ConfigError::Value { key: "log.level".into(), message: format!("{:?}: {message}", self.log.level) })?;
        let in_memory =
            [("storage.objects", matches!(places.objects, ObjectsPlace::Memory)), ("storage.keyvalue", places.keyvalue.folder.is_none())];
        for (key, in_memory) in in_memory {
            if in_memory {
                warnings.push(format!("{key}: what is in memory is lost at the end, and no backup has it"));
            }
        }
        if self.admin_token.is_none() && !is_loopback(&self.listen) {
            warnings.push("admin_token: there is none, and the main listener is not on loopback: /metrics is open to everybody".into());
        }
        if matches!(places.executor, ExecutorPlace::Sqlite(_, Synchronous::Off)) {
            warnings.push("executor: writes are not synced to disk and may be lost with the machine".into());
        }
        if self.trusted_proxies.iter().any(|proxy| proxy.ends_with("/0")) {
            warnings.push("trusted_proxies: a network of everybody: any client can say that it is another".into());
        }
        if self.mounts.is_empty() {
            warnings.push("mount: there is none, so nothing is served".into());
        }
        Ok(warnings)
    }
}

/// `ADDRESS:PORT`, `[ADDRESS]:PORT` or `NAME:PORT`. Names are not looked up.
fn check_address(key: &str, address: &str) -> Result<(), ConfigError> {
    let named = |(host, port): (&str, &str)| {
        let plain = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
        let (numeric, lettered) = (host.chars().all(|character| character.is_ascii_digit() || character == '.'), host.chars().all(plain));
        !host.is_empty() && lettered && !numeric && port.parse::<u16>().is_ok()
    };
    if address.parse::<SocketAddr>().is_ok() || address.rsplit_once(':').is_some_and(named) {
        return Ok(());
    }
    Err(ConfigError::Value {
        key: key.to_owned(),
        message: format!("{address:?} is not an address with a port, such as 127.0.0.1:8787, [::1]:8787 or localhost:8787"),
    })
}

fn is_loopback(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => address.starts_with("localhost:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for address in ["127.0.0.1:0", "[::1]:80", "localhost:8787", "db-1.example.com:1", "0.0.0.0:65535"] {
            assert!(check_address("listen", address).is_ok(), "{address}");
        }
        for address in
            ["nonsense", "127.0.0.1", ":80", "1.2.3:80", "256.0.0.1:80", "localhost:", "localhost:65536", "::1:80", "http://x:1", "a b:1"]
        {
            assert!(check_address("listen", address).is_err(), "{address}");
        }
    }
}
