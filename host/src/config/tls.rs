//! Which listener has which certificate.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Config, ConfigError};
use crate::server::tls::TlsFiles;

impl Config {
    /// Certificates by listener; mounts that share one must agree.
    pub(super) fn tls_by_listener(&self) -> Result<BTreeMap<String, TlsFiles>, ConfigError> {
        let mut by_listener = BTreeMap::from([(self.listen.as_str(), self.tls.as_ref())]);
        for (index, mount) in self.mounts.iter().enumerate() {
            let problem = |message: String| Err(ConfigError::Value { key: format!("mount[{index}].tls"), message });
            let own = mount.listen.as_deref().filter(|listen| *listen != self.listen);
            match (own, mount.tls.as_ref()) {
                (None, None) => {}
                (None, Some(tls)) if self.tls.as_ref() == Some(tls) => {}
                (None, Some(_)) => return problem("is for a mount with a `listen` of its own; the main listener has [tls]".into()),
                (Some(listen), tls) => match by_listener.entry(listen) {
                    Entry::Vacant(free) => drop(free.insert(tls)),
                    Entry::Occupied(taken) if *taken.get() == tls => {}
                    Entry::Occupied(_) => return problem(format!("another mount says something else for the same listener {listen}")),
                },
            }
        }
        Ok(by_listener.into_iter().filter_map(|(listen, tls)| Some((listen.to_owned(), tls?.clone()))).collect())
    }

    /// Whether a listener has another certificate file in another configuration, or none any more. One that is not there
    /// any more, or is new, is no difference.
    pub(super) fn tls_differs(&self, other: &Config) -> bool {
        let listeners = |config: &Config| -> BTreeMap<String, Option<TlsFiles>> {
            let of_mounts = config.mounts.iter().filter_map(|mount| Some((mount.listen.clone()?, mount.tls.clone())));
            of_mounts.chain([(config.listen.clone(), config.tls.clone())]).collect()
        };
        let before = listeners(self);
        listeners(other).iter().any(|(listen, tls)| before.get(listen).is_some_and(|before| before != tls))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn mounts_that_share_a_listener_have_the_same_certificate() {
        let settings = |text: &str| Config::parse(text, Path::new("a.toml")).unwrap().server_settings();
        let main = "listen = \"h:1\"\ntls = { certificate = \"a\", key = \"b\" }\n";
        let mount = |listen: &str, certificate: &str| {
            let listen = if listen.is_empty() { String::new() } else { format!("listen = \"{listen}\"\n") };
            let tls =
                if certificate.is_empty() { String::new() } else { format!("tls = {{ certificate = \"{certificate}\", key = \"b\" }}\n") };
            format!("[[mount]]\nprotocol = \"p\"\n{listen}{tls}")
        };
        let listeners = |mounts: &[String]| {
            settings(&format!("{main}{}", mounts.concat())).map(|settings| settings.tls.into_keys().collect::<Vec<_>>())
        };
        assert_eq!(listeners(&[mount("", ""), mount("h:1", ""), mount("h:1", "a")]).unwrap(), ["h:1"]);
        assert_eq!(listeners(&[mount("h:2", ""), mount("h:3", "c"), mount("h:3", "c")]).unwrap(), ["h:1", "h:3"]);
        for mounts in [[mount("", "c"), mount("", "")], [mount("h:1", "c"), mount("", "")], [mount("h:2", "c"), mount("h:2", "")]] {
            let message = listeners(&mounts).unwrap_err().to_string();
            assert!(message.starts_with("mount[") && message.contains("].tls: "), "{message}");
        }
    }

    #[test]
    fn another_file_needs_a_restart_and_another_mount_does_not() {
        let config = |text: &str| Config::parse(text, Path::new("a.toml")).unwrap();
        let mount = |listen: &str, certificate: &str| {
            format!("[[mount]]\nprotocol = \"p\"\nlisten = \"{listen}\"\ntls = {{ certificate = \"{certificate}\", key = \"b\" }}\n")
        };
        let running = config(&format!("{}{}", mount("h:2", "c"), mount("h:3", "c")));
        for (text, differs) in [
            (mount("h:2", "c"), false),
            (format!("{}{}", mount("h:2", "c"), mount("h:2", "c")), false),
            (mount("h:2", "d"), true),
            ("[[mount]]\nprotocol = \"p\"\nlisten = \"h:2\"\n".into(), true),
            ("tls = { certificate = \"c\", key = \"b\" }\n".into(), true),
        ] {
            assert_eq!(running.tls_differs(&config(&text)), differs, "{text}");
        }
    }
}
