//! The bridge to the user's app component: the guest's import `syncline:app/app`, answered by an instance in a store
//! of its own. A trap or an endless loop there is a failed import here, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::Store;

use crate::runtime::bindings::app::exports::syncline::app::app as theirs;
use crate::runtime::bindings::app::{Component, ComponentPre};
use crate::runtime::bindings::guest::syncline::app::app::{Caller, Failure, Host, Identity, Reply, RouteRequest, RouteResponse, Verdict};
use crate::runtime::environment::Environment;
use crate::runtime::limits::{APP_TRANSFER_BYTES_MAX, loggable};
use crate::runtime::state::{AppState, State, bound};

/// The app of a mount, ready to be instantiated.
pub struct App {
    pre: ComponentPre<AppState>,
    environment: Arc<dyn Environment>,
    memory_bytes: usize,
    call_ms: u64,
}

impl App {
    /// An app whose instances may use so much memory, and take so long for a call.
    pub fn new(pre: ComponentPre<AppState>, environment: Arc<dyn Environment>, memory_bytes: usize, call_ms: u64) -> Self {
        Self { pre, environment, memory_bytes, call_ms }
    }

    async fn instantiate(&self) -> wasmtime::Result<AppInstance> {
        let mut store = Store::new(self.pre.engine(), AppState::new(&self.environment, self.memory_bytes));
        bound(&mut store, APP_TRANSFER_BYTES_MAX);
        store.data_mut().deadline = Instant::now() + Duration::from_millis(self.call_ms);
        let component = self.pre.instantiate_async(&mut store).await?;
        Ok(AppInstance { store, component })
    }
}

/// An instance of the app, beside the instance of the logic that calls it.
pub struct AppInstance {
    store: Store<AppState>,
    component: Component,
}

/// How the app fell.
#[derive(Clone, Copy)]
enum Fall {
    Trapped,
    TimedOut,
}

impl From<Fall> for Failure {
    fn from(fall: Fall) -> Self {
        let (code, message) = match fall {
            Fall::Trapped => ("trapped", "the app component trapped"),
            Fall::TimedOut => ("timed-out", "the app component took too long"),
        };
        Failure { code: code.into(), message: message.into(), retriable: true }
    }
}

/// Calls a function of the app; after a fall the instance is thrown away.
macro_rules! bridge {
    ($state:expr, $method:ident ( $($argument:expr),* )) => {{
        let app: Arc<App> = $state.app_code()?;
        let made = match $state.app.take() {
            Some(instance) => Ok(instance),
            None => app.instantiate().await,
        };
        match made {
            Ok(mut instance) => {
                let deadline = Instant::now() + Duration::from_millis(app.call_ms);
                instance.store.data_mut().deadline = deadline;
                // The epoch may have moved on while the instance was idle.
                instance.store.set_epoch_deadline(1);
                instance.store.data().standard_error.refill();
                match instance.component.syncline_app_app().$method(&mut instance.store $(, $argument)*).await {
                    Ok(value) => {
                        $state.app = Some(instance);
                        Ok(value)
                    }
                    Err(error) => {
                        tracing::warn!(mount = $state.mount()?.name, error = %loggable(&format!("{error:#}")), "the app component fell");
                        Err(if Instant::now() >= deadline { Fall::TimedOut } else { Fall::Trapped })
                    }
                }
            }
            Err(error) => {
                tracing::error!(mount = $state.mount()?.name, %error, "the app component cannot be instantiated");
                Err(Fall::Trapped)
            }
        }
    }};
}

impl Host for State {
    async fn describe(&mut self) -> wasmtime::Result<String> {
        Ok(bridge!(self, call_describe()).unwrap_or_default())
    }

    async fn authenticate(&mut self, mount: String, credentials: String, request: String) -> wasmtime::Result<Result<Identity, Failure>> {
        let answer = bridge!(self, call_authenticate(&mount, &credentials, &request));
        Ok(flat(answer).map(|identity| Identity { user_id: identity.user_id, roles: identity.roles, claims: identity.claims }))
    }

    async fn authorize(&mut self, caller: Caller, action: String, objects: Vec<String>) -> wasmtime::Result<Vec<bool>> {
        Ok(bridge!(self, call_authorize(&caller.into(), &action, &objects)).unwrap_or_default())
    }

    async fn mutate(&mut self, caller: Caller, name: String, arguments: String) -> wasmtime::Result<Result<String, Failure>> {
        Ok(flat(bridge!(self, call_mutate(&caller.into(), &name, &arguments))))
    }

    async fn validate(&mut self, caller: Caller, operation: String) -> wasmtime::Result<Verdict> {
        Ok(match bridge!(self, call_validate(&caller.into(), &operation)) {
            Ok(theirs::Verdict::Accept) => Verdict::Accept,
            Ok(theirs::Verdict::Ignore) => Verdict::Ignore,
            Ok(theirs::Verdict::Reject(failure)) => Verdict::Reject(failure.into()),
            Err(fall) => Verdict::Reject(fall.into()),
        })
    }

    async fn call(&mut self, caller: Caller, method: String, parameters: String) -> wasmtime::Result<Result<Reply, Failure>> {
        Ok(flat(bridge!(self, call_call(&caller.into(), &method, &parameters))).map(Reply::from))
    }

    async fn event(&mut self, caller: Caller, name: String, data: String) -> wasmtime::Result<Result<Reply, Failure>> {
        Ok(flat(bridge!(self, call_event(&caller.into(), &name, &data))).map(Reply::from))
    }

    async fn route(&mut self, caller: Caller, request: RouteRequest) -> wasmtime::Result<RouteResponse> {
        let request = theirs::RouteRequest {
            method: request.method,
            path: request.path,
            query: request.query,
            headers: request.headers,
            body: request.body,
        };
        Ok(match bridge!(self, call_route(&caller.into(), &request)) {
            Ok(response) => RouteResponse { status: response.status, headers: response.headers, body: response.body },
            Err(_) => RouteResponse { status: 0, headers: Vec::new(), body: Vec::new() },
        })
    }
}

fn flat<T>(answer: Result<Result<T, theirs::Failure>, Fall>) -> Result<T, Failure> {
    match answer {
        Ok(answer) => answer.map_err(Failure::from),
        Err(fall) => Err(fall.into()),
    }
}

impl From<theirs::Failure> for Failure {
    fn from(failure: theirs::Failure) -> Self {
        Failure { code: failure.code, message: failure.message, retriable: failure.retriable }
    }
}

impl From<theirs::Reply> for Reply {
    fn from(reply: theirs::Reply) -> Self {
        Reply { value: reply.value, context: reply.context }
    }
}

impl From<Caller> for theirs::Caller {
    fn from(caller: Caller) -> Self {
        let Identity { user_id, roles, claims } = caller.identity;
        theirs::Caller {
            mount: caller.mount,
            connection: caller.connection,
            identity: theirs::Identity { user_id, roles, claims },
            context: caller.context,
        }
    }
}
