//! Clients of the load: what each does over and over.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use syncline_tests::secsync::Author;

use super::frames::{Place, Updates, ephemeral};
use crate::load::{OpenConnection, Worker};
use crate::server::Server;
use crate::wire::{Client, client_frame};

/// How answers to updates begin, with every server.
const SAVED: &str = r#"{"type":"update-saved""#;
/// Updates sent ahead of their answers while a document is filled.
const IN_FLIGHT: u64 = 32;

/// The author of a number.
pub fn author(number: usize) -> Author {
    Author::new(u8::try_from(number % 255).unwrap_or_default() + 1)
}

/// A document name that no other case uses.
pub fn fresh_document() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The URL of a document.
pub fn url(document: &str) -> String {
    format!("/secsync/{document}?sessionKey=bench&mode=complete")
}

/// Opens a document and takes its `document` frame.
pub async fn join(server: &Server, document: &str) -> anyhow::Result<Client> {
    let mut client = Client::connect(server.address, &url(document)).await?;
    client.receive_with(r#""type":"document""#).await?;
    Ok(client)
}

/// Makes a document with a first snapshot.
pub async fn make_document(server: &Server) -> anyhow::Result<Place> {
    let document = fresh_document();
    let mut client = join(server, &document).await?;
    let snapshot = author(0).first_snapshot(&document, &[1; 1000]);
    client.send(&client_frame(&snapshot.frame.to_string())).await?;
    client.receive_with(r#""type":"snapshot-saved""#).await?;
    Ok(Place { document, snapshot: snapshot.id })
}

/// Sends an update and waits until it is saved.
pub struct Writer {
    client: Client,
    updates: Updates,
}

impl Writer {
    /// So many connections, spread over so many new documents. `signed` is how many updates each signs beforehand.
    pub async fn many(server: &Server, connections: usize, documents: usize, signed: u64) -> anyhow::Result<Vec<Self>> {
        let mut places = Vec::new();
        for _ in 0..documents {
            places.push(make_document(server).await?);
        }
        let mut writers = Vec::new();
        for number in 0..connections {
            let place = places[number % documents].clone();
            let client = join(server, &place.document).await?;
            let updates = match signed {
                0 => Updates::unsigned(author(number), place),
                count => Updates::signed(author(number), place, count),
            };
            writers.push(Self { client, updates });
        }
        Ok(writers)
    }

    /// For the open loop.
    pub fn open(self) -> OpenConnection {
        let Self { client, mut updates } = self;
        let (reader, writer) = client.split();
        OpenConnection { reader, writer, next_frame: Box::new(move || updates.next_frame()), answer_starts: SAVED }
    }
}

#[async_trait(?Send)]
impl Worker for Writer {
    async fn step(&mut self) -> anyhow::Result<()> {
        self.client.send(&self.updates.next_frame()).await?;
        // A refusal must end the run, not hang it.
        loop {
            let seen = self.client.receive(|message| (message.starts_with(SAVED.as_bytes()), is_update(message))).await?;
            match seen {
                (true, _) => return Ok(()),
                (_, true) => {}
                _ => anyhow::bail!("an update was not saved"),
            }
        }
    }
}

fn is_update(message: &[u8]) -> bool {
    message[..message.len().min(32)].windows(15).any(|window| window == br#""type":"update""#) || message.ends_with(br#""type":"update"}"#)
}

/// Loads a document: connects, takes it, and goes.
pub struct Loader {
    pub address: std::net::SocketAddr,
    pub url: String,
}

#[async_trait(?Send)]
impl Worker for Loader {
    async fn step(&mut self) -> anyhow::Result<()> {
        let mut client = Client::connect(self.address, &self.url).await?;
        client.receive_with(r#""type":"document""#).await
    }
}

/// One writer and its readers: an operation is done when the last reader has it.
pub struct FanOut {
    writer: Client,
    readers: Vec<Client>,
    next: Next,
}

enum Next {
    Update(Box<Updates>),
    Ephemeral(Vec<u8>),
}

impl FanOut {
    /// A writer of updates with so many readers.
    pub async fn updates(server: &Server, readers: usize) -> anyhow::Result<Self> {
        Self::on(server, make_document(server).await?, readers).await
    }

    /// The same on a bare loop, which knows no documents. It takes the writer last.
    pub async fn bare(server: &Server, readers: usize) -> anyhow::Result<Self> {
        Self::on(server, Place { document: fresh_document(), snapshot: "A".repeat(32) }, readers).await
    }

    async fn on(server: &Server, place: Place, readers: usize) -> anyhow::Result<Self> {
        let readers = readers_of(server, &place.document, readers).await?;
        let writer = join(server, &place.document).await?;
        Ok(Self { writer, readers, next: Next::Update(Box::new(Updates::unsigned(author(1), place))) })
    }

    /// A sender of ephemeral messages with so many readers.
    pub async fn ephemeral(server: &Server, readers: usize) -> anyhow::Result<Self> {
        let place = make_document(server).await?;
        let readers = readers_of(server, &place.document, readers).await?;
        let writer = join(server, &place.document).await?;
        let frame = ephemeral(&author(1), &place.document);
        Ok(Self { writer, readers, next: Next::Ephemeral(frame) })
    }
}

async fn readers_of(server: &Server, document: &str, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut readers = Vec::with_capacity(count);
    for _ in 0..count {
        readers.push(join(server, document).await?);
    }
    Ok(readers)
}

#[async_trait(?Send)]
impl Worker for FanOut {
    async fn step(&mut self) -> anyhow::Result<()> {
        let saved = match &mut self.next {
            Next::Update(updates) => {
                self.writer.send(&updates.next_frame()).await?;
                true
            }
            Next::Ephemeral(frame) => {
                self.writer.send(frame).await?;
                false
            }
        };
        for reader in &mut self.readers {
            reader.receive(|_| ()).await?;
        }
        if saved { self.writer.receive_with(SAVED).await } else { Ok(()) }
    }
}

/// Fills a document with updates.
///
/// They are sent ahead of their answers, since only the result matters here.
pub async fn fill(server: &Server, updates: u64) -> anyhow::Result<Place> {
    let place = make_document(server).await?;
    let mut client = join(server, &place.document).await?;
    let mut own = Updates::unsigned(author(1), place.clone());
    for number in 0..updates + IN_FLIGHT {
        if number < updates {
            client.send(&own.next_frame()).await?;
        }
        if number >= IN_FLIGHT {
            client.receive_with(SAVED).await?;
        }
    }
    Ok(place)
}
