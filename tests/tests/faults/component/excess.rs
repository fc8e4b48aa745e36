//! Calls that let out, hold or log too much: each fails by itself, and the memory of the process stays bounded.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;
use syncline::runtime::{EngineSettings, RuntimeSettings};
use syncline_tests::server::{Setup, TestServer};

use super::requests::ask;
use super::{Client, server, setup};

/// The most memory that this process has had so far, in bytes.
fn memory_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says what a process uses");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak is among it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

async fn still_served(server: &TestServer, caller: &mut Client) {
    assert_eq!(caller.ask("echo still here").await, "still here");
    let mut other = Client::connect(server.address).await;
    assert_eq!(other.ask("write k 1\nview k").await, "view k=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_lets_out_too_much_fails_by_itself() {
    let server = server(json!({"call_deadline_ms": 20_000})).await;
    let mut caller = Client::connect(server.address).await;
    for excess in [
        "frames 1000000 1",
        "attach 300000",
        "seens 100000",
        "tasks 100000",
        "publishes 100000 10",
        "publishes 1000 1000000",
        "sends 100000 10",
        "sends 1000 1000000",
        "sets 100000 10",
        "sets 1000 1000000",
        "subscribes 20000",
        "subscribes 10 1000000",
        "job 2000000",
        "nested 2000",
        "shout",
    ] {
        assert_eq!(caller.ask(excess).await, "failure trapped", "{excess}");
        still_served(&server, &mut caller).await;
    }
    let peak_mib = memory_peak_bytes() >> 20;
    assert!(peak_mib < 1024, "{peak_mib} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_to_be_had_is_an_error_by_name() {
    let server = server(json!({})).await;
    let mut caller = Client::connect(server.address).await;
    for excess in ["rows 1000000 1", "rows 100 1000000", "batch 200 1000000", "keys 4000000000", "snapshots 5"] {
        assert_eq!(caller.ask(excess).await, "error limit", "{excess}");
        still_served(&server, &mut caller).await;
    }
}

/// A database has sixteen readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_that_are_never_dropped_are_given_back() {
    let server = server(json!({})).await;
    let mut caller = Client::connect(server.address).await;
    for number in 0..40 {
        assert_eq!(caller.ask(&format!("snapshots 1\necho {number}")).await, number.to_string());
    }
    still_served(&server, &mut caller).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_may_have_so_many_headers_and_no_more() {
    let server = server(json!({})).await;
    assert_eq!(ask(server.address, "headers 5000\necho done").await, (200, "done".into()));
    assert_eq!(ask(server.address, "headers 100000").await, (200, "failure trapped".into()));
    let (status, body) = ask(server.address, "huge 8000000").await;
    assert_eq!((status, body.len()), (200, 8_000_000));
}

/// Instances have as much memory here as by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_fits_the_memory_of_an_instance_may_still_be_too_large_to_be_taken_over() {
    let defaults = setup(json!({"call_deadline_ms": 20_000}), None);
    let runtime = RuntimeSettings { engine: EngineSettings::default(), ..defaults.runtime };
    let server = TestServer::with(Setup { runtime, ..defaults }).await;
    let mut caller = Client::connect(server.address).await;
    for excess in ["huge 140000000", "frames 5 27000000", "attach 140000000"] {
        assert_eq!(caller.ask(excess).await, "failure trapped", "{excess}");
        still_served(&server, &mut caller).await;
    }
    let peak_mib = memory_peak_bytes() >> 20;
    assert!(peak_mib < 1024, "{peak_mib} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_logs_too_much_is_cut_short() {
    let log = Arc::new(Mutex::new(LogBuffer::default()));
    tracing_subscriber::fmt().with_ansi(false).with_writer(Writer(log.clone())).init();
    let server = server(json!({})).await;
    let mut caller = Client::connect(server.address).await;
    assert_eq!(caller.ask("logs 20000 10\necho done").await, "done");
    assert_eq!(caller.ask("logs 3 1000000\necho done").await, "done");
    let LogBuffer { lines, bytes } = *log.lock();
    assert!((1000..1100).contains(&lines), "{lines} lines");
    assert!(((48 << 10)..(1 << 20)).contains(&bytes), "{bytes} bytes");
}

#[derive(Clone, Copy, Default)]
struct LogBuffer {
    lines: usize,
    bytes: usize,
}

#[derive(Clone)]
struct Writer(Arc<Mutex<LogBuffer>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut log = self.0.lock();
        log.lines += bytes.iter().filter(|byte| **byte == b'\n').count();
        log.bytes += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Writer {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_of_a_component_do_not_grow_without_end() {
    let server = server(json!({})).await;
    let mut caller = Client::connect(server.address).await;
    assert_eq!(caller.ask("measures 20000\necho done").await, "done");
    assert_eq!(caller.ask("measures 1 100000\necho done").await, "done");
    let metrics = server.server().handle().runtime().metrics().render().expect("metrics can be written");
    let series = metrics.lines().filter(|line| line.starts_with("flood_")).count();
    let names = metrics.lines().filter(|line| line.starts_with("# TYPE flood_")).count();
    assert!((1..=5000).contains(&series), "{series} series");
    assert_eq!(names, 200);
    assert!(metrics.lines().all(|line| line.len() < 2000), "a name or a label is too long");
}
