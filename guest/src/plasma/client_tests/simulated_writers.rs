//! The sequencer under many writers that interleave, stall and die (section 14.3): no reader skips a version, and none comes twice.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::sequencing::{reserving, write_while_open};
use super::support::*;
use crate::plasma::cookie::Cookie;
use crate::plasma::regions::Regions;

const WRITERS: usize = 16;
const READERS: usize = 3;
const REGIONS: [&str; 3] = ["local", "eu", "us"];
const OF_RANGE: &str = "WHERE first_version = ? AND epoch = ?";

/// Where a writer is.
#[derive(Clone, Debug)]
enum Writer {
    Idle,
    Reserved(Json),
    Written(Json),
}

#[derive(Clone, Debug)]
enum Act {
    /// A writer does what comes next: it reserves so many versions, writes under them, closes. `at_once`: it writes and closes in one
    /// transaction. `dies`: before its transaction ends.
    Step { writer: usize, count: u64, at_once: bool, dies: bool },
    /// A writer dies between two steps, and begins anew.
    Die(usize),
    /// A client pushes; `hot`: the row that all pushes change.
    Push { hot: bool },
    /// A reader pulls a page.
    Pull { reader: usize, rows_max: usize },
    /// Time passes, and leases end.
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => (0..WRITERS, 1_u64..4, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(writer, count, at_once, dies)| Act::Step { writer, count, at_once, dies }),
        2 => (0..WRITERS).prop_map(Act::Die),
        4 => any::<bool>().prop_map(|hot| Act::Push { hot }),
        5 => (0..READERS, 1_usize..6).prop_map(|(reader, rows_max)| Act::Pull { reader, rows_max }),
        2 => (1_u64..6_000).prop_map(Act::Pass),
    ]
}

/// A client in the native dialect, which is told the version of each row.
struct Reader {
    group: String,
    cookie: Json,
    /// By key: version and row.
    rows: BTreeMap<String, (u64, Json)>,
    versions: BTreeSet<u64>,
}

impl Reader {
    fn new(number: usize) -> Self {
        Self { group: format!("r{number}"), cookie: Json::Null, rows: BTreeMap::new(), versions: BTreeSet::new() }
    }

    fn position(cookie: &Json) -> (f64, u64) {
        let cookie = Cookie::parse(cookie).unwrap();
        (cookie.loading(&Regions::new()).order, cookie.version())
    }

    /// Pulls a page; whether there is more.
    fn pull(&mut self, server: &Server, history: &BTreeMap<(String, u64), Json>, rows_max: usize) -> Result<bool, TestCaseError> {
        let body = json!({"protocolVersion": 1, "schemaVersion": "7", "clientGroupID": self.group, "clientID": "c", "cookie": self.cookie});
        let reply = server.post(&format!("/pull?limit={rows_max}"), "tok-bob", &body).json();
        let ((order, from), (next_order, to)) = (Self::position(&self.cookie), Self::position(&reply["cookie"]));
        let patch = reply["patch"].as_array().unwrap();
        prop_assert!(if reply["cookie"] == self.cookie { patch.is_empty() } else { next_order > order }, "{} after {}", reply, self.cookie);
        for (region, entry) in self.cookie["r"].as_object().into_iter().flatten() {
            prop_assert!(reply["cookie"]["r"][region].as_u64() >= entry.as_u64(), "{} fell in {}", region, reply);
        }
        for op in patch.iter().filter(|op| op["op"] == "put") {
            let version = op["version"].as_u64().unwrap();
            prop_assert!(version > from && version <= to, "{} between {} and {}", op, from, to);
            prop_assert!(self.versions.insert(version), "{} came twice", op);
            let (key, n) = (op["pk"][0].as_str().unwrap().to_owned(), op["row"]["n"].clone());
            prop_assert_eq!(history.get(&(key.clone(), version)), Some(&n), "{} is not what {} wrote", op, version);
            self.rows.insert(key, (version, n));
        }
        if reply["hasMore"] == false {
            prop_assert_eq!(
                to,
                server.get("/health", "").json()["version"].as_u64().unwrap(),
                "nobody waits for a range that is not below"
            );
        }
        self.cookie = reply["cookie"].clone();
        Ok(reply["hasMore"] == true)
    }
}

struct Simulated {
    server: Server,
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    /// Versions that were given out.
    given: BTreeSet<u64>,
    pushed: u64,
    /// What was committed: by key version and number.
    rows: BTreeMap<String, (u64, Json)>,
    /// The number of every row at every version that wrote it.
    history: BTreeMap<(String, u64), Json>,
}

impl Simulated {
    fn new() -> Self {
        let (writers, readers) = (vec![Writer::Idle; WRITERS], (0..READERS).map(Reader::new).collect());
        Self { server: reserving(), writers, readers, given: BTreeSet::new(), pushed: 0, rows: BTreeMap::new(), history: BTreeMap::new() }
    }

    fn act(&mut self, act: &Act) -> Result<(), TestCaseError> {
        match *act {
            Act::Step { writer, count, at_once, dies } => self.step(writer, count, at_once, dies)?,
            Act::Die(writer) => self.writers[writer] = Writer::Idle,
            Act::Push { hot } => self.push(hot)?,
            Act::Pull { reader, rows_max } => drop(self.readers[reader].pull(&self.server, &self.history, rows_max)?),
            Act::Pass(ms) => {
                self.server.host.now_ms.set(self.server.host.now_ms.get() + ms);
                self.server.fire_jobs("ranges/");
            }
        }
        Ok(())
    }

    fn step(&mut self, writer: usize, count: u64, at_once: bool, dies: bool) -> Result<(), TestCaseError> {
        self.writers[writer] = match std::mem::replace(&mut self.writers[writer], Writer::Idle) {
            Writer::Idle => {
                let asked = json!({"region": REGIONS[writer % REGIONS.len()], "count": count});
                let range = self.server.post("/admin/reserve", "admin-secret", &asked).json();
                for version in range["first"].as_u64().unwrap()..=range["last"].as_u64().unwrap() {
                    prop_assert!(self.given.insert(version), "version {} twice", version);
                }
                if dies { Writer::Idle } else { Writer::Reserved(range) }
            }
            Writer::Reserved(range) => {
                let versions: BTreeSet<_> = [&range["first"], &range["last"]].iter().map(|version| version.as_u64().unwrap()).collect();
                let ids: Vec<_> = versions.iter().map(|version| (*version, format!("w{writer}-{version}"))).collect();
                let rows: Vec<_> = ids.iter().map(|(version, id)| (*version, id.as_str())).collect();
                let open = match at_once {
                    true => format!("DELETE FROM t__plasma_open_ranges {OF_RANGE}"),
                    false => format!("UPDATE t__plasma_open_ranges SET region = region {OF_RANGE}"),
                };
                // It may have lost its range, and knows by that.
                let written = write_while_open(&self.server, &range, &open, &rows, !dies);
                if written {
                    self.history.extend(ids.iter().map(|(version, id)| ((id.clone(), *version), json!(1))));
                    self.rows.extend(ids.into_iter().map(|(version, id)| (id, (version, json!(1)))));
                }
                if written && !at_once { Writer::Written(range) } else { Writer::Idle }
            }
            Writer::Written(range) => {
                let close = json!({"close": {"first": range["first"], "epoch": range["epoch"]}});
                let reply = self.server.post("/admin/reserve", "admin-secret", &close).json();
                prop_assert_eq!(&reply["ok"], true);
                Writer::Idle
            }
        };
        Ok(())
    }

    fn push(&mut self, hot: bool) -> Result<(), TestCaseError> {
        self.pushed += 1;
        let id = if hot { "hot".to_owned() } else { format!("p{}", self.pushed) };
        let version = self.server.push("tok-alice", "g", "c", self.pushed, &[inc(&id)]).json()["cookie"].as_u64().unwrap();
        prop_assert!(self.given.insert(version), "version {} twice", version);
        let n = self.rows.get(&id).map_or(0, |(_, n)| n.as_u64().unwrap());
        self.history.insert((id.clone(), version), json!(n + 1));
        self.rows.insert(id, (version, json!(n + 1)));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_reader_skips_a_version_and_none_comes_twice(acts in prop::collection::vec(act(), 1..160)) {
        let mut simulated = Simulated::new();
        acts.iter().try_for_each(|act| simulated.act(act))?;
        // All leases end.
        simulated.act(&Act::Pass(20_000))?;
        let Simulated { server, readers, rows, history, given, .. } = &mut simulated;
        for reader in readers {
            while reader.pull(server, history, 4)? {}
            prop_assert_eq!(&reader.rows, &*rows);
        }
        prop_assert_eq!(given.last().copied().unwrap_or(0), given.len() as u64, "each version has one that took it");
    }
}
