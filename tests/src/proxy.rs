//! A line between a client and a server that counts how often one waits for the other, and that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How long a client must have been silent before an answer is passed on: what it sends in one go counts as one.
const QUIET: Duration = Duration::from_millis(40);

/// What is cut when a client sends a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never gets it.
    Request,
    /// The client never gets the answer.
    Answer,
}

/// A listening proxy; it ends with the test's runtime.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    line: Arc<Line>,
}

struct Line {
    server: SocketAddr,
    round_trips: AtomicU64,
    cut: Mutex<Option<(&'static str, Cut)>>,
}

impl Proxy {
    /// Starts one in front of a server.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let line = Arc::new(Line { server, round_trips: AtomicU64::new(0), cut: Mutex::new(None) });
        let of_listener = Arc::clone(&line);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, Arc::clone(&of_listener)));
            }
        });
        Self { address, line }
    }

    /// How often a client has waited for an answer since this was last asked.
    pub fn round_trips(&self) -> u64 {
        self.line.round_trips.swap(0, Ordering::SeqCst)
    }

    /// Cuts the connection on which a word is sent next.
    pub fn cut_at(&self, word: &'static str, cut: Cut) {
        *self.line.cut.lock() = Some((word, cut));
    }

    /// Whether it was cut.
    pub fn was_cut(&self) -> bool {
        self.line.cut.lock().is_none()
    }
}

/// Passes on what both sides say, until one ends or the line is cut.
async fn pass(mut client: TcpStream, line: Arc<Line>) {
    let Ok(mut server) = TcpStream::connect(line.server).await else { return };
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut waits = false;
    loop {
        tokio::select! {
            biased;
            read = client.read(&mut request) => {
                let Ok(length @ 1..) = read else { return };
                let found = {
                    let mut cut = line.cut.lock();
                    let found = cut.filter(|(word, _)| request[..length].windows(word.len()).any(|window| window == word.as_bytes()));
                    if found.is_some() {
                        *cut = None;
                    }
                    found
                };
                if matches!(found, Some((_, Cut::Request))) || server.write_all(&request[..length]).await.is_err() {
                    return;
                }
                if found.is_some() {
                    // The answer is waited for, so that it is sure that the server has done it.
                    let _ = server.read(&mut answer).await;
                    return;
                }
                waits = true;
            }
            read = quiet(&mut server, &mut answer) => {
                let Ok(length @ 1..) = read else { return };
                if std::mem::take(&mut waits) {
                    line.round_trips.fetch_add(1, Ordering::SeqCst);
                }
                if client.write_all(&answer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads what has come until the other side has been silent for a while; anything that it says starts this anew.
async fn quiet(server: &mut TcpStream, answer: &mut [u8]) -> std::io::Result<usize> {
    server.readable().await?;
    tokio::time::sleep(QUIET).await;
    server.read(answer).await
}
