//! Baselines that are programs of their own, so that they run on the server's core: this one, started as a child.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use rusqlite::Connection;
use syncline_tests::spin::{self, SpinSettings};
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
        ["child", "raw", "secsync", file, group] => raw(RawRows::Secsync, Path::new(file), group.parse()?)?,
        ["child", "raw", "plasma", file, group] => raw(RawRows::Plasma, Path::new(file), group.parse()?)?,
        ["child", "bare", "messages", readers] => bare_messages(readers.parse()?)?,
        ["child", "bare", "events", readers] => bare_events(readers.parse()?)?,
        ["child", "spin", kind, component, config, folder] => spin(kind, Path::new(component), Path::new(config), Path::new(folder))?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Whose rows the raw writer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawRows {
    /// Updates of documents.
    Secsync,
    /// Pushes of one mutation that makes a row.
    Plasma,
}

impl RawRows {
    fn name(self) -> &'static str {
        match self {
            Self::Secsync => "secsync",
            Self::Plasma => "plasma",
        }
    }

    fn prepare(self, connection: &Connection, group: u32) -> anyhow::Result<()> {
        match self {
            Self::Secsync => crate::secsync::raw::prepare(connection, group),
            Self::Plasma => crate::plasma::raw::prepare(connection, group),
        }
    }

    fn write(self, connection: &Connection, group: u32, round: i64) -> anyhow::Result<()> {
        match self {
            Self::Secsync => crate::secsync::raw::write(connection, group, round),
            Self::Plasma => crate::plasma::raw::write(connection, group, round),
        }
    }
}

/// Writes rows in groups, one COMMIT with its sync a group; a line with milliseconds asks for a round.
fn raw(rows: RawRows, file: &Path, group: u32) -> anyhow::Result<()> {
    let connection = Connection::open(file)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    rows.prepare(&connection, group)?;
    let mut written = 0;
    for line in std::io::stdin().lock().lines() {
        let window = Duration::from_millis(line?.trim().parse()?);
        let (before, start, mut latencies_us) = (Cpu::own()?, Instant::now(), Vec::new());
        while start.elapsed() < window {
            let begun = Instant::now();
            written += 1;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            rows.write(&connection, group, written)?;
            connection.execute_batch("COMMIT")?;
            latencies_us.push(micros(begun));
        }
        let mut sample = Sample::new(latencies_us, start.elapsed(), Cpu::own()?.since(before), group);
        sample.resident_bytes = machine::resident_bytes(std::process::id())?;
        println!("{}", serde_json::to_string(&sample)?);
    }
    Ok(())
}

/// Serves a composed component as Spin does, or starts the real one, until this process is killed.
fn spin(kind: &str, component: &Path, config: &Path, folder: &Path) -> anyhow::Result<()> {
    let kind = if kind == "up" { spin::Kind::Up } else { spin::Kind::Fake };
    let mut settings = SpinSettings::new(std::fs::read(component)?, folder);
    settings.variables.insert("config".into(), std::fs::read_to_string(config)?);
    std::fs::create_dir_all(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let running = spin::Spin::start(kind, settings).await?;
        println!("listening on http://{}", running.address());
        let () = std::future::pending().await;
        drop(running);
        Ok(())
    })
}

/// Takes one writer and so many readers, the readers first, and writes each message of the writer to all of them, framed
/// once, one `write` a socket: the least that any server has to do.
fn bare_messages(readers: usize) -> anyhow::Result<()> {
    let listener = listen()?;
    let mut sockets = Vec::new();
    while sockets.len() <= readers {
        let mut socket = accept(&listener)?;
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

/// The same for events: after each request of the writer one poke to every reader, and an answer with its version.
fn bare_events(readers: usize) -> anyhow::Result<()> {
    let listener = listen()?;
    let mut sockets = Vec::new();
    for _ in 0..readers {
        let mut socket = accept(&listener)?;
        read_head(&mut socket)?;
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        socket.write_all(&chunk("retry: 2000\nid: 0\nevent: hello\ndata: {\"cookie\":0,\"pingIntervalMs\":25000}\n\n"))?;
        sockets.push(socket);
    }
    let mut writer = accept(&listener)?;
    let mut message = vec![0; 64 << 10];
    for version in 1_u64.. {
        // The writer has one request in flight, small enough for one read.
        if writer.read(&mut message)? == 0 {
            break;
        }
        let event = chunk(&format!("id: {version}\nevent: poke\ndata: {{\"cookie\":{version}}}\n\n"));
        for socket in &mut sockets {
            socket.write_all(&event)?;
        }
        let body = format!("{{\"ok\":true,\"cookie\":{version},\"results\":[]}}");
        writer.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    }
    Ok(())
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(listener)
}

fn accept(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    let (socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    Ok(socket)
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
    pub fn start(disk: &Path, rows: RawRows, group: usize) -> anyhow::Result<Self> {
        let folder = tempfile::TempDir::new_in(disk)?;
        let mut command = pinned(std::env::current_exe()?);
        command.args(["child", "raw", rows.name()]).arg(folder.path().join("raw.sqlite")).arg(group.to_string());
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
