//! A client of plasma that behaves as Replicache does: it keeps a replica and pushes all that is not confirmed, one push and
//! one pull at a time; it pulls when it is poked, now and then by itself, and never because it pushed. What it asks for and
//! what it makes of the answers: `exchange.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use syncline::runtime::queue::Frame;
use syncline_tests::plasma::Replica;

use super::Habits;
use super::browser::Browser;
use super::exchange::Asked;
use super::history::{History, reached};
use super::mutations::{self, Mutation};
use super::wire::{Told, head, told_by_events, told_by_socket};
use crate::engine::model::{Answer, ClientModel, Dial, Line};

/// Close codes and statuses that a client meets that does nothing wrong: stopping, restarting, idle and slow while it does not
/// read, ended or broken off; away, and away where an upgrade was asked for.
pub(super) const CODES: [u16; 8] = [1000, 1001, 1006, 1012, 4408, 4429, 503, 500];

/// How a client listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// To pokes on a WebSocket.
    Socket,
    /// To pokes as events.
    Events,
    /// To the changes themselves. It never pulls.
    Changes,
}

/// One life of a client: a tab of its browser.
pub struct Tab {
    /// `clientID`
    pub id: String,
    /// Mutations so far.
    pub made: u64,
    /// The last of its own mutations that a push was acknowledged for.
    pub acknowledged: u64,
    /// Its copy of the rows.
    pub replica: Replica,
    /// As far as it knows there is nothing more.
    pub caught_up: bool,
    /// A version that it was told of: a pull from now on must reach it.
    pub told: u64,
    /// A push is under way.
    pub pushing: bool,
    /// A pull is under way.
    pub pulling: bool,
    /// There is something to push.
    pub push_due: bool,
    /// There may be something to pull.
    pub pull_due: bool,
}

/// See the module.
pub struct PlasmaClient {
    pub(super) number: usize,
    pub(super) habits: Habits,
    pub(super) listening: Listening,
    pub(super) native: bool,
    /// `?limit=`
    pub(super) rows_max: Option<u64>,
    pub(super) history: Arc<Mutex<History>>,
    pub(super) browser: Arc<Mutex<Browser>>,
    pub(super) tab: Tab,
    /// Tabs so far.
    pub(super) tabs: u64,
    /// Requests under way.
    pub(super) asked: BTreeMap<u64, Asked>,
    pub(super) tags: u64,
    /// What tabs left that are gone is to be pushed.
    pub(super) recovers: bool,
    /// The tab that the connection belongs to.
    pub(super) connected_tab: u64,
    acts: u64,
    /// `hello` has come on this connection.
    greeted: bool,
    wrote_in_calm: bool,
    calm: bool,
}

impl Tab {
    fn new(id: String, replica: Replica) -> Self {
        Self {
            id,
            made: 0,
            acknowledged: 0,
            replica,
            caught_up: false,
            told: 0,
            pushing: false,
            pulling: false,
            push_due: false,
            pull_due: true,
        }
    }

    /// The version that its rows are of.
    pub fn version(&self) -> u64 {
        reached(&self.replica.cookie).map_or(0, |reached| reached.version)
    }
}

impl PlasmaClient {
    /// A client that has never been connected.
    pub fn new(number: usize, habits: Habits, browser: Arc<Mutex<Browser>>, history: Arc<Mutex<History>>, random: &mut StdRng) -> Self {
        let listening = match random.random_range(0..4) {
            0 if habits.changes => Listening::Changes,
            1 => Listening::Events,
            _ => Listening::Socket,
        };
        let id = format!("c{number}");
        browser.lock().open.insert(id.clone());
        Self {
            number,
            listening,
            native: random.random_bool(0.4),
            rows_max: random.random_bool(0.5).then(|| random.random_range(1..=12)),
            habits,
            history,
            browser,
            tab: Tab::new(id, Replica::new()),
            tabs: 1,
            asked: BTreeMap::new(),
            tags: 0,
            recovers: false,
            connected_tab: 0,
            acts: 0,
            greeted: false,
            wrote_in_calm: false,
            calm: false,
        }
    }

    fn mutate(&mut self, (name, args): (String, Value), line: &mut Line<'_>) {
        let mut browser = self.browser.lock();
        self.tab.made += 1;
        let (client, id) = (self.tab.id.clone(), self.tab.made);
        let timestamp_ms = mutations::timestamp_ms(line.random);
        line.note(format!("makes {client}#{id} {name} {args}"));
        let mutation = Mutation { client: client.clone(), id, name, args, timestamp_ms, caller: browser.caller.clone() };
        self.history.lock().mutations.insert((client.clone(), id), mutation.clone());
        browser.pending.entry(client).or_default().insert(id, mutation);
        self.tab.push_due = true;
    }

    /// The tab is closed and another one opened: a new client, with what is kept of the rows or without.
    fn reload(&mut self, line: &mut Line<'_>) {
        let mut browser = self.browser.lock();
        browser.open.remove(&self.tab.id);
        self.tabs += 1;
        let id = format!("c{}-{}", self.number, self.tabs);
        browser.open.insert(id.clone());
        let kept = line.random.random_bool(0.5);
        line.note(format!("reloads as {id}, {} rows", if kept { "with its" } else { "without" }));
        let replica = if kept { self.tab.replica.clone() } else { Replica::new() };
        self.tab = Tab::new(id, replica);
        // A stream of changes goes on from the cookie that it was opened with.
        line.leave();
    }

    /// The group is lost, with all that was not confirmed: a new one.
    pub(super) fn begin_anew(&mut self, line: &mut Line<'_>) {
        let (caller, names_group) = {
            let mut browser = self.browser.lock();
            browser.open.remove(&self.tab.id);
            (browser.caller.clone(), browser.names_group)
        };
        self.browser = Browser::new(caller, names_group, &mut self.history.lock());
        self.tabs += 1;
        let id = format!("c{}-{}", self.number, self.tabs);
        self.browser.lock().open.insert(id.clone());
        line.note(format!("begins anew as {id} of {}", self.browser.lock().group));
        self.tab = Tab::new(id, Replica::new());
        line.leave();
    }

    /// The same user with another role. Not while something is not confirmed: who it was made as decides what it does.
    fn switch(&mut self, line: &mut Line<'_>) {
        let mut browser = self.browser.lock();
        if !browser.pending.is_empty() {
            return;
        }
        browser.caller.is_admin ^= true;
        line.note(format!("is {:?} from now on", browser.caller));
        if let Some(group) = self.history.lock().groups.get_mut(&browser.group) {
            group.switched = true;
        }
        self.tab.pull_due = true;
    }

    fn act_at_random(&mut self, line: &mut Line<'_>) {
        if self.acts >= self.habits.acts_max {
            return;
        }
        self.acts += 1;
        match line.random.random_range(0..100) {
            0..55 => {
                for _ in 0..line.random.random_range(1..=self.habits.mutations_max) {
                    let drawn = mutations::drawn(line.random, self.habits.many);
                    self.mutate(drawn, line);
                }
            }
            55..62 => self.recovers = true,
            62..68 => self.tab.pull_due = true,
            68..70 => self.reload(line),
            70..73 => line.leave(),
            73..76 if self.listening == Listening::Socket => line.send_text(json!({"type": "ping"}).to_string()),
            76..80 => self.probe(line),
            80..82 if self.habits.switches => self.switch(line),
            _ => {}
        }
    }

    fn act_in_calm(&mut self, line: &mut Line<'_>) {
        if !self.calm {
            // Whatever was lost before is asked for once more.
            self.calm = true;
            self.tab.pull_due = true;
            self.tab.push_due |= !self.browser.lock().pending_of(&self.tab.id).is_empty();
        }
        self.recovers = true;
        if !self.wrote_in_calm && self.browser.lock().pending_of(&self.tab.id).is_empty() {
            self.wrote_in_calm = true;
            self.mutate(("inc".into(), json!({"id": "calm", "by": 1})), line);
        }
    }

    fn hears(&mut self, told: Told, line: &mut Line<'_>) {
        if let Told::Hello(version) | Told::Poke(version) = told {
            let durable = self.history.lock().version;
            if version > durable {
                line.violation(format!("told of version {version}, and {durable} is the newest that is durable"));
            }
        }
        if !self.greeted && !matches!(told, Told::Hello(_)) {
            line.violation(format!("before hello: {told:?}"));
        }
        match told {
            Told::Hello(version) => {
                line.note(format!("hears hello at {version}"));
                self.greeted = true;
                self.tab.told = self.tab.told.max(version);
                self.tab.pull_due |= version > self.tab.version();
            }
            Told::Poke(_) if !line.calm && self.habits.lost_pokes > 0.0 && line.random.random_bool(self.habits.lost_pokes) => {}
            Told::Poke(version) => {
                line.note(format!("is poked at {version}"));
                self.tab.told = self.tab.told.max(version);
                self.tab.pull_due = true;
            }
            Told::Pong => {}
            Told::Changes(changes) => self.changed(&changes, line),
            Told::StateLost if self.connected_tab != self.tabs => {}
            Told::StateLost => {
                let group = self.browser.lock().group.clone();
                self.state_lost(&group, line);
            }
        }
        self.ask_what_is_due(line);
    }
}

impl ClientModel for PlasmaClient {
    fn connect(&mut self, line: &mut Line<'_>) -> Dial {
        self.greeted = false;
        self.connected_tab = self.tabs;
        let browser = self.browser.lock();
        let named = self.listening == Listening::Changes || browser.names_group;
        let mut query = if named { format!("clientGroupID={}", browser.group) } else { String::new() };
        if self.listening == Listening::Changes {
            query += &format!("&mode=data&cookie={}", percent_encode(&self.tab.replica.cookie.to_string()));
        }
        line.note(format!("connects with {query}"));
        let query = Some(query).filter(|query| !query.is_empty());
        match self.listening {
            Listening::Socket => Dial::Socket(head("/ws", query, &browser.token())),
            Listening::Events | Listening::Changes => Dial::Stream(head("/poke", query, &browser.token())),
        }
    }

    fn received(&mut self, frame: &Frame, line: &mut Line<'_>) {
        let Frame::Text(text) = frame else { return line.violation("a binary frame".into()) };
        let told = if self.listening == Listening::Socket { told_by_socket(text) } else { told_by_events(text) };
        match told {
            Ok(told) => told.into_iter().for_each(|told| self.hears(told, line)),
            Err(what) => line.violation(format!("a frame that says nothing known: {what}")),
        }
    }

    fn answered(&mut self, tag: u64, answer: Option<Answer>, line: &mut Line<'_>) {
        match self.asked.remove(&tag) {
            Some(asked) => self.hear_answer(asked, answer, line),
            None => line.violation("an answer to a request that was not made".into()),
        }
        self.ask_what_is_due(line);
    }

    fn act(&mut self, line: &mut Line<'_>) {
        if line.calm {
            self.act_in_calm(line)
        } else {
            self.act_at_random(line)
        }
        self.ask_what_is_due(line);
    }

    fn acts_alone(&self) -> bool {
        true
    }

    fn disconnected(&mut self, code: Option<u16>, line: &mut Line<'_>) {
        self.greeted = false;
        if let Some(code) = code.filter(|code| !CODES.contains(code)) {
            line.violation(format!("closed or refused with {code}"));
        }
    }

    fn is_settled(&self) -> bool {
        let (tab, browser) = (&self.tab, self.browser.lock());
        let nothing_due = !tab.push_due && !tab.pull_due && self.asked.is_empty();
        let caught_up = if self.listening == Listening::Changes { tab.replica.cookie.is_u64() } else { tab.caught_up };
        nothing_due && self.greeted && self.wrote_in_calm && caught_up && browser.pending.is_empty()
    }
}

/// Escapes everything but letters and digits.
fn percent_encode(text: &str) -> String {
    let escaped = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escaped).collect()
}
