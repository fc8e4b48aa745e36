//! Redis beside the database: it is told of publications, and asked for the newest position in the database's place.
//!
//! Nothing rests on it: what it does not know the database does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::ports::{Ports, Redis};
use crate::settings::Secret;

/// However Redis answers, the database is looked at this often, in milliseconds: an announcement may have been lost.
const DATABASE_MS: u64 = 2_000;

/// Sets a position, but never to a smaller one.
const RAISE: &str = "local known = tonumber(redis.call('GET', KEYS[1]) or '0') \
                     if tonumber(ARGV[1]) > known then redis.call('SET', KEYS[1], ARGV[1]) end return 1";

/// See the module.
pub struct Announcer {
    ports: Rc<Ports>,
    address: Secret,
    connection: RefCell<Option<Box<dyn Redis>>>,
    database_ms: Cell<u64>,
    failing: Cell<bool>,
}

impl Announcer {
    /// For a server that is connected to when it is first needed.
    pub fn new(ports: Rc<Ports>, address: Secret) -> Self {
        Self { ports, address, connection: RefCell::default(), database_ms: Cell::new(0), failing: Cell::new(false) }
    }

    fn with<T>(&self, run: impl FnOnce(&dyn Redis) -> Result<T, String>) -> Result<T, String> {
        let mut connection = self.connection.borrow_mut();
        let connected = match &mut *connection {
            Some(connected) => connected,
            none => none.insert(self.ports.redis.open(self.address.expose()).map_err(|error| error.to_string())?),
        };
        let done = run(connected.as_ref());
        if done.is_err() {
            *connection = None;
        } else {
            self.failing.set(false);
        }
        done
    }

    /// A mount has publications up to a position.
    pub fn announce(&self, mount: &str, position: u64) -> Result<(), String> {
        let (key, position) = (key(mount), position.to_string());
        self.with(|redis| {
            redis.command("EVAL", &[RAISE.as_bytes(), b"1", key.as_bytes(), position.as_bytes()]).map_err(|error| error.to_string())?;
            let channel = format!("syncline:{mount}");
            redis.command("PUBLISH", &[channel.as_bytes(), position.as_bytes()]).map(drop).map_err(|error| error.to_string())
        })
    }

    /// The newest positions of mounts; none where the database must be asked.
    pub fn positions(&self, mounts: &[String], now_ms: u64) -> Result<Option<Vec<u64>>, String> {
        if now_ms >= self.database_ms.get().saturating_add(DATABASE_MS) {
            self.database_ms.set(now_ms);
            return Ok(None);
        }
        self.with(|redis| {
            let mut positions = Vec::with_capacity(mounts.len());
            for mount in mounts {
                let known = redis.command("GET", &[key(mount).as_bytes()]).map_err(|error| error.to_string())?;
                let known = known.and_then(|known| std::str::from_utf8(&known).ok().and_then(|text| text.parse().ok()));
                match known {
                    Some(position) => positions.push(position),
                    None => return Ok(None),
                }
            }
            Ok(Some(positions))
        })
    }

    /// Whether this is the first failure after it worked: only that one is logged.
    pub fn fails_anew(&self) -> bool {
        !self.failing.replace(true)
    }
}

fn key(mount: &str) -> String {
    format!("syncline:{mount}:position")
}
