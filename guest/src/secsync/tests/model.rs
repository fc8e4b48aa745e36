//! Random interleavings of several authors against a list: one total order, no hole in any author's clocks, and a delta is
//! exactly what is missing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::secsync::test_support::*;

const AUTHORS: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// An author's next update, off by so much.
    Update { author: u8, off_by: i64 },
    /// A snapshot on the active one; with the right clocks or with none.
    Snapshot { author: u8, knows_all: bool, on_active: bool },
    /// A reader reconnects with what it has.
    Reconnect,
}

fn any_step() -> impl Strategy<Value = Step> {
    let author = 0..AUTHORS;
    prop_oneof![
        6 => (author.clone(), prop_oneof![4 => Just(0), 1 => -2i64..3]).prop_map(|(author, off_by)| Step::Update { author, off_by }),
        2 => (author, prop::bool::weighted(0.8), prop::bool::weighted(0.8))
            .prop_map(|(author, knows_all, on_active)| Step::Snapshot { author, knows_all, on_active }),
        2 => Just(Step::Reconnect),
    ]
}

/// What the document should be: its snapshots, and the updates on the last one.
#[derive(Default)]
struct Oracle {
    snapshots: Vec<Json>,
    updates: Vec<Json>,
    clocks: BTreeMap<String, i64>,
    commits: usize,
}

impl Oracle {
    fn active_id(&self) -> &str {
        self.snapshots.last().map_or("", |snapshot| snapshot["publicData"]["snapshotId"].as_str().unwrap())
    }
}

/// What a reader has made of what it was sent, as a client would.
#[derive(Default)]
struct Reader {
    snapshot: Option<Json>,
    updates: Vec<Json>,
    known: usize,
}

impl Reader {
    fn apply(&mut self, frames: Vec<Json>) {
        for mut frame in frames {
            match frame["type"].as_str().unwrap() {
                "document" => {
                    if let Some(snapshot) = frame.get("snapshot") {
                        self.snapshot = Some(snapshot.clone());
                        self.updates.clear();
                    }
                    for update in frame["updates"].as_array().unwrap() {
                        self.add(update.clone());
                    }
                }
                "snapshot" => {
                    let parent = self.snapshot.as_ref().map_or("", |snapshot| snapshot["publicData"]["snapshotId"].as_str().unwrap());
                    assert_eq!(frame["snapshot"]["publicData"]["parentSnapshotId"], parent, "snapshots come in the order of their chain");
                    self.snapshot = Some(frame["snapshot"].clone());
                    self.updates.clear();
                }
                "update" => {
                    frame.as_object_mut().unwrap().remove("type");
                    self.add(frame);
                }
                other => panic!("{other}"),
            }
        }
    }

    /// A hole in an author's clocks is fatal for a client.
    fn add(&mut self, update: Json) {
        let author = &update["publicData"]["pubKey"];
        let next = self.updates.iter().filter(|have| have["publicData"]["pubKey"] == *author).count();
        assert_eq!(update["publicData"]["clock"], next);
        assert_eq!(update["publicData"]["refSnapshotId"], self.snapshot.as_ref().unwrap()["publicData"]["snapshotId"]);
        self.updates.push(update);
        self.known += 1;
    }

    fn url(&self) -> String {
        let Some(snapshot) = &self.snapshot else { return "/secsync/doc?sessionKey=r&mode=delta".into() };
        let mut clocks = BTreeMap::new();
        for update in &self.updates {
            clocks.insert(update["publicData"]["pubKey"].as_str().unwrap(), update["publicData"]["clock"].as_i64().unwrap());
        }
        let clocks: String = form_urlencoded::byte_serialize(json!(clocks).to_string().as_bytes()).collect();
        let id = snapshot["publicData"]["snapshotId"].as_str().unwrap();
        format!("/secsync/doc?sessionKey=r&mode=delta&knownSnapshotId={id}&knownSnapshotUpdateClocks={clocks}")
    }
}

fn step(host: &TestHost, authors: &[Author], peers: &[Peer<'_>], oracle: &mut Oracle, number: usize, step: &Step) {
    match *step {
        Step::Reconnect => {}
        Step::Update { author, off_by } => {
            let (author, peer) = (&authors[author as usize], &peers[author as usize]);
            let next = oracle.clocks.get(&author.pub_key).map_or(0, |last| last + 1);
            let clock = (next + off_by).max(0) as u64;
            let update = author.update("doc", oracle.active_id(), clock, &number.to_string());
            let fits = clock as i64 == next && !oracle.snapshots.is_empty();
            let reply = if oracle.snapshots.is_empty() { Json::Null } else { peer.ask(&update) };
            if fits {
                assert_eq!(reply, saved(oracle.active_id(), clock));
                oracle.clocks.insert(author.pub_key.clone(), next);
                oracle.updates.push(update);
                oracle.commits += 1;
            } else if !reply.is_null() {
                assert_eq!(reply, refused(oracle.active_id(), clock));
            }
        }
        Step::Snapshot { author, knows_all, on_active } => {
            let (author, peer) = (&authors[author as usize], &peers[author as usize]);
            let parent = if on_active { oracle.snapshots.last() } else { oracle.snapshots.first() };
            let is_active = parent == oracle.snapshots.last();
            let clocks = if knows_all { json!(oracle.clocks) } else { json!({}) };
            let snapshot = author.snapshot("doc", &format!("s{number}"), parent, clocks);
            let reply = peer.ask(&snapshot);
            if !is_active {
                let active = oracle.snapshots.last().unwrap();
                assert_eq!((&reply["snapshot"], &reply["updates"]), (active, &json!(oracle.updates)));
            } else if !knows_all && !oracle.clocks.is_empty() {
                assert_eq!(reply, json!({"type": "snapshot-save-failed", "updates": oracle.updates}));
            } else {
                assert_eq!(reply["type"], "snapshot-saved");
                oracle.snapshots.push(snapshot);
                oracle.updates.clear();
                oracle.clocks.clear();
                oracle.commits += 1;
            }
        }
    }
    assert_eq!(host.sql("SELECT seq FROM t_ss_documents"), [[crate::imports::Value::Integer(oracle.commits as i64)]]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_interleaving_is_one_order_that_all_readers_see(steps in prop::collection::vec(any_step(), 1..40)) {
        let host = TestHost::new(json!({"quiet_pipelined_refusals": false}));
        let authors: Vec<_> = (0..AUTHORS).map(Author::new).collect();
        let peers: Vec<_> = (0..AUTHORS).map(|_| host.join("doc", "w")).collect();
        // One reader stays connected, one comes and goes.
        let (mut steady, mut fleeting, mut oracle) = (Reader::default(), Reader::default(), Oracle::default());
        let listener = host.join("doc", "r");
        for (number, one) in steps.iter().enumerate() {
            step(&host, &authors, &peers, &mut oracle, number, one);
            steady.apply(listener.take());
            if matches!(one, Step::Reconnect) {
                let had = fleeting.known;
                let same_snapshot = fleeting.snapshot.as_ref() == oracle.snapshots.last();
                let missing = oracle.updates.len() - if same_snapshot { fleeting.updates.len() } else { 0 };
                let document = host.open(&fleeting.url()).take();
                fleeting.apply(document);
                prop_assert_eq!(fleeting.known - had, missing, "no more and no less than what is missing");
                prop_assert_eq!((&fleeting.snapshot, &fleeting.updates), (&oracle.snapshots.last().cloned(), &oracle.updates));
            }
            prop_assert_eq!((&steady.snapshot, &steady.updates), (&oracle.snapshots.last().cloned(), &oracle.updates));
        }
    }
}
