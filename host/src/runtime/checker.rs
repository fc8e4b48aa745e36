//! From a component and settings to what can run: compiled code, plans, apps.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use wasmtime::Store;

use super::bindings::guest::GuestPre;
use super::documents::Documents;
use super::engine::RuntimeEngine;
use super::imports::app::{App, AppLimits};
use super::limits;
use super::plans::Plan;
use super::quota::Quota;
use super::revision::{self, Code, HostCloses, Identity, Revision};
use super::state::{State, bound};
use super::{EMPTY_APP_COMPONENT, MountSettings, OWN_NAME, RuntimeError, RuntimeSettings};
use crate::compose;
use crate::config::message::without_value;

/// Time to check the settings of one mount.
const CHECK_DEADLINE: Duration = Duration::from_secs(5);

/// Checks settings of mounts without touching anything.
pub struct Checker {
    engine: Arc<RuntimeEngine>,
    pre: GuestPre<State>,
    component_digest: [u8; 32],
    settings: RuntimeSettings,
}

/// What a mount is, for whoever configures it.
#[derive(Clone, Debug)]
pub struct MountDescription {
    /// Name, protocol, routes and listener on one line.
    pub line: String,
    /// Settings that have no effect, or a dangerous one.
    pub warnings: Vec<String>,
}

/// A mount whose settings are valid.
pub(super) struct Checked {
    pub(super) plan: Plan,
    app: Arc<App>,
    pre: GuestPre<State>,
    identity: Identity,
    /// Folders whose files it is to read, and that are not there.
    missing_folders: Vec<PathBuf>,
}

impl Checked {
    /// Ready to run, under a number.
    pub(super) fn into_revision(self, number: u64, quota: Option<Arc<Quota>>, documents: &Documents) -> Arc<Revision> {
        let closes = Arc::new(HostCloses::from(&self.plan.closes));
        let documents = documents.of(&self.plan.documents);
        let code = Code::Component { app: self.app, pre: self.pre };
        Arc::new(Revision { number, plan: self.plan, closes, code, quota, documents, identity: self.identity })
    }

    /// Settings that have no effect, or a dangerous one.
    pub(super) fn warnings(&self, mount: &str) -> impl Iterator<Item = String> {
        let missing = |path: &PathBuf| format!("the folder {} is not there, so none of its files is found", path.display());
        let warnings = self.plan.warnings.iter().cloned().chain(self.missing_folders.iter().map(missing));
        warnings.map(move |warning| format!("mount {mount:?}: {warning}"))
    }

    /// What it is made of.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl Checker {
    /// Compiles a component.
    pub fn new(component: &[u8], settings: RuntimeSettings) -> Result<Self, RuntimeError> {
        let engine = Arc::new(RuntimeEngine::new(&settings.engine, settings.cache.as_deref())?);
        Self::on(engine, component, settings)
    }

    /// Another component on the same engine.
    pub(super) fn with_component(&self, component: &[u8]) -> Result<Self, RuntimeError> {
        Self::on(self.engine.clone(), component, self.settings.clone())
    }

    fn on(engine: Arc<RuntimeEngine>, component: &[u8], settings: RuntimeSettings) -> Result<Self, RuntimeError> {
        let pre = engine.prepare_guest(&engine.compile(component)?)?;
        Ok(Self { engine, pre, component_digest: Sha256::digest(component).into(), settings })
    }

    /// The plan of a mount, or what is wrong with its settings.
    async fn check(&self, mount: &MountSettings) -> Result<Checked, RuntimeError> {
        let mut store =
            Store::new(self.pre.engine(), State::unbound(&self.settings.environment, self.settings.engine.instance_memory_bytes));
        bound(&mut store, limits::TRANSFER_BYTES_MAX);
        store.data_mut().deadline = Instant::now() + CHECK_DEADLINE;
        let guest = self.pre.instantiate_async(&mut store).await.map_err(RuntimeError::component)?;
        let mut settings = mount.settings.clone();
        settings.insert("listen".into(), mount.listen.clone().into());
        let settings = serde_json::Value::Object(settings).to_string();
        let checked = guest.syncline_sync_mounts().call_check(&mut store, &mount.protocol, &settings).await;
        let fell = |error: wasmtime::Error| {
            let reason = format!("check: {}", limits::loggable(&error.root_cause().to_string()));
            RuntimeError::Start { mount: mount.name.clone(), reason }
        };
        let plan = limits::within_limits(checked.map_err(fell)?.map_err(|problems| refused(mount, &problems))?);
        let (app, app_digest) = self.app(mount, &plan)?;
        let identity = Identity { component_digest: self.component_digest, app_digest, settings, quota_bytes: mount.quota_bytes };
        let folders = revision::folders(&plan, &self.settings.folders_in).into_iter().map(|folder| folder.path);
        let missing_folders = folders.filter(|folder| !folder.is_dir()).collect();
        Ok(Checked { plan, app: Arc::new(app), pre: self.pre.clone(), identity, missing_folders })
    }

    /// What can run of all mounts; their names and routes do not collide.
    pub(super) async fn check_all(&self, mounts: &[MountSettings]) -> Result<Vec<Checked>, RuntimeError> {
        let mut all = Vec::with_capacity(mounts.len());
        let (mut names, mut routes) = (Vec::new(), HashMap::new());
        for mount in mounts {
            if mount.name == OWN_NAME {
                return Err(RuntimeError::ReservedName(mount.name.clone()));
            }
            if names.contains(&mount.name) {
                return Err(RuntimeError::SameName(mount.name.clone()));
            }
            names.push(mount.name.clone());
            let checked = self.check(mount).await?;
            for route in &checked.plan.routes {
                if let Some(first) = routes.insert((mount.listen.clone(), route.path.clone()), mount.name.clone()) {
                    let (second, path, listen) = (mount.name.clone(), route.path.clone(), mount.listen.clone());
                    return Err(RuntimeError::Conflict { first, second, path, listen });
                }
            }
            all.push(checked);
        }
        Ok(all)
    }

    /// What each mount is, and where it answers.
    pub async fn describe_all(&self, mounts: &[MountSettings]) -> Result<Vec<MountDescription>, RuntimeError> {
        let checked = self.check_all(mounts).await?;
        let describe = |(mount, checked): (&MountSettings, Checked)| {
            let routes: Vec<_> =
                checked.plan.routes.iter().map(|route| format!("{}{}", route.path, if route.prefix { "/…" } else { "" })).collect();
            let line = format!("mount {}: {} at {} on {}", mount.name, mount.protocol, routes.join(", "), mount.listen);
            MountDescription { line, warnings: checked.warnings(&mount.name).collect() }
        };
        Ok(mounts.iter().zip(checked).map(describe).collect())
    }

    /// One line an import or export of the component.
    pub fn component_interfaces(&self) -> Vec<String> {
        let engine = self.engine.engine();
        let kind = self.pre.instance_pre().component().component_type();
        let imports = kind.imports(engine).map(|(name, _)| format!("import {name}"));
        let exports = kind.exports(engine).map(|(name, _)| format!("export {name}"));
        imports.chain(exports).collect()
    }

    /// The app of a mount, and the digest of its code.
    fn app(&self, mount: &MountSettings, plan: &Plan) -> Result<(App, [u8; 32]), RuntimeError> {
        let path = mount.app.clone().unwrap_or_else(|| PathBuf::from("(built in)"));
        let failed = |reason: String| RuntimeError::App { mount: mount.name.clone(), path: path.clone(), reason };
        let bytes = match &mount.app {
            None => EMPTY_APP_COMPONENT.to_vec(),
            Some(path) => std::fs::read(path).map_err(|error| failed(error.to_string()))?,
        };
        let with_services = compose::with_services(&bytes).map_err(|error| failed(error.to_string()))?;
        let prepared = self.engine.compile(&with_services).and_then(|component| self.engine.prepare_app(&component));
        let pre = prepared.map_err(|error| failed(error.to_string()))?;
        let app = App::new(pre, self.settings.environment.clone(), self.app_limits(plan));
        Ok((app, Sha256::digest(&with_services).into()))
    }

    fn app_limits(&self, plan: &Plan) -> AppLimits {
        let own = plan.app_limits.as_ref();
        let engine = &self.settings.engine;
        let memory_bytes = own.and_then(|limits| limits.memory_bytes).and_then(|bytes| usize::try_from(bytes).ok());
        AppLimits {
            memory_bytes: memory_bytes.unwrap_or(engine.app_memory_bytes).min(engine.instance_memory_bytes),
            keep_bytes: engine.instance_keep_bytes,
            call_ms: self.settings.app_call_ms,
            transaction_ms: own.and_then(|limits| limits.transaction_ms).unwrap_or(self.settings.app_call_ms),
        }
    }
}

/// The error of settings that the component refused.
fn refused(mount: &MountSettings, problems: &[String]) -> RuntimeError {
    match problems {
        // The protocol is no setting, but a key of the mount itself.
        [problem] if problem.starts_with("protocol: ") && !mount.settings.contains_key("protocol") => {
            RuntimeError::Protocol { mount: mount.name.clone(), problem: problem.clone() }
        }
        problems => {
            let problems = problems.iter().map(|problem| without_value(problem)).collect();
            RuntimeError::Settings { mount: mount.name.clone(), problems }
        }
    }
}
