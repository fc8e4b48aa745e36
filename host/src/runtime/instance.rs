//! Instances of the component: each serves one call at a time, and many one after the other.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use wasmtime::Store;
use wasmtime::component::Resource;

use super::bindings::guest::Guest;
use super::bindings::guest::exports::syncline::sync::timer::FailedPost;
use super::bindings::guest::exports::syncline::sync::{http, live, socket};
use super::bindings::guest::syncline::host::pubsub::Publication;
use super::bindings::guest::syncline::host::types::RequestHead;
use super::imports::executor::HeldView;
use super::limits::{self, IDLE_INSTANCES_BYTES_MAX};
use super::mount::MountCore;
use super::revision::{Code, Revision};
use super::state::{Call, State, bound};

/// What the component is asked, as plain data: it can be asked again, or elsewhere.
#[derive(Clone, Debug)]
pub(crate) enum Invocation {
    Start { cursor: Option<Vec<u8>> },
    Stop,
    Admit { connection: u64, head: Arc<RequestHead> },
    Handle { connection: u64, head: Arc<RequestHead>, context: Option<Vec<u8>>, body: http::BodyIn, work: http::Work },
    Resume { connection: u64, state: Vec<u8> },
    Generate { cursor: Vec<u8>, view: HeldView },
    Upgrade { connection: u64, head: Arc<RequestHead> },
    Receive { connection: live::Connection, inputs: Vec<socket::Input> },
    Task { connection: live::Connection, work: Vec<u8> },
    Closed { connection: live::Connection, code: u16 },
    Deliver { publication: Publication, groups: Vec<socket::Group> },
    Refill { topic: String, key: String, after: u64 },
    Fire { name: String, payload: Vec<u8>, cursor: Option<Vec<u8>> },
    PostFailed { connection: u64, post: FailedPost },
}

impl Invocation {
    /// What [`Invocation::export`] may say.
    pub(crate) const EXPORTS: &[&str] = &[
        "start",
        "stop",
        "admit",
        "handle",
        "resume",
        "generate",
        "upgrade",
        "receive",
        "task",
        "closed",
        "deliver",
        "refill",
        "fire",
        "post-failed",
    ];

    /// The export, for metrics and logs.
    pub(crate) fn export(&self) -> &'static str {
        match self {
            Invocation::Start { .. } => "start",
            Invocation::Stop => "stop",
            Invocation::Admit { .. } => "admit",
            Invocation::Handle { .. } => "handle",
            Invocation::Resume { .. } => "resume",
            Invocation::Generate { .. } => "generate",
            Invocation::Upgrade { .. } => "upgrade",
            Invocation::Receive { .. } => "receive",
            Invocation::Task { .. } => "task",
            Invocation::Closed { .. } => "closed",
            Invocation::Deliver { .. } => "deliver",
            Invocation::Refill { .. } => "refill",
            Invocation::Fire { .. } => "fire",
            Invocation::PostFailed { .. } => "post-failed",
        }
    }

    /// Whether it may wait for released work to be done. What does that work, or tidies up, must not.
    pub(crate) fn adds_work(&self) -> bool {
        !matches!(self, Invocation::Deliver { .. } | Invocation::Refill { .. } | Invocation::Closed { .. } | Invocation::Stop)
    }

    /// Whether several inputs are handled one after the other.
    pub(crate) fn has_several_inputs(&self) -> bool {
        matches!(self, Invocation::Receive { inputs, .. } if inputs.len() > 1)
    }

    /// The connection whose calls it is in line with.
    pub(crate) fn lane(&self) -> Option<u64> {
        match self {
            Invocation::Upgrade { connection, .. } => Some(*connection),
            Invocation::Receive { connection, .. } => Some(connection.id),
            _ => None,
        }
    }

    /// The request that is served: it may become a connection.
    pub(crate) fn request(&self) -> Option<u64> {
        match self {
            Invocation::Admit { connection, .. } | Invocation::Handle { connection, .. } | Invocation::Resume { connection, .. } => {
                Some(*connection)
            }
            _ => None,
        }
    }

    /// Whether the quota of the mount holds for the call. A mount that is full must start all the same.
    pub(crate) fn has_quota(&self) -> bool {
        !matches!(self, Invocation::Start { .. })
    }

    /// Whether it may take long, and its transactions as well.
    pub(crate) fn is_long(&self) -> bool {
        matches!(self, Invocation::Start { .. } | Invocation::Handle { work: http::Work::Long, .. })
    }

    /// Whether the call is made once more on a fresh instance when it failed in this way.
    pub(crate) fn tried_again(&self, failure: live::Failure) -> bool {
        match self {
            Invocation::Task { .. } | Invocation::Resume { .. } | Invocation::Generate { .. } | Invocation::PostFailed { .. } => false,
            Invocation::Upgrade { .. } | Invocation::Stop => failure == live::Failure::Trapped,
            _ if self.is_long() => failure == live::Failure::Trapped,
            _ => true,
        }
    }
}

/// What the component answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Start(Result<Option<Vec<u8>>, String>),
    Done,
    Admission(http::Admission),
    /// With the view of a generated body.
    Response(http::Response, HeldView),
    Piece(Result<(Vec<u8>, Option<Vec<u8>>), String>),
    Upgrade(socket::UpgradeResult),
    Outcome(live::Outcome),
    Task(Vec<u8>),
    Deliveries(socket::Deliveries),
    Publications(Vec<Publication>),
    Cursor(Option<Vec<u8>>),
}

/// An instance with its store.
pub(crate) struct Instance {
    store: Store<State>,
    guest: Guest,
    revision: Arc<Revision>,
}

impl Instance {
    /// Instantiates and hands over the settings.
    async fn new(mount: &Arc<MountCore>, revision: &Arc<Revision>, memory_bytes: usize) -> wasmtime::Result<Self> {
        let Code::Component { app, pre } = &revision.code else {
            return Err(wasmtime::Error::msg("calls of this mount are made elsewhere"));
        };
        let mut store = Store::new(pre.engine(), State::new(mount.clone(), app.clone(), memory_bytes));
        bound(&mut store, limits::TRANSFER_BYTES_MAX);
        store.data_mut().deadline = Instant::now() + Duration::from_millis(revision.plan.call_deadline_ms);
        let guest = pre.instantiate_async(&mut store).await?;
        let (name, settings) = (&mount.name, &revision.identity.settings);
        let configured = guest
            .syncline_sync_mounts()
            .call_configure(&mut store, name, &mount.protocol, revision.number, settings, &revision.documents)
            .await?;
        configured.map_err(wasmtime::Error::msg)?;
        Ok(Self { store, guest, revision: revision.clone() })
    }

    /// Makes one call and gives back what it left in the store.
    pub(crate) async fn invoke(
        &mut self,
        call: Call,
        deadline: Duration,
        invocation: &Invocation,
        failure: Option<live::Failure>,
    ) -> (wasmtime::Result<Answer>, Option<Call>) {
        self.store.data_mut().call = Some(call);
        self.store.data_mut().in_task = matches!(invocation, Invocation::Task { .. });
        // Whoever may take long must come along all the same.
        let patience = invocation.is_long().then(|| Duration::from_millis(self.revision.plan.call_deadline_ms));
        self.store.data_mut().patience = patience;
        self.store.data_mut().deadline = Instant::now() + patience.unwrap_or(deadline);
        // The epoch may have moved on while the instance was idle.
        self.store.set_epoch_deadline(1);
        self.store.data().standard_error.refill();
        let answer = match tokio::time::timeout(deadline, self.dispatch(invocation, failure)).await {
            Ok(answer) => answer.and_then(|answer| self.weighed(answer)),
            Err(_) => Err(wasmtime::Error::msg("the call waited past its deadline")),
        };
        if answer.is_ok() {
            self.store.data_mut().end_root().await;
        }
        (answer, self.store.data_mut().call.take())
    }

    /// An answer, if it and what the call let out before are within the limits.
    fn weighed(&mut self, answer: Answer) -> wasmtime::Result<Answer> {
        let weight = limits::of_answer(&answer)?;
        self.store.data_mut().call()?.taken.add(weight)?;
        Ok(answer)
    }

    /// Memory that the instance has grown to, in bytes.
    fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes()
    }

    async fn dispatch(&mut self, invocation: &Invocation, failure: Option<live::Failure>) -> wasmtime::Result<Answer> {
        let (store, guest) = (&mut self.store, &self.guest);
        let name = store.data().mount()?.name.clone();
        let (mounts, http, socket, timer) =
            (guest.syncline_sync_mounts(), guest.syncline_sync_http(), guest.syncline_sync_socket(), guest.syncline_sync_timer());
        let with_failure = |connection: &live::Connection| live::Connection { failure, ..connection.clone() };
        Ok(match invocation {
            Invocation::Start { cursor } => Answer::Start(mounts.call_start(store, &name, cursor.as_deref()).await?),
            Invocation::Stop => {
                mounts.call_stop(store, &name).await?;
                Answer::Done
            }
            Invocation::Admit { connection, head } => Answer::Admission(http.call_admit(store, &name, *connection, head).await?),
            Invocation::Handle { connection, head, context, body, .. } => {
                let mut response = http.call_handle(&mut *store, &name, *connection, head, context.as_deref(), body, failure).await?;
                let view = taken_view(store, &mut response)?;
                Answer::Response(response, view)
            }
            Invocation::Resume { connection, state } => {
                let mut response = http.call_resume(&mut *store, &name, *connection, state).await?;
                let view = taken_view(store, &mut response)?;
                Answer::Response(response, view)
            }
            Invocation::Generate { cursor, view } => {
                let lent = store.data_mut().lend_view(view)?;
                let borrowed = lent.as_ref().map(|lent| Resource::new_borrow(lent.rep()));
                let piece = http.call_generate(&mut *store, &name, cursor, borrowed).await?;
                store.data_mut().give_back_view(view, lent)?;
                Answer::Piece(piece)
            }
            Invocation::Upgrade { connection, head } => Answer::Upgrade(socket.call_upgrade(store, &name, *connection, head).await?),
            Invocation::Receive { connection, inputs } => {
                Answer::Outcome(socket.call_receive(store, &name, &with_failure(connection), inputs).await?)
            }
            Invocation::Task { connection, work } => Answer::Task(socket.call_task(store, &name, connection, work).await?),
            Invocation::Closed { connection, code } => {
                socket.call_closed(store, &name, &with_failure(connection), *code).await?;
                Answer::Done
            }
            Invocation::Deliver { publication, groups } => {
                Answer::Deliveries(socket.call_deliver(store, &name, publication, groups).await?)
            }
            Invocation::Refill { topic, key, after } => Answer::Publications(socket.call_refill(store, &name, topic, key, *after).await?),
            Invocation::Fire { name: job, payload, cursor } => {
                Answer::Cursor(timer.call_fire(store, &name, job, payload, cursor.as_deref()).await?)
            }
            Invocation::PostFailed { connection, post } => {
                timer.call_post_failed(store, &name, *connection, post).await?;
                Answer::Done
            }
        })
    }
}

/// The view of a generated body, which outlives the call.
fn taken_view(store: &mut Store<State>, response: &mut http::Response) -> wasmtime::Result<HeldView> {
    let view = if let http::BodyOut::Generated(generated) = &mut response.body { generated.view.take() } else { None };
    store.data_mut().take_view(view)
}

/// The instances of one mount.
pub(crate) struct InstancePool {
    memory_bytes: usize,
    keep_bytes: usize,
    /// How many may be busy at once.
    busy_max: usize,
    busy: Semaphore,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    instances: Vec<Instance>,
    /// Their memory.
    bytes: usize,
}

impl Idle {
    /// The one used last, if it is of a revision.
    fn take(&mut self, revision: &Arc<Revision>) -> Option<Instance> {
        let instance = self.instances.pop_if(|instance| Arc::ptr_eq(&instance.revision, revision))?;
        self.bytes -= instance.memory_bytes();
        Some(instance)
    }
}

/// An instance that serves a call, and the right to be busy.
pub(crate) struct Lease<'a> {
    pub(crate) instance: Instance,
    _permit: SemaphorePermit<'a>,
}

impl InstancePool {
    pub(crate) fn new(memory_bytes: usize, keep_bytes: usize, busy_max: usize) -> Self {
        Self { memory_bytes, keep_bytes, busy_max, busy: Semaphore::new(busy_max), idle: Mutex::default() }
    }

    /// An idle instance of a revision, or a new one; waits while too many are busy.
    pub(crate) async fn take(&self, mount: &Arc<MountCore>, revision: &Arc<Revision>, fresh: bool) -> wasmtime::Result<Lease<'_>> {
        let permit = self.busy.acquire().await?;
        let idle = if fresh { None } else { self.idle.lock().take(revision) };
        let instance = match idle {
            Some(mut instance) => {
                instance.store.data_mut().serve(Some(mount.clone()));
                instance
            }
            None => Instance::new(mount, revision, self.memory_bytes).await?,
        };
        Ok(Lease { instance, _permit: permit })
    }

    /// Takes an instance back for the next call, unless it holds too much or another revision runs now.
    pub(crate) fn give_back(&self, mut lease: Lease<'_>, current: &Arc<Revision>) {
        // An idle instance holds no mount: the mount holds it, and neither would ever go.
        lease.instance.store.data_mut().serve(None);
        let bytes = lease.instance.memory_bytes();
        // A snapshot that nobody will drop would keep its reader for ever.
        let holds_too_much = bytes > self.keep_bytes || lease.instance.store.data().snapshots > 0;
        if holds_too_much || !Arc::ptr_eq(&lease.instance.revision, current) {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.bytes + bytes <= IDLE_INSTANCES_BYTES_MAX {
            idle.bytes += bytes;
            idle.instances.push(lease.instance);
        }
    }

    /// How many are busy, and how many idle.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.busy_max.saturating_sub(self.busy.available_permits()), self.idle.lock().instances.len())
    }

    /// Lets all idle instances go.
    pub(crate) fn clear(&self) {
        *self.idle.lock() = Idle::default();
    }
}
