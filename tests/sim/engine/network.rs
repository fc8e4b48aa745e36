//! The simulated network: one task a client, which connects again and again, and carries frames with latency, in order,
//! until the line is cut. Requests beside the connection: `requests.rs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use syncline::runtime::Runtime;
use syncline::runtime::in_process::SocketEvent;
use syncline::runtime::queue::Frame;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::faults::{around_ms, up_to_ms};
use super::model::{ClientModel, Command, Dial, Line};
use super::requests::Requests;
use super::wire::{NotConnected, Wire, dial};
use super::world::World;

/// A client waits at most so long before it connects again.
const RECONNECT_MS_MAX: u64 = 400;
/// In calm times a client looks so often whether there is something to do.
const CALM_ACT_MS: u64 = 50;
/// The line of a client that acts elsewhere looks so often whether faults are over.
const LOOK: Duration = Duration::from_millis(200);

/// A client with its end of the line. It outlives connections and lives of the server.
pub struct Client {
    pub(super) name: String,
    pub(super) world: Arc<World>,
    pub(super) inner: Mutex<Inner>,
    /// There is a new request.
    pub(super) requested: Notify,
    /// There is something to send: not only what arrives on the line makes a client speak.
    spoken: Notify,
}

pub(super) struct Inner {
    model: Box<dyn ClientModel>,
    /// For the model.
    own_random: StdRng,
    /// For the line.
    pub(super) random: StdRng,
    pub(super) requests: Requests,
    /// It makes do with requests.
    needs_no_line: bool,
    connected: bool,
    /// It left while its connection was still being made.
    left: bool,
    /// From the client to the host.
    up: VecDeque<(Instant, Up)>,
    /// From the host to the client.
    down: VecDeque<(Instant, Down)>,
    down_bytes: usize,
}

enum Up {
    Frame(Frame),
    Close,
}

enum Down {
    Frame(Frame),
    Close(u16),
}

/// What changes on a line as time passes.
struct Session {
    /// The longest way up and down.
    latency_ms: u64,
    cut_at: Option<Instant>,
    stall_at: Option<Instant>,
    stalled_until: Option<Instant>,
    act_at: Instant,
}

impl Client {
    /// A client that has never been connected.
    pub fn new(world: &Arc<World>, number: usize, model: Box<dyn ClientModel>) -> Arc<Self> {
        let purpose = 0xc000 + 2 * number as u64;
        let (own_random, random) = (world.random(purpose), world.random(purpose + 1));
        let (up, down) = (VecDeque::new(), VecDeque::new());
        let (requests, needs_no_line) = (Requests::default(), false);
        let (connected, left) = (false, false);
        let inner = Inner { model, own_random, random, requests, needs_no_line, connected, left, up, down, down_bytes: 0 };
        let (name, world, inner) = (format!("client {number}"), world.clone(), Mutex::new(inner));
        Arc::new(Self { name, world, inner, requested: Notify::new(), spoken: Notify::new() })
    }

    /// Whether it has nothing left to do and nothing is under way.
    pub fn is_settled(&self) -> bool {
        let inner = self.inner.lock();
        let idle = inner.up.is_empty() && inner.down.is_empty() && inner.requests.is_empty();
        idle && (inner.connected || inner.needs_no_line) && inner.model.is_settled()
    }

    /// Connects, again and again, and makes its requests, until the life of the server ends.
    pub async fn live(self: Arc<Self>, runtime: Arc<Runtime>, mount: String) {
        tokio::join!(self.connections(&runtime, &mount), self.requests(&runtime, &mount));
    }

    async fn connections(&self, runtime: &Runtime, mount: &str) {
        loop {
            let wait = up_to_ms(&mut self.inner.lock().random, RECONNECT_MS_MAX);
            sleep(wait).await;
            self.inner.lock().left = false;
            let wire = self.ask(|model, line| model.connect(line));
            if matches!(wire, Dial::Nothing) {
                self.inner.lock().needs_no_line = true;
                return;
            }
            let wire = match self.connect(runtime, mount, wire).await {
                Ok(wire) => wire,
                Err(code) => {
                    self.ask(|model, line| model.disconnected(code, line));
                    continue;
                }
            };
            let (wire, code) = self.carry(wire).await;
            self.end(code);
            self.let_go(wire);
        }
    }

    /// The process is gone. Some of what was under way still arrives.
    pub fn crashed(&self) {
        let arriving: Vec<Down> = {
            let mut inner = self.inner.lock();
            let count = inner.down.len();
            let arriving = inner.random.random_range(0..=count);
            inner.down.drain(..arriving).map(|(_, down)| down).collect()
        };
        let mut code = None;
        for down in arriving {
            match down {
                Down::Frame(frame) => self.deliver(&frame),
                Down::Close(close) => code = Some(close),
            }
        }
        if self.inner.lock().connected {
            self.end(code);
        }
        self.requests_crashed();
    }

    fn end(&self, code: Option<u16>) {
        {
            let mut inner = self.inner.lock();
            inner.connected = false;
            inner.up.clear();
            inner.down.clear();
            inner.down_bytes = 0;
        }
        self.world.note(format_args!("{}: disconnected {code:?}", self.name));
        self.ask(|model, line| model.disconnected(code, line));
    }

    /// Lets the model do something; what it sends is on its way then.
    pub(super) fn ask<T>(&self, work: impl FnOnce(&mut dyn ClientModel, &mut Line<'_>) -> T) -> T {
        let mut inner = self.inner.lock();
        let Inner { model, own_random, .. } = &mut *inner;
        let mut line = Line { random: own_random, calm: self.world.is_calm(), commands: Vec::new() };
        let result = work(&mut **model, &mut line);
        let commands = line.commands;
        for command in commands {
            match command {
                Command::Send(frame) => {
                    inner.send_up(Up::Frame(frame), &self.world);
                    self.spoken.notify_one();
                }
                Command::Request(request) => {
                    inner.requests.ask(request);
                    self.requested.notify_one();
                }
                Command::Leave => {
                    inner.left = true;
                    inner.send_up(Up::Close, &self.world);
                    self.spoken.notify_one();
                }
                Command::Note(what) => self.world.note(format_args!("{}: {what}", self.name)),
                Command::Violation(what) => self.world.violated(format!("{}: {what}", self.name)),
            }
        }
        result
    }

    fn deliver(&self, frame: &Frame) {
        self.ask(|model, line| model.received(frame, line));
    }

    /// The code of a close at once or the status of a refusal, none if the line was cut.
    async fn connect(&self, runtime: &Runtime, mount: &str, wanted: Dial) -> Result<Wire, Option<u16>> {
        let (way, gives_up_after) = {
            let (faults, mut inner) = (&self.world.faults, self.inner.lock());
            let random = &mut inner.random;
            let gives_up = !self.world.is_calm() && faults.lost_upgrades > 0.0 && random.random_bool(faults.lost_upgrades);
            (up_to_ms(random, faults.latency_ms), gives_up.then(|| up_to_ms(random, 2 * faults.flush_ms + 3)))
        };
        sleep(way).await;
        let connecting = dial(runtime, mount, wanted);
        let connected = match gives_up_after {
            None => connecting.await,
            Some(wait) => match tokio::time::timeout(wait, connecting).await {
                Ok(connected) => connected,
                Err(_) => {
                    self.world.note(format_args!("{}: gave up connecting", self.name));
                    return Err(None);
                }
            },
        };
        self.world.alive().await;
        match connected {
            Ok(wire) => {
                self.world.note(format_args!("{}: connected", self.name));
                let mut inner = self.inner.lock();
                inner.connected = true;
                if inner.left {
                    inner.send_up(Up::Close, &self.world);
                }
                Ok(wire)
            }
            Err(NotConnected::Closed(frames, code)) => {
                self.world.note(format_args!("{}: closed at once with {code}", self.name));
                frames.iter().for_each(|frame| self.deliver(frame));
                Err(Some(code))
            }
            Err(NotConnected::Refused(status)) => {
                self.world.note(format_args!("{}: the connection was refused with status {status}", self.name));
                Err(Some(status))
            }
            Err(NotConnected::Stopping) => {
                self.world.note(format_args!("{}: the host is stopping", self.name));
                Err(None)
            }
        }
    }

    fn session(&self) -> Session {
        let (faults, now, calm) = (&self.world.faults, Instant::now(), self.world.is_calm());
        let inner = &mut *self.inner.lock();
        let (acts_alone, random) = (inner.model.acts_alone(), &mut inner.random);
        let latency_ms = random.random_range(0..=faults.latency_ms);
        let fault = |random: &mut StdRng, mean_ms| if calm { None } else { around_ms(random, mean_ms).map(|wait| now + wait) };
        Session {
            latency_ms,
            cut_at: fault(random, faults.cut_mean_ms),
            stall_at: fault(random, faults.stall_mean_ms),
            stalled_until: None,
            act_at: now + if acts_alone { LOOK } else { around_ms(random, faults.act_mean_ms).unwrap_or_default() },
        }
    }

    /// Carries frames until the connection is over; the close code as the client sees it. Its end comes back where
    /// the server does not know yet.
    async fn carry(&self, mut wire: Wire) -> (Option<Wire>, Option<u16>) {
        let mut session = self.session();
        let mut closing = false;
        loop {
            let now = Instant::now();
            if let Some(code) = self.arrivals(&mut session, now) {
                return (None, Some(code));
            }
            let up = self.inner.lock().up.front().map(|(due, up)| (*due, matches!(up, Up::Close)));
            if up.is_some_and(|(due, close)| due <= now && close) {
                wire.close(1000);
                return (None, None);
            }
            let calm = self.world.is_calm();
            if session.cut_at.is_some_and(|cut_at| cut_at <= now) && !calm {
                return (Some(wire), None);
            }
            let room = self.inner.lock().down_bytes < self.world.faults.window_bytes;
            let to_receive = session.stalled_until.is_none() && room && !closing;
            let to_send = up.is_some_and(|(due, _)| due <= now);
            let next = self.next_event(&session, up.map(|(due, _)| due).filter(|due| *due > now));
            tokio::select! {
                biased;
                event = wire.event(to_receive, to_send), if !closing => {
                    self.world.alive().await;
                    match event {
                        SocketEvent::Frame(frame) => self.send_down(frame, &session),
                        SocketEvent::Close(close) => {
                            closing = true;
                            self.inner.lock().push_down(Down::Close(close.code), session.latency_ms);
                        }
                        SocketEvent::Writable => self.send_up(&mut wire),
                    }
                }
                () = self.spoken.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// What is due at the client's end: frames, acts, stalls. The close code if the server's close arrived.
    fn arrivals(&self, session: &mut Session, now: Instant) -> Option<u16> {
        let calm = self.world.is_calm();
        if session.stalled_until.is_some_and(|until| until <= now || calm) {
            session.stalled_until = None;
        }
        if session.stall_at.is_some_and(|stall_at| stall_at <= now) && !calm {
            let random = &mut self.inner.lock().random;
            session.stalled_until = Some(now + up_to_ms(random, self.world.faults.stall_ms));
            session.stall_at = around_ms(random, self.world.faults.stall_mean_ms).map(|wait| now + wait);
        }
        while session.stalled_until.is_none() {
            let Some(down) = self.inner.lock().take_down(now) else { break };
            match down {
                Down::Frame(frame) => self.deliver(&frame),
                Down::Close(code) => return Some(code),
            }
        }
        if session.act_at <= now {
            session.act_at = now + if self.acts_alone() { LOOK } else { self.act() };
        }
        None
    }

    /// Lets the model act; how long until it may again.
    pub(super) fn act(&self) -> Duration {
        self.ask(|model, line| model.act(line));
        let mean_ms = if self.world.is_calm() { CALM_ACT_MS } else { self.world.faults.act_mean_ms };
        let wait = around_ms(&mut self.inner.lock().random, mean_ms).unwrap_or_default();
        wait.max(Duration::from_millis(1))
    }

    /// Whether the model acts also while it has no connection.
    pub(super) fn acts_alone(&self) -> bool {
        self.inner.lock().model.acts_alone()
    }

    fn next_event(&self, session: &Session, up: Option<Instant>) -> Instant {
        let down = self.inner.lock().down.front().map(|(due, _)| *due).filter(|_| session.stalled_until.is_none());
        let calm = self.world.is_calm();
        let faults = [session.cut_at, session.stall_at, session.stalled_until];
        let faults = faults.into_iter().flatten().filter(|_| !calm);
        faults.chain(down).chain(up).fold(session.act_at, Instant::min)
    }

    fn send_up(&self, wire: &mut Wire) {
        let mut inner = self.inner.lock();
        let Some((due, up)) = inner.up.pop_front() else { return };
        match up {
            Up::Close => inner.up.push_front((due, Up::Close)),
            Up::Frame(frame) => {
                if let Err(frame) = wire.send(frame) {
                    inner.up.push_front((due, Up::Frame(frame)));
                }
            }
        }
    }

    fn send_down(&self, frame: Frame, session: &Session) {
        let (faults, mut inner) = (&self.world.faults, self.inner.lock());
        let calm = self.world.is_calm();
        let breach = |random: &mut StdRng, share: f64| !calm && share > 0.0 && random.random_bool(share);
        if breach(&mut inner.random, faults.lost_frames) {
            return;
        }
        if breach(&mut inner.random, faults.doubled_frames) {
            inner.push_down(Down::Frame(frame.clone()), session.latency_ms);
        }
        inner.push_down(Down::Frame(frame), session.latency_ms);
    }

    /// The client is gone; the server may learn of it late.
    fn let_go(&self, wire: Option<Wire>) {
        let Some(wire) = wire else { return };
        let (faults, mut inner) = (&self.world.faults, self.inner.lock());
        let late = faults.half_open > 0.0 && inner.random.random_bool(faults.half_open);
        let wait = late.then(|| up_to_ms(&mut inner.random, faults.half_open_ms));
        drop(inner);
        if let Some(wait) = wait {
            tokio::spawn(async move {
                sleep(wait).await;
                drop(wire);
            });
        }
    }
}

impl Inner {
    /// Behind what is under way already.
    fn send_up(&mut self, up: Up, world: &World) {
        if self.connected {
            let due = Instant::now() + up_to_ms(&mut self.random, world.faults.latency_ms);
            let due = self.up.back().map_or(due, |(before, _)| due.max(*before));
            self.up.push_back((due, up));
        }
    }

    fn push_down(&mut self, down: Down, latency_ms: u64) {
        let due = Instant::now() + up_to_ms(&mut self.random, latency_ms);
        let due = self.down.back().map_or(due, |(before, _)| due.max(*before));
        self.down_bytes += down.len();
        self.down.push_back((due, down));
    }

    fn take_down(&mut self, now: Instant) -> Option<Down> {
        let (due, _) = self.down.front()?;
        if *due > now {
            return None;
        }
        let (_, down) = self.down.pop_front()?;
        self.down_bytes -= down.len();
        Some(down)
    }
}

impl Down {
    fn len(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Close(_) => 0,
        }
    }
}
