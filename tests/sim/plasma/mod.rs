//! plasma in the simulator (docs/protocols/plasma.md): clients that behave as Replicache does, an administrator, and an oracle
//! that knows the rows of every version.

pub mod admin;
pub mod browser;
pub mod client;
pub mod exchange;
pub mod history;
pub mod mutations;
pub mod observer;
pub mod oracle;
pub mod rows;
pub mod watcher;
pub mod wire;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use syncline::runtime::MountSettings;
use syncline::storage::Storage;
use syncline_tests::plasma::{fixture_with, plasma_mount};

use self::admin::Administrator;
use self::browser::{Browser, token};
use self::client::PlasmaClient;
use self::history::History;
use self::rows::{Caller, Rows};
use crate::engine::model::{ClientModel, Observer, ProtocolModel};
use crate::engine::world::World;

/// Who there is.
const USERS: [&str; 3] = ["alice", "bob", "carol"];
/// The database below the data folder.
const FILE: &str = "plasma/plasma.sqlite";

/// What the clients of a run do, and what goes wrong at their end.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Acts of a client before it is content.
    pub acts_max: u64,
    /// Mutations made at once.
    pub mutations_max: u64,
    /// Rows of the largest mutation.
    pub many: u64,
    /// Mutations that one push may have.
    pub push_max: usize,
    /// Some listen to the changes themselves.
    pub changes: bool,
    /// Users change their role, and with it what they see.
    pub switches: bool,
    /// The administrator compacts the log.
    pub compacts: bool,
    /// The administrator writes.
    pub writes: bool,
    /// The administrator forgets client groups.
    pub forgets: bool,
    /// Requests may arrive twice.
    pub doubled_requests: bool,
    /// Share of pokes that vanish.
    pub lost_pokes: f64,
    /// Deliberate breach, as in the faults.
    pub omitted_rows: f64,
    /// Deliberate breach, as in the faults.
    pub forged_answers: f64,
}

/// See the module.
pub struct PlasmaModel {
    random: StdRng,
    habits: Habits,
    settings: Value,
    history: Arc<Mutex<History>>,
    clients: usize,
    watchers: usize,
}

impl PlasmaModel {
    /// The model of a seed: it also decides how the mount is set.
    pub fn new(world: &World) -> Self {
        let mut random = world.random(0x91a5);
        let mut one_of = |choices: &[u64]| choices[random.random_range(0..choices.len())];
        let push_max = one_of(&[200, 200, 5]);
        let mut settings = json!({
            "maxMutationsPerPush": push_max,
            "maxPullPageSize": one_of(&[1000, 1000, 20, 3]),
            "auth": {"mode": "static", "tokens": tokens()},
        });
        if one_of(&[0, 0, 1]) == 1 {
            settings["poke"] = json!({"pingIntervalMs": 25000, "coalesceMs": one_of(&[5, 200])});
        }
        let mut log = json!({});
        if one_of(&[0, 0, 0, 1]) == 1 {
            log["compactEveryMs"] = one_of(&[4_000, 9_000]).into();
            log["keepVersions"] = one_of(&[0, 3, 40]).into();
        }
        let jobs = log != json!({});
        settings["changeLog"] = log;
        let history = History::default();
        let mut habits = Habits {
            acts_max: one_of(&[15, 30, 60]),
            mutations_max: one_of(&[1, 2, 6]),
            many: one_of(&[1, 3, 8]),
            push_max: usize::try_from(push_max).unwrap_or(usize::MAX),
            changes: one_of(&[0, 1]) == 1,
            switches: one_of(&[0, 0, 0, 1]) == 1,
            compacts: one_of(&[0, 1]) == 1 || jobs,
            writes: one_of(&[0, 1]) == 1,
            forgets: one_of(&[0, 0, 0, 1]) == 1,
            lost_pokes: 0.1 * [0.0, 0.0, 1.0, 5.0][usize::try_from(one_of(&[0, 1, 2, 3])).unwrap_or(0)],
            doubled_requests: world.faults.doubled_requests > 0.0,
            omitted_rows: world.faults.omitted_rows,
            forged_answers: world.faults.forged_answers,
        };
        // A stream goes on under the role that it was opened with, beside pulls under the other one.
        habits.changes &= !habits.switches;
        let seeded = one_of(&[0, 1]) == 1;
        let history = History { switches: habits.switches, seed: seeded.then(seed_rows), ..history };
        if seeded {
            settings["seed"] = seed();
        }
        Self { random, habits, settings, history: Arc::new(Mutex::new(history)), clients: 0, watchers: 0 }
    }
}

/// Everybody in both roles.
fn tokens() -> Value {
    let callers = USERS.into_iter().flat_map(|user| [false, true].map(|is_admin| Caller { user, is_admin }));
    let context = |caller: &Caller| json!({"userId": caller.user, "role": if caller.is_admin { "admin" } else { "member" }});
    callers.map(|caller| (token(&caller), context(&caller))).collect::<serde_json::Map<_, _>>().into()
}

/// Rows from the settings.
fn seed() -> Value {
    json!({
        "todos": [{"id": "t0", "owner": "alice", "title": "from the settings", "shared": false}, {"id": "t1", "owner": "bob", "title": "too"}],
        "members": [{"team": "x", "userId": "bob"}],
        "boards": [{"id": "b0", "team": "x", "name": "first"}, {"id": "b1", "team": "y", "name": "second"}],
    })
}

fn seed_rows() -> Rows {
    let mut rows = Rows::default();
    for (table, seeded) in seed().as_object().into_iter().flatten() {
        for row in seeded.as_array().into_iter().flatten() {
            let mut whole = if table == "todos" { mutations::todo_defaults() } else { json!({}) };
            if let (Some(whole), Some(row)) = (whole.as_object_mut(), row.as_object()) {
                whole.extend(row.clone());
            }
            rows.put(table, whole);
        }
    }
    rows
}

impl ProtocolModel for PlasmaModel {
    fn mount(&self) -> MountSettings {
        plasma_mount(fixture_with(self.settings.clone()))
    }

    fn clients(&mut self) -> Vec<Box<dyn ClientModel>> {
        self.clients = self.random.random_range(2..=6);
        let mut browsers: Vec<Arc<Mutex<Browser>>> = Vec::new();
        let mut clients: Vec<Box<dyn ClientModel>> = Vec::new();
        for number in 0..self.clients {
            let shared = !browsers.is_empty() && self.random.random_bool(0.4);
            let browser = if shared {
                browsers[self.random.random_range(0..browsers.len())].clone()
            } else {
                let caller = Caller { user: USERS[self.random.random_range(0..USERS.len())], is_admin: self.random.random_bool(0.1) };
                Browser::new(caller, self.random.random_bool(0.8), &mut self.history.lock())
            };
            browsers.push(browser.clone());
            let client = PlasmaClient::new(number, self.habits.clone(), browser, self.history.clone(), &mut self.random);
            clients.push(Box::new(client));
        }
        clients.push(Box::new(Administrator::new(self.habits.clone(), self.history.clone())));
        let watchers = watcher::drawn(&USERS, &self.history, &mut self.random);
        self.watchers = watchers.len();
        clients.extend(watchers.into_iter().map(|watcher| Box::new(watcher) as Box<dyn ClientModel>));
        clients
    }

    fn observer(&self) -> Option<Observer> {
        let history = self.history.clone();
        Some(Box::new(move |data| observer::observe(&history, &data.join(FILE))))
    }

    fn check(&self, data: &Path, _: &Storage) -> Vec<String> {
        let history = self.history.lock();
        let mut wrong = oracle::check(&history, &data.join(FILE), self.clients);
        wrong.extend(watcher::check(&history, self.watchers));
        wrong
    }
}
