//! The bridge to the user's app component: the guest's import `syncline:app/app`, answered by an instance in a store
//! of its own. A trap or an endless loop there is a failed import here, and nothing else.
//!
//! While the app works it has the call of its caller: what its services write joins the transaction that is open, what
//! they let out waits with everything else of the call. Only one of the two stores has the call at a time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use wasmtime::{Store, Trap};

use crate::runtime::bindings::app::exports::syncline::app::app as theirs;
use crate::runtime::bindings::app::{Component, ComponentPre};
use crate::runtime::bindings::guest::syncline::app::app::{Caller, Failure, Host, Identity, Reply, RouteRequest, RouteResponse, Verdict};
use crate::runtime::environment::Environment;
use crate::runtime::limits::{APP_TRANSFER_BYTES_MAX, IDLE_APPS_MAX, loggable};
use crate::runtime::state::{Mark, State, bound};

/// What a call keeps of its own time, at most, to deal with an app that takes too long.
const RESERVE_MAX: Duration = Duration::from_millis(250);

/// The app of a mount, ready to be instantiated, and its idle instances.
pub struct App {
    pre: ComponentPre<State>,
    environment: Arc<dyn Environment>,
    limits: AppLimits,
    idle: Mutex<Vec<AppInstance>>,
}

/// What an app may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppLimits {
    /// Memory of an instance, its services included.
    pub memory_bytes: usize,
    /// An instance that has grown beyond this is not used again.
    pub keep_bytes: usize,
    /// Time of a call. In a task it is the time of the task.
    pub call_ms: u64,
    /// Time of a call within an open transaction.
    pub transaction_ms: u64,
}

impl App {
    /// An app of compiled code.
    pub fn new(pre: ComponentPre<State>, environment: Arc<dyn Environment>, limits: AppLimits) -> Self {
        Self { pre, environment, limits, idle: Mutex::default() }
    }

    async fn instance(&self) -> wasmtime::Result<AppInstance> {
        if let Some(idle) = self.idle.lock().pop() {
            return Ok(idle);
        }
        let mut store = Store::new(self.pre.engine(), State::unbound(&self.environment, self.limits.memory_bytes));
        bound(&mut store, APP_TRANSFER_BYTES_MAX);
        store.data_mut().deadline = Instant::now() + Duration::from_millis(self.limits.call_ms);
        let component = self.pre.instantiate_async(&mut store).await?;
        Ok(AppInstance { store, component })
    }

    fn give_back(&self, instance: AppInstance) {
        let state = instance.store.data();
        // A snapshot that nobody will drop would keep its reader for ever.
        let fit = state.memory_bytes() <= self.limits.keep_bytes && state.snapshots == 0;
        let mut idle = self.idle.lock();
        if fit && idle.len() < IDLE_APPS_MAX {
            idle.push(instance);
        }
    }
}

/// An instance of the app.
struct AppInstance {
    store: Store<State>,
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

/// An app at work on a call, which is its caller's again when this is dropped, whatever became of the app: also where
/// the caller itself is cut off meanwhile.
struct Visit<'a> {
    host: &'a mut State,
    app: Arc<App>,
    instance: Option<AppInstance>,
    deadline: Instant,
    before: Option<Mark>,
}

impl<'a> Visit<'a> {
    async fn begin(host: &'a mut State) -> wasmtime::Result<Result<Self, Fall>> {
        let app = host.app_code()?;
        let mut instance = match app.instance().await {
            Ok(instance) => instance,
            Err(error) => {
                tracing::error!(mount = host.mount()?.name, error = %loggable(&format!("{error:#}")), "the app component cannot be instantiated");
                return Ok(Err(Fall::Trapped));
            }
        };
        let deadline = host.deadline_of_app(&app.limits);
        let before = host.call.as_ref().map(|call| call.mark());
        host.stop_clock(true);
        instance.store.data_mut().deadline = deadline;
        instance.store.data_mut().hand_over(host);
        // The epoch may have moved on while the instance was idle.
        instance.store.set_epoch_deadline(1);
        instance.store.data().standard_error.refill();
        Ok(Ok(Self { host, app, instance: Some(instance), deadline, before }))
    }

    /// Takes the call back and settles what the app has left behind.
    async fn end<T>(mut self, answer: Option<wasmtime::Result<T>>) -> wasmtime::Result<Result<T, Fall>> {
        let instance = self.take_back();
        let left_open = self.host.undo_left_open(self.before.as_ref()).await;
        let (fall, error) = match answer {
            Some(Ok(answer)) if !left_open => {
                instance.into_iter().for_each(|instance| self.app.give_back(instance));
                return Ok(Ok(answer));
            }
            Some(Ok(_)) => (Fall::Trapped, "it left a transaction open".to_owned()),
            Some(Err(error)) => {
                let interrupted = error.downcast_ref::<Trap>() == Some(&Trap::Interrupt);
                (if interrupted { Fall::TimedOut } else { Fall::Trapped }, format!("{error:#}"))
            }
            None => (Fall::TimedOut, "it waited past its deadline".to_owned()),
        };
        if let (Some(before), Some(call)) = (&self.before, &mut self.host.call)
            && before.savepoint.is_none()
        {
            call.unsay_since(before);
        }
        tracing::warn!(mount = self.host.mount()?.name, error = %loggable(&error), "the app component fell");
        Ok(Err(fall))
    }

    /// Gives mount and call back to the caller.
    fn take_back(&mut self) -> Option<AppInstance> {
        let mut instance = self.instance.take()?;
        instance.store.data_mut().hand_over(self.host);
        self.host.stop_clock(false);
        Some(instance)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl State {
    /// When an app that is called now must be done. Its caller keeps some time to deal with it.
    fn deadline_of_app(&self, limits: &AppLimits) -> Instant {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        let own = match &self.call {
            Some(call) if call.root.is_some() => Duration::from_millis(limits.transaction_ms),
            _ if self.in_task => left,
            _ => Duration::from_millis(limits.call_ms),
        };
        now + own.min(left.saturating_sub((left / 8).min(RESERVE_MAX)))
    }

    /// The time limit of the open transaction is not the app's.
    fn stop_clock(&mut self, stopped: bool) {
        if let Some(root) = self.call.as_mut().and_then(|call| call.root.as_mut()) {
            root.transaction.stop_clock(stopped);
        }
    }

    /// Rolls back what was begun since a mark and not ended, and says whether there was something.
    async fn undo_left_open(&mut self, before: Option<&Mark>) -> bool {
        let (Some(before), Some(root)) = (before, self.call.as_ref().and_then(|call| call.root.as_ref())) else { return false };
        let Some(last) = before.savepoint else {
            self.end_root().await;
            return true;
        };
        let Some(left_open) = root.savepoints.iter().map(|(savepoint, _)| *savepoint).find(|savepoint| *savepoint > last) else {
            return false;
        };
        // Where that fails the transaction is beyond use, and its commit says so.
        if let Err(error) = self.undo_since(left_open).await {
            tracing::debug!(?error, "what an app left open could not be undone");
        } else if let Err(error) = self.keep_since(left_open).await {
            tracing::debug!(?error, "a savepoint of an app could not be released");
        }
        true
    }
}

/// Calls a function of the app; after a fall the instance is thrown away.
macro_rules! bridge {
    ($state:expr, $method:ident ( $($argument:expr),* )) => {{
        match Visit::begin($state).await? {
            Ok(mut visit) => {
                let deadline = visit.deadline;
                let answer = match &mut visit.instance {
                    Some(AppInstance { store, component }) => {
                        timeout_at(deadline, component.syncline_app_app().$method(store $(, $argument)*)).await.ok()
                    }
                    None => None,
                };
                visit.end(answer).await?
            }
            Err(fall) => Err(fall),
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
