//! A deployment in one instance: what its configuration says, its mounts, and the way of a request to its answer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::bindings::syncline::spin::adapter;
use crate::config::{Config, ConfigError};
use crate::head::{BadHead, request_head};
use crate::log::{Level, log, words};
use crate::mount::Mount;
use crate::newest::Newest;
use crate::operations::{self, of_process};
use crate::ports::{Adapter, Clock, Exchange, Incoming, Logic};
use crate::routes::{Conflict, Routes};
use crate::{answers, gateway};

/// The front of one instance.
pub struct Front<C> {
    pub(crate) clock: C,
    pub(crate) logic: Box<dyn Logic>,
    pub(crate) adapter: Box<dyn Adapter>,
    config: Result<String, String>,
    opened: Cell<bool>,
    deployment: RefCell<Option<Rc<Deployment>>>,
    pub(crate) newest: Newest,
}

/// What is served.
pub(crate) struct Deployment {
    pub(crate) config: Config,
    pub(crate) mounts: Vec<Rc<Mount>>,
    pub(crate) routes: Routes,
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// There is no configuration.
    #[error("the variable `config`: {0}")]
    Variable(String),
    /// It is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The settings of a mount are.
    #[error("settings of mount {mount:?} are not valid: {}", problems.join("; "))]
    Settings {
        /// The mount.
        mount: String,
        /// Each names its key.
        problems: Vec<String>,
    },
    /// Mounts are in each other's way.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The back adapter says that the settings cannot be right.
    #[error("{0}")]
    Invalid(String),
    /// What data is kept in cannot be reached.
    #[error("{0}")]
    Unavailable(String),
}

impl From<adapter::Error> for Unusable {
    fn from(error: adapter::Error) -> Self {
        match error {
            adapter::Error::Invalid(text) => Self::Invalid(text),
            adapter::Error::Unavailable(text) => Self::Unavailable(text),
        }
    }
}

impl<C: Clock> Front<C> {
    /// A front over a logic and an adapter, configured by a text, or by what kept it from being read.
    pub fn new(clock: C, logic: Box<dyn Logic>, adapter: Box<dyn Adapter>, config: Result<String, String>) -> Self {
        Self { clock, logic, adapter, config, opened: Cell::new(false), deployment: RefCell::default(), newest: Newest::default() }
    }

    /// Whether this front was made for this configuration.
    pub fn is_configured_by(&self, config: &Result<String, String>) -> bool {
        self.config == *config
    }

    /// What is served. Made by the first request that needs it.
    pub(crate) fn deployment(&self) -> Result<Rc<Deployment>, Unusable> {
        if let Some(deployment) = &*self.deployment.borrow() {
            return Ok(deployment.clone());
        }
        let text = self.config.as_deref().map_err(|error| Unusable::Variable(error.clone()))?;
        let mut config = Config::parse(text)?;
        let (mut mounts, mut routes) = (Vec::new(), Routes::default());
        for mount in std::mem::take(&mut config.mounts) {
            let checked = self.logic.check(&mount.protocol, &mount.settings);
            let plan = checked.map_err(|problems| Unusable::Settings { mount: mount.name.clone(), problems })?;
            let mount = Rc::new(Mount::new(mount, plan));
            routes.add(&mount)?;
            mounts.push(mount);
        }
        if !self.opened.get() {
            self.adapter.open(&config.settings)?;
            self.opened.set(true);
        }
        mounts.iter().for_each(|mount| self.adapter.know(&mount.known()));
        let deployment = Rc::new(Deployment { config, mounts, routes });
        *self.deployment.borrow_mut() = Some(deployment.clone());
        Ok(deployment)
    }

    /// Answers a request; then does a little of what is due.
    pub async fn serve(&self, incoming: Incoming, exchange: &mut impl Exchange) {
        let path = incoming.path_with_query.split('?').next().unwrap_or_default().to_owned();
        if operations::is_for_process(&path) {
            let (status, body) = self.of_process(&path, &incoming.method).await;
            let has_body = incoming.method != "HEAD";
            return answers::send_json(exchange, status, &body, has_body).await;
        }
        let deployment = match self.deployment() {
            Ok(deployment) => deployment,
            Err(error) => {
                log(Level::Error, None, "nothing can be served", &error);
                let (status, text) = if matches!(error, Unusable::Unavailable(_)) { (503, "unavailable") } else { (500, "not-configured") };
                return answers::send_json(exchange, status, &of_process("error", text), incoming.method != "HEAD").await;
            }
        };
        let secret = deployment.config.gateway_secret.as_ref().map(|secret| secret.expose());
        let head = match request_head(incoming, &deployment.config.trusted_proxies, secret) {
            Ok(head) => head,
            Err(error @ BadHead::TooLarge) => {
                log(Level::Warn, None, "a request was refused", error);
                return answers::send_status(exchange, 431).await;
            }
        };
        if head.path == operations::TICK {
            return self.tick(&deployment, &head, exchange).await;
        }
        match deployment.routes.find(&head.path) {
            _ if head.path.starts_with(gateway::PREFIX) => self.of_gateway(&deployment, &head, exchange).await,
            None => answers::send_status(exchange, 404).await,
            Some(found) => {
                tell_of_gateway(&head.headers, &found.mount);
                if found.takes_requests {
                    self.of_mount(&deployment, &found.mount, head, exchange).await;
                } else {
                    answers::send_status(exchange, 404).await;
                }
            }
        }
        self.do_a_little(&deployment).await;
    }
}

/// Says in the log why a WebSocket does not open. Spin takes `upgrade` away, but not the key.
fn tell_of_gateway(headers: &[crate::bindings::syncline::host::types::Header], mount: &Mount) {
    if headers.iter().any(|header| header.name == "sec-websocket-key") {
        log(Level::Warn, Some(&mount.name), "a WebSocket was asked for, and Spin has none: let clients connect to `syncline gateway`", "");
    }
}

/// An error of the back adapter that is no reason to fail.
pub(crate) fn only_logged(mount: Option<&str>, message: &str, result: Result<(), adapter::Error>) {
    if let Err(error) = result {
        log(Level::Warn, mount, message, words(&error));
    }
}
