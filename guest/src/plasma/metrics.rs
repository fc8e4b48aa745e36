//! Metrics (docs/protocols/plasma.md, section 17): counted through the host, shown on the admin surface in Prometheus' text format.
//!
//! The host gives back counters and gauges only, so durations are counted by the first bound that they do not exceed; adding
//! up, which makes Prometheus' buckets, is left to whoever looks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::Call;
use super::hooks::Hook;
use super::pull::PullReply;
use super::push::{MutationStatus, PushReply};
use crate::imports::{Metric, MetricKind};

/// Upper bounds of the buckets of durations, seconds.
const BOUNDS: [(f64, &str); 10] = [
    (0.001, "0.001"),
    (0.0025, "0.0025"),
    (0.005, "0.005"),
    (0.01, "0.01"),
    (0.025, "0.025"),
    (0.05, "0.05"),
    (0.1, "0.1"),
    (0.5, "0.5"),
    (1.0, "1"),
    (5.0, "5"),
];
/// Beyond all bounds.
const BEYOND: &str = "+Inf";
/// The histogram of durations.
const SECONDS: &str = "plasma_request_seconds";
/// Durations by the first bound that they do not exceed.
const SECONDS_SLOTS: &str = "plasma_request_seconds_slots_total";
const SECONDS_SUM: &str = "plasma_request_seconds_sum";
/// The label with which the host tells mounts apart.
const MOUNT: &str = "mount";
const OPENED: &str = "plasma_connections_opened_total";
const CLOSED: &str = "plasma_connections_closed_total";

/// Measures a call from its beginning; the clock counts, not the time of day.
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts.
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }
}

/// What a request did, beyond that it was made.
pub enum Work<'a> {
    /// Refused before it did anything.
    Nothing,
    /// A push.
    Push(&'a PushReply),
    /// A pull, and the bytes of its answer.
    Pull(&'a PullReply, usize),
    /// A blob that came or is sent.
    Blob {
        /// `blob-put` or `blob-get`.
        kind: &'static str,
        /// In the body.
        bytes: u64,
        /// Whether it is a part.
        range: bool,
        /// Of the answer.
        status: u16,
    },
}

impl Call<'_> {
    /// Adds to a counter.
    pub fn count(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        if self.settings.on_metric.prometheus {
            let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            self.imports.effects.measure(Metric { name: name.into(), kind: MetricKind::Counter, labels, value });
        }
    }

    /// Counts a request of a kind, and tells the app where it wants to know.
    pub fn measured(&self, kind: &str, watch: &Stopwatch, ok: bool, work: &Work<'_>) {
        let seconds = watch.0.elapsed().as_secs_f64();
        let bound = BOUNDS.iter().find(|(bound, _)| seconds <= *bound).map_or(BEYOND, |(_, name)| name);
        self.count("plasma_requests_total", &[("kind", kind), ("ok", if ok { "true" } else { "false" })], 1.0);
        self.count(SECONDS_SLOTS, &[("kind", kind), ("le", bound)], 1.0);
        self.count(SECONDS_SUM, &[("kind", kind)], seconds);
        let mut event = json!({"kind": kind, "latencyMs": seconds * 1000.0, "ok": ok});
        match work {
            Work::Nothing => {}
            Work::Push(reply) => self.measure_push(reply, &mut event),
            Work::Pull(reply, bytes) => {
                self.count("plasma_pull_rows_total", &[], (reply.puts + reply.dels) as f64);
                extend(&mut event, json!({"rows": reply.puts, "dels": reply.dels, "hasMore": reply.has_more, "reset": reply.reset}));
                event["bytes"] = (*bytes).into();
            }
            Work::Blob { kind, bytes, range, status } => {
                self.count("plasma_blob_bytes_total", &[("kind", *kind)], *bytes as f64);
                extend(&mut event, json!({"bytes": bytes, "range": range, "status": status}));
            }
        }
        self.tell_app(Hook::Metric, &event, None);
    }

    fn measure_push(&self, reply: &PushReply, event: &mut Json) {
        let (mut applied, mut duplicates, mut errors) = (0_u32, 0_u32, 0_u32);
        for result in &reply.results {
            match result.status {
                MutationStatus::Applied => applied += 1,
                MutationStatus::Duplicate => duplicates += 1,
                MutationStatus::Error(_) => errors += 1,
            }
        }
        for (status, count) in [("applied", applied), ("duplicate", duplicates), ("error", errors)] {
            if count > 0 {
                self.count("plasma_mutations_total", &[("status", status)], f64::from(count));
            }
        }
        extend(event, json!({"mutations": reply.results.len(), "applied": applied, "duplicates": duplicates, "errors": errors}));
    }

    /// Counts a connection that began (or ended).
    pub fn count_connection(&self, kind: &str, began: bool) {
        self.count(if began { OPENED } else { CLOSED }, &[("kind", kind)], 1.0);
    }
}

fn extend(event: &mut Json, more: Json) {
    if let (Json::Object(event), Json::Object(more)) = (event, more) {
        event.extend(more);
    }
}

/// What is known of the durations of one kind of requests.
#[derive(Default)]
struct Durations<'a> {
    /// How many by the first bound that they do not exceed.
    slots: BTreeMap<&'a str, f64>,
    /// All together, seconds.
    sum: f64,
}

/// Prometheus' text of what the host has counted, with the buckets, the open connections and the version put in. All of it is of one
/// mount, so the label with which the host tells mounts apart is left out.
pub fn render(measured: &[Metric], version: u64) -> String {
    let mut families: BTreeMap<&str, (&str, Vec<String>)> = BTreeMap::new();
    let mut durations: BTreeMap<&str, Durations<'_>> = BTreeMap::new();
    let mut open: BTreeMap<&str, f64> = BTreeMap::from([("sse", 0.0), ("ws", 0.0)]);
    for metric in measured.iter().filter(|metric| metric.name.starts_with("plasma_")) {
        let label = |name: &str| metric.labels.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
        match metric.name.as_str() {
            SECONDS_SLOTS => *durations.entry(label("kind")).or_default().slots.entry(label("le")).or_default() += metric.value,
            SECONDS_SUM => durations.entry(label("kind")).or_default().sum += metric.value,
            OPENED => *open.entry(label("kind")).or_default() += metric.value,
            CLOSED => *open.entry(label("kind")).or_default() -= metric.value,
            name => {
                let kind = if metric.kind == MetricKind::Gauge { "gauge" } else { "counter" };
                let labels = metric.labels.iter().filter(|(key, _)| key != MOUNT).map(|(key, value)| (key.as_str(), value.as_str()));
                families.entry(name).or_insert((kind, Vec::new())).1.push(sample(name, labels, metric.value));
            }
        }
    }
    let histogram = durations.iter().flat_map(|(kind, durations)| durations.samples(kind)).collect();
    families.insert(SECONDS, ("histogram", histogram));
    let connections = open.iter().map(|(kind, value)| sample("plasma_connections", [("kind", *kind)], *value)).collect();
    families.insert("plasma_connections", ("gauge", connections));
    families.insert("plasma_version", ("gauge", vec![sample("plasma_version", [], version as f64)]));
    let mut text = String::new();
    for (name, (kind, lines)) in families {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for line in lines {
            text.push_str(&line);
        }
    }
    text
}

impl Durations<'_> {
    /// The samples of a histogram.
    fn samples(&self, kind: &str) -> Vec<String> {
        let mut count = 0.0;
        let mut samples = Vec::with_capacity(BOUNDS.len() + 3);
        for le in BOUNDS.iter().map(|(_, le)| *le).chain([BEYOND]) {
            count += self.slots.get(le).copied().unwrap_or(0.0);
            samples.push(sample(&format!("{SECONDS}_bucket"), [("kind", kind), ("le", le)], count));
        }
        samples.push(sample(SECONDS_SUM, [("kind", kind)], self.sum));
        samples.push(sample(&format!("{SECONDS}_count"), [("kind", kind)], count));
        samples
    }
}

fn sample<'a>(name: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>, value: f64) -> String {
    let labels: Vec<String> = labels.into_iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if labels.is_empty() { format!("{name} {value}\n") } else { format!("{name}{{{}}} {value}\n", labels.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
