//! secsync in the simulator (docs/protocols/secsync.md): clients that sign, write, lose their lines and come back, and an
//! oracle over what they were told.

pub mod client;
pub mod history;
pub mod oracle;
pub mod replica;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;
use syncline::runtime::MountSettings;
use syncline::storage::Storage;
use syncline_tests::server::secsync_mount;

use self::client::{Habits, SecsyncClient};
use self::history::History;
use crate::engine::model::{ClientModel, ProtocolModel};
use crate::engine::world::World;

/// The name of the mount.
const MOUNT: &str = "secsync";

/// See the module.
pub struct SecsyncModel {
    random: StdRng,
    habits: Habits,
    settings: serde_json::Value,
    history: Arc<Mutex<History>>,
}

impl SecsyncModel {
    /// The model of a seed: it also decides how the mount is set.
    pub fn new(world: &World) -> Self {
        let mut random = world.random(0x5ec);
        let mut one_of = |choices: &[u64]| choices[random.random_range(0..choices.len())];
        let quiet = one_of(&[0, 1]) == 1;
        let mut settings = json!({
            "quiet_pipelined_refusals": quiet,
            "max_updates_per_snapshot": one_of(&[0, 0, 5, 20]),
            "snapshot_grace_ms": one_of(&[0, 0, 0, 300]),
            "max_backlog_bytes": one_of(&[16 << 20, 16 << 20, 64 << 10, 6 << 10]),
            "verify": {"parent_proof": if one_of(&[0, 1]) == 0 { "on" } else { "strict" }},
        });
        if one_of(&[0, 0, 1]) == 1 {
            // The component encodes each broadcast, instead of the host forwarding it.
            settings["broadcast_access"] = "policy".into();
            settings["policy"] = json!([{"session_keys": ["*"], "documents": ["*"], "actions": ["read"], "broadcast": true}]);
        }
        let habits = Habits {
            quiet,
            documents: one_of(&[1, 1, 2]),
            pipelined_max: one_of(&[1, 4, 4, 20]),
            acts_max: one_of(&[20, 40, 60]),
            large: one_of(&[0, 0, 1]) == 1,
            shared_author: one_of(&[0, 0, 0, 0, 1]) == 1,
            snapshots: 0.01 * [2.0, 10.0, 30.0][usize::try_from(one_of(&[0, 1, 2])).unwrap_or(0)],
        };
        Self { random, habits, settings, history: Arc::default() }
    }
}

impl ProtocolModel for SecsyncModel {
    fn mount(&self) -> MountSettings {
        secsync_mount(MOUNT, self.settings.clone())
    }

    fn clients(&mut self) -> Vec<Box<dyn ClientModel>> {
        let count = self.random.random_range(2..=6_u8);
        let client = |number: u8| {
            let document = format!("d{}", u64::from(number) % self.habits.documents);
            let author = if self.habits.shared_author { number / 2 } else { number };
            SecsyncClient::new(document, author + 1, self.habits.clone(), self.history.clone())
        };
        (0..count).map(|number| Box::new(client(number)) as Box<dyn ClientModel>).collect()
    }

    fn check(&self, data: &Path, storage: &Storage) -> Vec<String> {
        oracle::check(&self.history.lock(), &data.join(MOUNT).join("secsync.sqlite"), storage, MOUNT)
    }
}
