//! A double of a deployment: an HTTP server that speaks with gateways as `syncline-spin-wire` says, over a small protocol
//! of its own (`world.rs`), with faults that a test asks for.

mod pages;
pub mod plan;
pub mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use syncline_spin_wire as wire;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

pub use pages::Seen;
use world::Step;
pub use world::{Fault, World};

/// What gateways and the double share.
pub const SECRET: &str = "s3cret";

/// The double; its server ends when dropped.
pub struct Double {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

/// What its connections share.
pub struct Shared {
    pub world: Mutex<World>,
    /// What waits goes on, one call a permit.
    pub gate: Semaphore,
    /// Something was published.
    published: Notify,
    /// Dropped, it ends all connections.
    pub stopping: watch::Sender<bool>,
    /// Requests that were passed on.
    pub seen: Mutex<Vec<Seen>>,
    /// The rest of an event stream goes on.
    pub events: Semaphore,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

impl Double {
    /// Starts on a free port.
    pub async fn start() -> Self {
        Self::on("127.0.0.1:0", World::default()).await
    }

    async fn on(address: &str, world: World) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            world: Mutex::new(world),
            gate: Semaphore::new(0),
            published: Notify::new(),
            stopping: watch::Sender::new(false),
            seen: Mutex::default(),
            events: Semaphore::new(0),
        });
        let serving = tokio::spawn(accept_all(listener, shared.clone()));
        Self { address, shared, serving }
    }

    /// Ends all its connections, and listens no more. What it keeps is kept.
    pub async fn stop(self) -> Stopped {
        self.serving.abort();
        self.shared.stopping.send_replace(true);
        let address = self.address;
        let world = std::mem::take(&mut *self.shared.world.lock());
        Stopped { address, world }
    }

    /// A URL of it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it keeps and has seen.
    pub fn world(&self) -> parking_lot::MutexGuard<'_, World> {
        self.shared.world.lock()
    }

    /// Requests that were passed on.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// Lets so many calls go on that wait.
    pub fn let_go(&self, calls: usize) {
        self.shared.gate.add_permits(calls);
    }

    /// Lets an event stream go on.
    pub fn next_event(&self) {
        self.shared.events.add_permits(1);
    }

    /// Publishes from outside any call, and tells whoever waits for it.
    pub fn publish(&self, topic: &str, message: &str) {
        self.shared.world.lock().publish(topic, message);
        self.shared.published();
    }

    /// The next requests for calls meet these faults.
    pub fn faults(&self, faults: &[Fault]) {
        self.shared.world.lock().faults.extend(faults);
    }

    /// Nothing went wrong between gateways and deployment.
    pub fn is_content(&self) {
        let complaints = self.shared.world.lock().complaints.clone();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.serving.abort();
        self.shared.stopping.send_replace(true);
    }
}

/// A double that does not run.
pub struct Stopped {
    address: SocketAddr,
    pub world: World,
}

impl Stopped {
    /// Starts it again where it was.
    pub async fn start(self) -> Double {
        Double::on(&self.address.to_string(), self.world).await
    }
}

async fn accept_all(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("it is TCP");
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut stopping = shared.stopping.subscribe();
            let service = service_fn(move |request| answer(request, shared.clone()));
            // Gateways may go away at any time, and faults are errors here.
            tokio::select! {
                _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        });
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, std::io::Error> {
    let path = request.uri().path().to_owned();
    if !path.starts_with(wire::PREFIX) {
        return Ok(pages::answer(request, &shared).await);
    }
    if request.headers().get("authorization").is_none_or(|value| value != &format!("Bearer {SECRET}")) {
        return Ok(status(401));
    }
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    match path.as_str() {
        wire::MOUNTS => {
            let _hello: wire::Hello = decoded(&body);
            let world = shared.world.lock();
            let mut deployment = world.deployment.clone();
            deployment.mounts.iter_mut().for_each(|mount| mount.position = world.newest());
            Ok(encoded(&deployment))
        }
        wire::POLL => poll(decoded(&body), shared).await,
        wire::CALLS => calls(decoded(&body), shared).await,
        _ => Ok(status(404)),
    }
}

async fn poll(poll: wire::Poll, shared: Arc<Shared>) -> Result<Response<Body>, std::io::Error> {
    let waiting = async {
        loop {
            let changed = shared.published.notified();
            {
                let world = shared.world.lock();
                let is_new = poll.mounts.iter().any(|known| known.position < world.newest());
                if is_new || world.deployment.revision != poll.revision {
                    return;
                }
            }
            changed.await;
        }
    };
    {
        let mut world = shared.world.lock();
        world.callbacks.extend(poll.callback.clone());
        world.polls.push(poll.clone());
    }
    // It is answered in any case.
    let _ = tokio::time::timeout(Duration::from_millis(poll.wait_ms.into()), waiting).await;
    let world = shared.world.lock();
    let new_of = |known: &wire::Known| wire::MountPublications { mount: known.mount.clone(), published: world.published(known.position) };
    let mounts = poll.mounts.iter().map(new_of).collect();
    Ok(encoded(&wire::Polled { revision: world.deployment.revision.clone(), mounts }))
}

async fn calls(asked: wire::Calls, shared: Arc<Shared>) -> Result<Response<Body>, std::io::Error> {
    let fault = {
        let mut world = shared.world.lock();
        world.batches.push(asked.calls.len());
        world.faults.pop_front()
    };
    match fault {
        Some(Fault::Broken) => return Err(std::io::Error::other("broken")),
        Some(Fault::Fell) => return Ok(status(500)),
        Some(Fault::Unavailable) => return Ok(status(503)),
        _ => {}
    }
    let mut body = Vec::new();
    let mut after = 0;
    for call in asked.calls {
        after = after.max(call.known);
        // Whoever goes away does not end a call that has begun.
        let made = tokio::spawn(make(call, after, shared.clone()));
        match made.await.expect("calls do not fall") {
            Some(answer) => {
                after = after.max(answer.published.next);
                wire::append_piece(&mut body, &*answer, wire::ANSWER_BYTES_MAX).expect("it is small");
            }
            None => return Ok(status(500)),
        }
    }
    shared.published();
    match fault {
        Some(Fault::AnswerLost) => Err(std::io::Error::other("the answer is lost")),
        Some(Fault::AnswerCut) => Ok(cut_after(Bytes::copy_from_slice(&body[..body.len() / 2]))),
        _ => Ok(whole(Bytes::from(body))),
    }
}

fn make(call: wire::SocketCall, after: u64, shared: Arc<Shared>) -> BoxFuture<'static, Option<Box<wire::CallAnswer>>> {
    Box::pin(async move {
        let step = shared.world.lock().call(&call, false, after);
        match step {
            Step::Answered(answer) => Some(answer),
            Step::Trapped => None,
            Step::Waits => {
                shared.gate.acquire().await.expect("it is never closed").forget();
                let step = shared.world.lock().call(&call, true, after);
                if let Step::Answered(answer) = step { Some(answer) } else { None }
            }
        }
    })
}

impl Shared {
    /// Something may have been published.
    fn published(&self) {
        self.published.notify_waiters();
        let callbacks: Vec<String> = self.world.lock().callbacks.iter().cloned().collect();
        for url in callbacks {
            tokio::spawn(async move {
                let url: http::Uri = url.parse().expect("a URL");
                let address = url.authority().expect("it has an address").as_str().parse().expect("an address");
                let headers = [("authorization", &*format!("Bearer {SECRET}"))];
                // A gateway that has gone is none to be told.
                drop(syncline_tests::http::try_request(address, &http::Method::POST, url.path(), &headers, Bytes::new()).await);
            });
        }
    }
}

fn decoded<T: serde::de::DeserializeOwned>(body: &[u8]) -> T {
    wire::decode(body, wire::REQUEST_BYTES_MAX).expect("gateways speak the language")
}

fn encoded<T: serde::Serialize>(value: &T) -> Response<Body> {
    whole(Bytes::from(wire::encode(value, wire::ANSWER_BYTES_MAX).expect("it is small")))
}

fn whole(bytes: Bytes) -> Response<Body> {
    Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
}

/// Some of a body, and the end of the line.
fn cut_after(bytes: Bytes) -> Response<Body> {
    let first = futures_util::stream::iter([Ok(Frame::data(bytes))]);
    let cut = futures_util::stream::once(async {
        // What stands before it is written out meanwhile.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut"))
    });
    Response::new(StreamBody::new(first.chain(cut)).boxed_unsync())
}

fn status(code: u16) -> Response<Body> {
    let mut answer = whole(Bytes::new());
    *answer.status_mut() = http::StatusCode::from_u16(code).expect("a status");
    answer
}
