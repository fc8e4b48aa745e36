//! Requests beside the connection, each on a way of its own: it may be lost there or on the way back, also when the server
//! has done what it asks for; the client may give it up meanwhile; it may arrive twice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use syncline::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::faults::up_to_ms;
use super::model::{Answer, Request};
use super::network::Client;

/// So long at most a client waits until it believes that no answer will come.
const PATIENCE_MS_MAX: u64 = 1_500;

/// The requests of a client.
#[derive(Default)]
pub struct Requests {
    /// Not on their way yet.
    asked: VecDeque<Request>,
    under_way: BTreeMap<u64, UnderWay>,
    count: u64,
}

struct UnderWay {
    tag: u64,
    /// On its way back.
    answer: Option<Answer>,
    /// The client has heard of it; a second copy is still under way.
    told: bool,
}

/// What becomes of a request.
struct Fate {
    there: Duration,
    back: Duration,
    patience: Duration,
    lost: Option<Lost>,
    /// It arrives once more, so much later.
    again: Option<Duration>,
}

#[derive(PartialEq, Eq)]
enum Lost {
    There,
    Back,
    /// The client does not wait.
    GivenUp,
}

impl Requests {
    /// A new one.
    pub fn ask(&mut self, request: Request) {
        self.asked.push_back(request);
    }

    /// Whether nothing is under way, not even a second copy.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.under_way.is_empty()
    }

    /// The next one, under its number.
    fn start(&mut self) -> Option<(u64, Request)> {
        let request = self.asked.pop_front()?;
        self.count += 1;
        self.under_way.insert(self.count, UnderWay { tag: request.tag, answer: None, told: false });
        Some((self.count, request))
    }
}

impl Client {
    /// Sends its requests on their way, and lets it act where it needs no connection for that. Ends with the life of the server.
    pub(super) async fn requests(self: &Arc<Self>, runtime: &Arc<Runtime>, mount: &str) {
        let (mut carried, acts_alone) = (JoinSet::new(), self.acts_alone());
        let mut act_at = Instant::now() + up_to_ms(&mut self.inner.lock().random, self.world.faults.act_mean_ms);
        loop {
            loop {
                let Some((number, request)) = self.inner.lock().requests.start() else { break };
                let (client, runtime, mount) = (self.clone(), runtime.clone(), mount.to_owned());
                carried.spawn(async move { client.carry_request(&runtime, &mount, number, request).await });
            }
            tokio::select! {
                biased;
                () = self.requested.notified() => {}
                Some(carried) = carried.join_next() => carried.expect("a request is carried to its end"),
                () = sleep_until(act_at), if acts_alone => act_at = Instant::now() + self.act(),
            }
        }
    }

    /// The process is gone. Some answers that were under way still arrive; the others never will.
    pub(super) fn requests_crashed(&self) {
        let under_way = std::mem::take(&mut self.inner.lock().requests.under_way);
        for request in under_way.into_values().filter(|request| !request.told) {
            let arrives = self.inner.lock().random.random_bool(0.5);
            let answer = request.answer.filter(|_| arrives);
            self.ask(|model, line| model.answered(request.tag, answer, line));
        }
    }

    fn fate(&self) -> Fate {
        let (faults, calm, random) = (&self.world.faults, self.world.is_calm(), &mut self.inner.lock().random);
        let lost = !calm && faults.lost_requests > 0.0 && random.random_bool(faults.lost_requests);
        let lost = lost.then(|| match random.random_range(0..4) {
            0 => Lost::There,
            1 => Lost::GivenUp,
            _ => Lost::Back,
        });
        let again = !calm && faults.doubled_requests > 0.0 && random.random_bool(faults.doubled_requests);
        Fate {
            there: up_to_ms(random, faults.latency_ms),
            back: up_to_ms(random, faults.latency_ms),
            patience: up_to_ms(random, PATIENCE_MS_MAX),
            lost,
            again: again.then(|| up_to_ms(random, faults.doubled_ms)),
        }
    }

    async fn carry_request(&self, runtime: &Runtime, mount: &str, number: u64, request: Request) {
        let fate = self.fate();
        let again = fate.again.map(|later| (later, request.clone()));
        let once = self.carry_once(runtime, mount, number, request, fate);
        match again {
            None => once.await,
            Some((later, copy)) => {
                let twice = async {
                    sleep(later).await;
                    self.world.note(format_args!("{}: request {number} arrives again", self.name));
                    answer_of(runtime, mount, copy).await;
                };
                tokio::join!(once, twice);
            }
        }
        self.inner.lock().requests.under_way.remove(&number);
    }

    async fn carry_once(&self, runtime: &Runtime, mount: &str, number: u64, request: Request, fate: Fate) {
        sleep(fate.there).await;
        let answer = match &fate.lost {
            Some(Lost::There) => None,
            Some(Lost::GivenUp) => {
                let wait = up_to_ms(&mut self.inner.lock().random, 2 * self.world.faults.flush_ms + 3);
                // The work that it asks for goes on.
                drop(tokio::time::timeout(wait, answer_of(runtime, mount, request)).await);
                None
            }
            None | Some(Lost::Back) => answer_of(runtime, mount, request).await,
        };
        self.world.alive().await;
        match answer.filter(|_| fate.lost.is_none()) {
            Some(answer) => {
                if let Some(under_way) = self.inner.lock().requests.under_way.get_mut(&number) {
                    under_way.answer = Some(answer);
                }
                sleep(fate.back).await;
            }
            None => sleep(fate.patience).await,
        }
        let told = self.inner.lock().requests.under_way.get_mut(&number).map(|under_way| {
            under_way.told = true;
            (under_way.tag, under_way.answer.take())
        });
        if let Some((tag, answer)) = told {
            self.ask(|model, line| model.answered(tag, answer, line));
        }
    }
}

/// None: there is no server, or the answer was broken off.
async fn answer_of(runtime: &Runtime, mount: &str, request: Request) -> Option<Answer> {
    let mut response = runtime.request(mount, request.method, request.head, request.body).await.ok()?;
    let mut body = Vec::new();
    while let Some(piece) = response.body.next().await {
        body.extend_from_slice(&piece.ok()?);
    }
    Some(Answer { status: response.status, body })
}
