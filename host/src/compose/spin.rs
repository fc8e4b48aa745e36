//! Composition for Spin: everything becomes one component that imports what Spin has, and exports one handler of HTTP requests.
//!
//! ```text
//! back adapter → services → app → logic → front adapter
//! ```
//!
//! Each part gets what it imports from the nearest part before it that exports it.

use sha2::{Digest as _, Sha256};
use wac_graph::{EncodeOptions, NodeId};

use super::{ComposeError, Parts, causes, check_app};
use crate::runtime::{EMPTY_APP_COMPONENT, GUEST_COMPONENT, SERVICES_COMPONENT};

mod strip;

/// The back adapter: what outlives a request.
const BACK: &[u8] = include_bytes!(env!("SYNCLINE_SPIN_BACK"));
/// The front adapter with `wasi:http/incoming-handler@0.2.0`.
const PORTABLE_FRONT: &[u8] = include_bytes!(env!("SYNCLINE_SPIN_PORTABLE"));
/// The front adapter with `wasi:http/handler@0.3.0`.
const SERVICE_FRONT: &[u8] = include_bytes!(env!("SYNCLINE_SPIN_SERVICE"));

/// Stands in the front adapters where a digest of all parts belongs: with it mounts notice that they run something else than before.
const PARTS_DIGEST: &[u8; 64] = b"syncline-digest-of-all-composed-parts-is-written-here-by-compose";

/// For which Spin something is composed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// Spin 4.1 and later: instances serve several requests each.
    Service,
    /// Spin 2.7 and later, and hosted services: an instance for every request.
    Portable,
}

impl Spin {
    fn front(self) -> &'static [u8] {
        match self {
            Self::Service => SERVICE_FRONT,
            Self::Portable => PORTABLE_FRONT,
        }
    }

    /// What the whole exports.
    pub fn handler(self) -> &'static str {
        match self {
            Self::Service => "wasi:http/handler@0.3.0",
            Self::Portable => "wasi:http/incoming-handler@0.2.0",
        }
    }
}

/// Adapters, services, an app (none: the empty one) and the logic as one component for Spin.
pub fn for_spin(app: Option<&[u8]>, spin: Spin) -> Result<Vec<u8>, ComposeError> {
    if let Some(app) = app {
        check_app(app)?;
    }
    let app = app.unwrap_or(EMPTY_APP_COMPONENT);
    // A component between app and logic stands between theirs.
    let inner = [("back", BACK), ("services", SERVICES_COMPONENT), ("app", app), ("logic", GUEST_COMPONENT)];
    let front = with_digest(spin.front(), inner.iter().map(|(_, component)| *component))?;
    let mut chain = Chain::default();
    for (name, component) in inner {
        chain.add(name, component)?;
    }
    chain.add("front", &front)?;
    let composed = chain.export(spin.handler())?;
    strip::names(&composed).ok_or_else(|| ComposeError::Shape("what was composed cannot be taken apart again".into()))
}

/// The front with a digest of what it is composed with.
fn with_digest<'a>(front: &'a [u8], parts: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, ComposeError> {
    let mut digest = Sha256::new();
    for part in parts.chain([front]) {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let text: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let places: Vec<usize> =
        front.windows(PARTS_DIGEST.len()).enumerate().filter(|(_, window)| *window == PARTS_DIGEST).map(|(place, _)| place).collect();
    let [place] = places.as_slice() else {
        return Err(ComposeError::Shape(format!("the front adapter has {} places for the digest of the parts", places.len())));
    };
    let mut front = front.to_vec();
    front[*place..*place + PARTS_DIGEST.len()].copy_from_slice(text.as_bytes());
    Ok(front)
}

/// Parts, each standing on those before it.
#[derive(Default)]
struct Chain {
    parts: Parts,
    instances: Vec<Instance>,
}

struct Instance {
    node: NodeId,
    exports: Vec<String>,
}

impl Chain {
    fn add(&mut self, name: &str, component: &[u8]) -> Result<(), ComposeError> {
        let shape = |error: &dyn std::error::Error| ComposeError::Shape(format!("{name}: {}", causes(error)));
        let package = self.parts.add(&format!("syncline:{name}"), component)?;
        let imports = self.parts.imports(package);
        let exports = self.parts.all_exports(package);
        let node = self.parts.graph.instantiate(package);
        for import in imports {
            let Some(source) =
                self.instances.iter().rev().find(|instance| instance.exports.contains(&import)).map(|instance| instance.node)
            else {
                continue;
            };
            let alias = self.parts.graph.alias_instance_export(source, &import).map_err(|error| shape(&error))?;
            self.parts.graph.set_instantiation_argument(node, &import, alias).map_err(|error| shape(&error))?;
        }
        self.instances.push(Instance { node, exports });
        Ok(())
    }

    /// The whole, of which only one export of the last part is seen.
    fn export(mut self, name: &str) -> Result<Vec<u8>, ComposeError> {
        let shape = |error: &dyn std::error::Error| ComposeError::Shape(causes(error));
        let Some(last) = self.instances.last() else { return Err(ComposeError::Shape("nothing to compose".into())) };
        let graph = &mut self.parts.graph;
        let handler = graph.alias_instance_export(last.node, name).map_err(|error| shape(&error))?;
        graph.export(handler, name).map_err(|error| shape(&error))?;
        graph.encode(EncodeOptions::default()).map_err(|error| shape(&error))
    }
}
