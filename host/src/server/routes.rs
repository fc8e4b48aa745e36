//! Which mount answers a path: the longest route that fits wins.

use std::sync::Arc;

use crate::runtime::MountCore;
use crate::runtime::plans::RouteKind;

/// The routes of one listener.
#[derive(Default)]
pub(crate) struct Routes {
    routes: Vec<Route>,
}

struct Route {
    path: String,
    prefix: bool,
    kind: RouteKind,
    mount: Arc<MountCore>,
}

/// What a path leads to.
pub(crate) struct Found<'a> {
    pub(crate) mount: &'a Arc<MountCore>,
    pub(crate) takes_requests: bool,
    pub(crate) takes_upgrades: bool,
}

impl Routes {
    /// Adds the routes of a mount's plan.
    pub(crate) fn add(&mut self, mount: &Arc<MountCore>) {
        for route in &mount.plan().routes {
            let path = route.path.trim_end_matches('/').to_owned();
            self.routes.push(Route { path, prefix: route.prefix, kind: route.kind, mount: mount.clone() });
        }
        self.routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
    }

    /// The mount of a path as received. Escapes in it are undone for the comparison only.
    pub(crate) fn find(&self, raw_path: &str) -> Option<Found<'_>> {
        let fits = |route: &&Route| {
            let path = unescape_start(raw_path, route.path.len());
            match path.strip_prefix(route.path.as_str()) {
                Some("") | Some("/") => true,
                Some(rest) => route.prefix && rest.starts_with('/'),
                None => false,
            }
        };
        self.routes.iter().find(fits).map(|route| Found {
            mount: &route.mount,
            takes_requests: matches!(route.kind, RouteKind::Http | RouteKind::Both),
            takes_upgrades: matches!(route.kind, RouteKind::Socket | RouteKind::Both),
        })
    }
}

/// Undoes escapes of unreserved characters (`%73` for `s`) in the first bytes of a path; the rest stays as it is.
fn unescape_start(raw: &str, decoded_bytes: usize) -> std::borrow::Cow<'_, str> {
    let bytes = raw.as_bytes();
    if !bytes.iter().take(decoded_bytes.saturating_mul(3)).any(|byte| *byte == b'%') {
        return raw.into();
    }
    let (mut decoded, mut index) = (String::with_capacity(raw.len()), 0);
    while decoded.len() < decoded_bytes && index < bytes.len() {
        let escape = raw.get(index + 1..index + 3).filter(|_| bytes[index] == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escape {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                decoded.push(char::from(byte));
                index += 3;
            }
            _ => {
                let Some(character) = raw.get(index..).and_then(|rest| rest.chars().next()) else { break };
                decoded.push(character);
                index += character.len_utf8();
            }
        }
    }
    decoded.push_str(raw.get(index..).unwrap_or_default());
    decoded.into()
}

#[cfg(test)]
mod tests {
    use super::unescape_start;

    #[test]
    fn only_the_start_of_a_path_is_unescaped() {
        assert_eq!(unescape_start("/secsync/a%2Fb", 8), "/secsync/a%2Fb");
        assert_eq!(unescape_start("/%73ecsync/%61", 8), "/secsync/%61");
        assert_eq!(unescape_start("/%", 8), "/%");
        assert_eq!(unescape_start("/%2", 8), "/%2");
        assert_eq!(unescape_start("/é%7", 8), "/é%7");
    }
}
