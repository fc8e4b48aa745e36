//! The limits at work: permits that end by themselves, and how long to wait before reading on.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::address::{AddressKey, Client, Network};
use super::limits::{AddressBook, Limits, Refusal};
use super::rate::{Meter, Rates};
use crate::runtime::Asker;

/// How long a client should wait that has too many connections.
const CROWDED_RETRY: Duration = Duration::from_secs(5);

/// The limits of a process.
pub(crate) struct Limiter {
    pub(crate) limits: Limits,
    trusted_proxies: Vec<Network>,
    rates: Rates,
    address_rates: bool,
    book: Mutex<AddressBook>,
    started: Instant,
}

/// A place among the connections of the process.
pub(crate) struct ConnectionPermit(Arc<Limiter>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.book.lock().close();
    }
}

/// A place among the connections of an address.
pub(crate) struct AddressPermit(Arc<Limiter>, AddressKey);

impl Drop for AddressPermit {
    fn drop(&mut self) {
        self.0.book.lock().leave(self.1, self.0.now());
    }
}

impl Limiter {
    /// `connections_possible` is what the process could hold at all.
    pub(crate) fn new(limits: Limits, trusted_proxies: Vec<Network>, connections_possible: u64) -> Arc<Self> {
        let book = AddressBook::new(&limits, connections_possible);
        Arc::new(Self {
            rates: limits.connection_rates(),
            address_rates: book.has_rates(),
            limits,
            trusted_proxies,
            book: Mutex::new(book),
            started: Instant::now(),
        })
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// A place for a connection.
    pub(crate) fn open(self: &Arc<Self>) -> Result<ConnectionPermit, Refusal> {
        self.book.lock().open()?;
        Ok(ConnectionPermit(self.clone()))
    }

    /// A place for a connection of an address; a trusted proxy needs none.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Option<AddressPermit>, Refusal> {
        if self.trusted_proxies.iter().any(|network| network.contains(address)) {
            return Ok(None);
        }
        let key = AddressKey::new(address);
        self.book.lock().enter(key, self.now())?;
        Ok(Some(AddressPermit(self.clone(), key)))
    }
}

/// A connection as the server sees it before any request.
pub(crate) struct Peer {
    limiter: Arc<Limiter>,
    remote: IpAddr,
    /// Whether it is a TLS connection.
    secure: bool,
    flow: Arc<Flow>,
    /// Told when a client does not take the end of its answer: the connection is to be cut.
    pub(crate) cut: Arc<Notify>,
}

impl Peer {
    pub(crate) fn new(limiter: &Arc<Limiter>, remote: IpAddr, secure: bool) -> Self {
        Self { limiter: limiter.clone(), remote, secure, flow: Flow::new(limiter, remote), cut: Arc::default() }
    }

    /// Who sends a request.
    pub(crate) fn visitor(&self, headers: &hyper::HeaderMap, gone: oneshot::Receiver<Infallible>) -> Visitor {
        let client = Client::of(self.remote, self.secure, headers, &self.limiter.trusted_proxies);
        // The connection of a proxy is shared: each of its requests has buckets of its own.
        let flow = if client.forwarded { Flow::new(&self.limiter, client.address) } else { self.flow.clone() };
        Visitor { client, flow, asker: Asker { gone, cut: self.cut.clone() } }
    }
}

/// Whoever sent a request.
pub(crate) struct Visitor {
    pub(crate) client: Client,
    pub(crate) flow: Arc<Flow>,
    /// As a mount knows it.
    pub(crate) asker: Asker,
}

impl Visitor {
    /// How long it may not try to log in, if it may not.
    pub(crate) fn locked_out(&self) -> Option<Duration> {
        let limiter = &self.flow.limiter;
        limiter.book.lock().locked_out(self.flow.key, limiter.now())
    }

    /// Its login failed.
    pub(crate) fn failed_login(&self) {
        let limiter = &self.flow.limiter;
        limiter.book.lock().failed_login(self.flow.key, limiter.now());
    }

    /// A place for a socket where a proxy holds the connection. Whoever is connected itself has one already.
    pub(crate) fn permit(&self) -> Result<Option<AddressPermit>, Duration> {
        if !self.client.forwarded {
            return Ok(None);
        }
        self.flow.limiter.enter(self.client.address).map_err(|_| CROWDED_RETRY)
    }
}

/// What comes on a connection, measured for it and for its address.
pub(crate) struct Flow {
    limiter: Arc<Limiter>,
    key: AddressKey,
    meter: Mutex<Meter>,
}

impl Flow {
    fn new(limiter: &Arc<Limiter>, address: IpAddr) -> Arc<Self> {
        Arc::new(Self { limiter: limiter.clone(), key: AddressKey::new(address), meter: Mutex::default() })
    }

    /// The time that its rates are measured by.
    pub(crate) fn now(&self) -> Duration {
        self.limiter.now()
    }

    /// Time without enough progress.
    pub(crate) fn stall_timeout(&self) -> Duration {
        self.limiter.limits.stall_timeout()
    }

    /// Frames and bytes came.
    pub(crate) fn take(&self, frames: u64, bytes: u64) {
        if !self.limiter.rates.is_unlimited() {
            self.meter.lock().take(&self.limiter.rates, self.now(), frames, bytes);
        }
        if self.limiter.address_rates {
            self.limiter.book.lock().take(self.key, self.now(), frames, bytes);
        }
    }

    /// How long not to read.
    pub(crate) fn wait(&self) -> Duration {
        let own = match self.limiter.rates.is_unlimited() {
            true => Duration::ZERO,
            false => self.meter.lock().wait(&self.limiter.rates, self.now()),
        };
        match self.limiter.address_rates {
            true => own.max(self.limiter.book.lock().wait(self.key, self.now())),
            false => own,
        }
    }

    /// Waits until there is room.
    pub(crate) async fn room(&self) {
        loop {
            let wait = self.wait();
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }
}
