//! Baselines that are programs of their own, so that they run on the server's core: this one, started as a child.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use rusqlite::Connection;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::load::{Contestant, micros};
use crate::machine::{self, Cpu};
use crate::report::Sample;
use crate::server::pinned;
use crate::wire::server_frame;

/// Runs as a child, if the arguments say so.
pub fn run(arguments: &[String]) -> anyhow::Result<bool> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["child", "raw", file, group] => raw(Path::new(file), group.parse()?)?,
        ["child", "bare", readers] => bare(readers.parse()?)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Writes the rows of updates in groups, one COMMIT with its sync a group; a line with milliseconds asks for a round.
fn raw(file: &Path, group: u32) -> anyhow::Result<()> {
    let connection = Connection::open(file)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE ss_documents (id TEXT PRIMARY KEY, seq BIGINT NOT NULL, update_count BIGINT NOT NULL);
         CREATE TABLE ss_updates (snapshot_id TEXT NOT NULL, seq BIGINT NOT NULL, pub_key TEXT NOT NULL, clock BIGINT NOT NULL,
             signature TEXT NOT NULL, body TEXT, object_key TEXT, PRIMARY KEY (snapshot_id, seq));
         CREATE UNIQUE INDEX ss_updates_clocks ON ss_updates (snapshot_id, pub_key, clock);",
    )?;
    let documents: Vec<String> = (0..group).map(|document| format!("raw-document-{document}")).collect();
    for document in &documents {
        connection.execute("INSERT INTO ss_documents VALUES (?, 0, 0)", [document])?;
    }
    let (key, signature, body) = ("k".repeat(43), "s".repeat(86), "b".repeat(crate::secsync::frames::UPDATE_BYTES));
    let mut seq = 0_i64;
    for line in std::io::stdin().lock().lines() {
        let window = Duration::from_millis(line?.trim().parse()?);
        let (before, start, mut latencies_us) = (Cpu::own()?, Instant::now(), Vec::new());
        while start.elapsed() < window {
            let begun = Instant::now();
            seq += 1;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            for document in &documents {
                connection
                    .prepare_cached("INSERT INTO ss_updates VALUES (?, ?, ?, ?, ?, ?, NULL)")?
                    .execute(rusqlite::params![document, seq, key, seq, signature, body])?;
                connection
                    .prepare_cached("UPDATE ss_documents SET seq = ?, update_count = update_count + 1 WHERE id = ?")?
                    .execute(rusqlite::params![seq, document])?;
            }
            connection.execute_batch("COMMIT")?;
            latencies_us.push(micros(begun));
        }
        let mut sample = Sample::new(latencies_us, start.elapsed(), Cpu::own()?.since(before), group);
        sample.resident_bytes = machine::resident_bytes(std::process::id())?;
        println!("{}", serde_json::to_string(&sample)?);
    }
    Ok(())
}

/// Takes one writer and so many readers, the readers first, and writes each message of the writer to all of them, framed
/// once, one `write` a socket: the least that any server has to do.
fn bare(readers: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on http://{}", listener.local_addr()?);
    let mut sockets = Vec::new();
    while sockets.len() <= readers {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        read_head(&mut socket)?;
        socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        socket.write_all(&server_frame(r#"{"type":"document"}"#))?;
        sockets.push(socket);
    }
    let mut writer = sockets.pop().context("a writer")?;
    let answer = server_frame(r#"{"type":"update-saved"}"#);
    let mut message = vec![0; 64 << 10];
    loop {
        // The writer has one message in flight, small enough for one header of four bytes and one read.
        let count = writer.read(&mut message)?;
        if count == 0 {
            return Ok(());
        }
        ensure!(count > 8 && message[1] == 0x80 | 126, "a frame of an unexpected size");
        let text = std::str::from_utf8(&message[8..count])?;
        let frame = server_frame(&format!("{{\"type\":\"update\",{}", &text[1..]));
        for socket in &mut sockets {
            socket.write_all(&frame)?;
        }
        writer.write_all(&answer)?;
    }
}

fn read_head(socket: &mut TcpStream) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if socket.read(&mut byte)? == 0 {
            bail!("a client went away");
        }
        head.push(byte[0]);
    }
    Ok(())
}

/// The raw writer as one of those that are compared.
pub struct Raw {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
    _folder: tempfile::TempDir,
}

impl Raw {
    /// Starts it on a disk, with groups of so many.
    pub fn start(disk: &Path, group: usize) -> anyhow::Result<Self> {
        let folder = tempfile::TempDir::new_in(disk)?;
        let mut command = pinned(std::env::current_exe()?);
        command.args(["child", "raw"]).arg(folder.path().join("raw.sqlite")).arg(group.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("standard input is piped")?;
        let output = BufReader::new(child.stdout.take().context("standard output is piped")?).lines();
        Ok(Self { input, output, _child: child, _folder: folder })
    }
}

#[async_trait(?Send)]
impl Contestant for Raw {
    fn name(&self) -> &str {
        "raw rows"
    }

    async fn round(&mut self, window: Duration) -> anyhow::Result<Sample> {
        self.input.write_all(format!("{}\n", window.as_millis()).as_bytes()).await?;
        let line = self.output.next_line().await?.context("the raw writer ended")?;
        Ok(serde_json::from_str(&line)?)
    }
}
