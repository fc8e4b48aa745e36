//! Composition of components: services, an app and the logic become one.
//!
//! An app sees no SQL and no sockets: it acts through interfaces of `syncline:app` that the services component implements
//! over the same engines as the logic. This host composes the two in memory, and runs them beside the logic. For hosts
//! that cannot do that, [`whole`] composes all three ahead of time into one component that imports nothing but the
//! contract and WASI; [`for_spin`] adds the adapters that stand in for a host under Spin.

use std::borrow::Cow;

use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions, PackageId, plug};

mod spin;

pub use spin::{Spin, for_spin};

use crate::runtime::{EMPTY_APP_COMPONENT, GUEST_COMPONENT, SERVICES_COMPONENT};

/// What an app exports.
const APP: &str = "syncline:app/app@0.1.0";

/// Why components do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// Not a component at all.
    #[error("it is not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// It lacks what makes it an app.
    #[error("it does not export {APP}, so it is no app")]
    NoApp,
    /// It imports what an app does not get.
    #[error("it imports {0}, which is not for apps: they get the interfaces of syncline:app that services offer, and WASI")]
    Import(String),
    /// Its imports or exports are of another shape than those of this version.
    #[error("it does not fit: {0}")]
    Shape(String),
}

/// Components to be put together.
#[derive(Default)]
struct Parts {
    graph: CompositionGraph,
}

impl Parts {
    fn add(&mut self, name: &str, component: &[u8]) -> Result<PackageId, ComposeError> {
        let package = Package::from_bytes(name, None, component, self.graph.types_mut());
        let package = package.map_err(|error| ComposeError::NotAComponent(format!("{error:#}")))?;
        self.graph.register_package(package).map_err(|error| ComposeError::Shape(error.to_string()))
    }

    fn imports(&self, package: PackageId) -> Vec<String> {
        self.graph.types()[self.graph[package].ty()].imports.keys().cloned().collect()
    }

    fn all_exports(&self, package: PackageId) -> Vec<String> {
        self.graph.types()[self.graph[package].ty()].exports.keys().cloned().collect()
    }

    fn exports(&self, package: PackageId, name: &str) -> bool {
        self.graph.types()[self.graph[package].ty()].exports.contains_key(name)
    }

    /// One component: what `socket` imports comes from `filling` as far as that exports it.
    fn plug(mut self, filling: PackageId, socket: PackageId) -> Result<Vec<u8>, ComposeError> {
        plug(&mut self.graph, vec![filling], socket).map_err(|error| ComposeError::Shape(causes(&error)))?;
        self.graph.encode(EncodeOptions::default()).map_err(|error| ComposeError::Shape(causes(&error)))
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// An app with the services that it imports; as it is where it imports none.
pub fn with_services(app: &[u8]) -> Result<Cow<'_, [u8]>, ComposeError> {
    let (parts, services, socket) = checked(app)?;
    if parts.imports(socket).iter().all(|import| import.starts_with("wasi:")) {
        return Ok(Cow::Borrowed(app));
    }
    parts.plug(services, socket).map(Cow::Owned)
}

/// Whether a component is an app, and imports nothing that apps do not get.
fn check_app(app: &[u8]) -> Result<(), ComposeError> {
    checked(app).map(drop)
}

/// Services and an app that is one.
fn checked(app: &[u8]) -> Result<(Parts, PackageId, PackageId), ComposeError> {
    let mut parts = Parts::default();
    let socket = parts.add("app", app)?;
    let services = parts.add("services", SERVICES_COMPONENT)?;
    if !parts.exports(socket, APP) {
        return Err(ComposeError::NoApp);
    }
    let imports = parts.imports(socket);
    if let Some(import) = imports.iter().find(|import| !import.starts_with("wasi:") && !parts.exports(services, import)) {
        return Err(ComposeError::Import(import.clone()));
    }
    Ok((parts, services, socket))
}

/// Services, an app (none: the empty one) and the logic as one component.
pub fn whole(app: Option<&[u8]>) -> Result<Vec<u8>, ComposeError> {
    let app = with_services(app.unwrap_or(EMPTY_APP_COMPONENT))?;
    let mut parts = Parts::default();
    let filling = parts.add("app", &app)?;
    let socket = parts.add("logic", GUEST_COMPONENT)?;
    parts.plug(filling, socket)
}
