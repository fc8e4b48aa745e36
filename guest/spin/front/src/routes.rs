//! Which mount answers a path: the longest route that fits wins.

use std::borrow::Cow;
use std::rc::Rc;

use crate::bindings::syncline::sync::mounts::RouteKind;
use crate::mount::Mount;

/// The routes of a deployment.
#[derive(Default)]
pub(crate) struct Routes {
    routes: Vec<Route>,
}

struct Route {
    path: String,
    prefix: bool,
    kind: RouteKind,
    mount: Rc<Mount>,
}

/// What a path leads to.
pub(crate) struct Found {
    pub(crate) mount: Rc<Mount>,
    /// Whether it takes plain requests.
    pub(crate) takes_requests: bool,
}

/// Two mounts want the same route.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("mounts {first:?} and {second:?} both want {path:?}")]
pub(crate) struct Conflict {
    first: String,
    second: String,
    path: String,
}

impl Routes {
    /// Adds the routes of a mount's plan.
    pub(crate) fn add(&mut self, mount: &Rc<Mount>) -> Result<(), Conflict> {
        for route in &mount.plan.routes {
            let path = route.path.trim_end_matches('/').to_owned();
            if let Some(other) = self.routes.iter().find(|other| other.path == path && other.mount.name != mount.name) {
                return Err(Conflict { first: other.mount.name.clone(), second: mount.name.clone(), path });
            }
            self.routes.push(Route { path, prefix: route.prefix, kind: route.kind, mount: mount.clone() });
        }
        self.routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        Ok(())
    }

    /// The mount of a path as received. Escapes in it are undone for the comparison only.
    pub(crate) fn find(&self, raw_path: &str) -> Option<Found> {
        let fits = |route: &&Route| {
            let path = unescape_start(raw_path, route.path.len());
            match path.strip_prefix(route.path.as_str()) {
                Some("") | Some("/") => true,
                Some(rest) => route.prefix && rest.starts_with('/'),
                None => false,
            }
        };
        self.routes.iter().find(fits).map(|route| Found { mount: route.mount.clone(), takes_requests: route.kind != RouteKind::Socket })
    }
}

/// Undoes escapes of unreserved characters (`%73` for `s`) in the first bytes of a path; the rest stays as it is.
fn unescape_start(raw: &str, decoded_bytes: usize) -> Cow<'_, str> {
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
