//! Prometheus metrics. Labels come from the configuration and the contract only, so that their number is bounded.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::executor::MountUsage;

/// Distinct metric names that components may bring, all mounts together.
const COMPONENT_METRICS_MAX: usize = 200;
/// Distinct series (a metric with its labels) that components may bring, all mounts together.
const COMPONENT_SERIES_MAX: usize = 5000;
/// Bytes of the name and the labels of one such series.
const COMPONENT_SERIES_BYTES_MAX: usize = 1000;

/// Close codes with a label of their own. Clients may send any code: the others share `other`.
const CLOSE_CODES: std::ops::RangeInclusive<u16> = 1000..=1015;
const OTHER_CODE: &str = "other";

/// The metrics of a host.
pub struct Metrics {
    registry: Registry,
    started: Instant,
    uptime: Gauge,
    http_connections: IntGauge,
    instances: IntGaugeVec,
    gate_calls: IntGaugeVec,
    backlog_pieces: IntGaugeVec,
    backlog_bytes: IntGaugeVec,
    waiting_bytes: IntGaugeVec,
    database_bytes: IntGaugeVec,
    jobs: IntCounterVec,
    posts: IntCounterVec,
    posts_waiting: IntGaugeVec,
    backups: IntCounterVec,
    last_backup: Gauge,
    connections: IntGaugeVec,
    connections_total: IntCounterVec,
    closes: IntCounterVec,
    frames: IntCounterVec,
    bytes: IntCounterVec,
    calls: IntCounterVec,
    call_seconds: HistogramVec,
    groups: IntCounterVec,
    publications: IntCounterVec,
    slow_readers: IntCounterVec,
    requests: IntCounterVec,
    objects_failed: IntCounterVec,
    turned_away: IntCounterVec,
    log_bytes: IntGaugeVec,
    snapshot_seconds: IntGaugeVec,
    quota_bytes: IntGaugeVec,
    quota_used_bytes: IntGaugeVec,
    component: Mutex<ComponentMetrics>,
}

#[derive(Default)]
struct ComponentMetrics {
    counters: HashMap<String, CounterVec>,
    gauges: HashMap<String, GaugeVec>,
    histograms: HashMap<String, HistogramVec>,
    /// Hashes of the series that there are.
    series: HashSet<u64>,
}

impl ComponentMetrics {
    /// Whether another metric may be made.
    fn has_room(&self) -> bool {
        self.counters.len() + self.gauges.len() + self.histograms.len() < COMPONENT_METRICS_MAX
    }

    /// Whether a series is there or may be made.
    fn takes(&mut self, mount: &str, name: &str, labels: &[(String, String)]) -> bool {
        let bytes: usize = labels.iter().map(|(label, value)| label.len() + value.len()).sum();
        if name.len() + bytes > COMPONENT_SERIES_BYTES_MAX {
            return false;
        }
        let mut hasher = DefaultHasher::new();
        (mount, name, labels).hash(&mut hasher);
        let series = hasher.finish();
        self.series.contains(&series) || (self.series.len() < COMPONENT_SERIES_MAX && self.series.insert(series))
    }
}

/// What is under way in a mount.
pub(crate) struct Load {
    pub(crate) instances_busy: usize,
    pub(crate) instances_idle: usize,
    pub(crate) gate_calls: usize,
    pub(crate) backlog_pieces: usize,
    pub(crate) backlog_bytes: usize,
    pub(crate) waiting_bytes: usize,
}

/// A value of a mount: name, labels, value, whether it only grows.
type MountValue = (String, Vec<(String, String)>, f64, bool);

impl Metrics {
    /// Empty metrics.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let connections = gauges("syncline_connections", "Open connections", &["mount"])?;
        let http_connections = IntGauge::new("syncline_http_connections", "Open HTTP connections, those of WebSockets aside")?;
        registry.register(Box::new(http_connections.clone()))?;
        gauges("syncline_build_info", "Always 1; the version is a label", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let backups = counter("syncline_backups_total", "Backups, by how they ended", &["result"])?;
        for result in ["ok", "failed"] {
            backups.with_label_values(&[result]);
        }
        let turned_away = counter("syncline_turned_away_total", "Connections and requests refused by a limit of the process", &["reason"])?;
        for reason in ["full", "address", "failed_logins"] {
            turned_away.with_label_values(&[reason]);
        }
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let call_seconds = HistogramVec::new(
            HistogramOpts::new("syncline_call_seconds", "Time of a call of the component, waiting for its turn included")
                .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
            &["mount", "export"],
        )?;
        registry.register(Box::new(call_seconds.clone()))?;
        Ok(Self {
            started: Instant::now(),
            uptime: gauge("syncline_uptime_seconds", "Since the start of the run time")?,
            last_backup: gauge("syncline_last_backup_timestamp_seconds", "End of the last backup that succeeded; 0: there is none")?,
            backups,
            http_connections,
            instances: gauges("syncline_instances", "Instances of the component", &["mount", "state"])?,
            gate_calls: gauges("syncline_gate_calls", "Calls that run, or whose effects wait for the disk", &["mount"])?,
            backlog_pieces: gauges("syncline_backlog_pieces", "Released work that is not done yet", &["mount"])?,
            backlog_bytes: gauges("syncline_backlog_bytes", "Bytes of released work that is not done yet", &["mount"])?,
            waiting_bytes: gauges("syncline_waiting_bytes", "Bytes that wait in the queues of all connections", &["mount"])?,
            database_bytes: gauges("syncline_database_bytes", "Bytes of databases on disk, their logs included", &["mount"])?,
            log_bytes: gauges("syncline_database_log_bytes", "Bytes of the write-ahead logs of databases", &["mount"])?,
            snapshot_seconds: gauges("syncline_snapshot_seconds", "How long the oldest snapshot has been open", &["mount"])?,
            quota_bytes: gauges("syncline_quota_bytes", "The quota; 0: none", &["mount"])?,
            quota_used_bytes: gauges("syncline_quota_used_bytes", "What of the quota is used; 0 where there is none", &["mount"])?,
            jobs: counter("syncline_jobs_total", "Durable jobs that fired, by how they ended", &["mount", "result"])?,
            posts: counter("syncline_posts_total", "Attempts to send posts, by what became of them", &["mount", "result"])?,
            posts_waiting: gauges("syncline_posts_waiting", "Posts that are not sent yet", &["mount"])?,
            connections,
            connections_total: counter("syncline_connections_total", "Connections accepted", &["mount"])?,
            closes: counter("syncline_closes_total", "Connections gone, by close code", &["mount", "code"])?,
            frames: counter("syncline_frames_total", "WebSocket messages", &["mount", "direction"])?,
            bytes: counter("syncline_frame_bytes_total", "Payload bytes of WebSocket messages", &["mount", "direction"])?,
            calls: counter("syncline_calls_total", "Calls of the component", &["mount", "export", "result"])?,
            groups: counter("syncline_groups_total", "Groups of transactions, durable or lost", &["mount", "result"])?,
            publications: counter("syncline_publications_total", "Publications brought to local subscribers", &["mount"])?,
            slow_readers: counter("syncline_slow_readers_total", "Connections closed because they could not keep up", &["mount"])?,
            requests: counter("syncline_http_requests_total", "HTTP requests by class of their status", &["mount", "status"])?,
            objects_failed: counter(
                "syncline_objects_failed_total",
                "Objects that could not be sent whole: damaged, or the store failed",
                &["mount"],
            )?,
            turned_away,
            call_seconds,
            component: Mutex::default(),
            registry,
        })
    }

    /// The text format, version 0.0.4.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        self.uptime.set(self.started.elapsed().as_secs_f64());
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Makes all series of a mount: they begin at 0, so that a rise from nothing is a rise.
    pub(crate) fn start_mount(&self, mount: &str, exports: &[&str]) {
        for result in ["sent", "retried", "failed"] {
            self.posts.with_label_values(&[mount, result]);
        }
        for gauges in
            [&self.posts_waiting, &self.connections, &self.gate_calls, &self.backlog_pieces, &self.backlog_bytes, &self.waiting_bytes]
        {
            gauges.with_label_values(&[mount]);
        }
        for counter in [&self.connections_total, &self.publications, &self.slow_readers, &self.objects_failed] {
            counter.with_label_values(&[mount]);
        }
        let (directions, results) = (["in", "out"], ["ok", "failed"]);
        let by_word = [(&self.frames, directions), (&self.bytes, directions), (&self.groups, ["durable", "lost"]), (&self.jobs, results)];
        for (counter, words) in by_word {
            for word in words {
                counter.with_label_values(&[mount, word]);
            }
        }
        for state in ["busy", "idle"] {
            self.instances.with_label_values(&[mount, state]);
        }
        for code in CLOSE_CODES.map(|code| code.to_string()).chain([OTHER_CODE.to_owned()]) {
            self.closes.with_label_values(&[mount, code.as_str()]);
        }
        for status in 1..=5 {
            self.requests.with_label_values(&[mount, format!("{status}xx").as_str()]);
        }
        for export in exports {
            self.call_seconds.with_label_values(&[mount, *export]);
            for result in results {
                self.calls.with_label_values(&[mount, *export, result]);
            }
        }
    }

    /// What is under way in a mount right now.
    pub(crate) fn load(&self, mount: &str, load: &Load) {
        let set = |gauges: &IntGaugeVec, labels: &[&str], value: usize| {
            gauges.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.instances, &[mount, "busy"], load.instances_busy);
        set(&self.instances, &[mount, "idle"], load.instances_idle);
        set(&self.gate_calls, &[mount], load.gate_calls);
        set(&self.backlog_pieces, &[mount], load.backlog_pieces);
        set(&self.backlog_bytes, &[mount], load.backlog_bytes);
        set(&self.waiting_bytes, &[mount], load.waiting_bytes);
    }

    pub(crate) fn database_size(&self, mount: &str, size_bytes: u64) {
        set(&self.database_bytes, mount, size_bytes);
    }

    /// A backup has ended; when, if it succeeded (milliseconds since 1970).
    pub(crate) fn backup_ended(&self, created_ms: Option<u64>) {
        self.backups.with_label_values(&[if created_ms.is_some() { "ok" } else { "failed" }]).inc();
        if let Some(created_ms) = created_ms {
            self.last_backup(created_ms);
        }
    }

    /// When the last backup was made, also by an earlier process (milliseconds since 1970).
    pub(crate) fn last_backup(&self, created_ms: u64) {
        self.last_backup.set(Duration::from_millis(created_ms).as_secs_f64());
    }

    pub(crate) fn job(&self, mount: &str, ok: bool) {
        self.jobs.with_label_values(&[mount, if ok { "ok" } else { "failed" }]).inc();
    }

    /// An attempt to send a post: `sent`, `retried` (later) or `failed` (given up).
    pub(crate) fn post(&self, mount: &str, result: &str) {
        self.posts.with_label_values(&[mount, result]).inc();
    }

    pub(crate) fn posts_waiting(&self, mount: &str, count: u64) {
        set(&self.posts_waiting, mount, count);
    }

    /// An HTTP connection, until what it gives is dropped.
    pub(crate) fn http_connection(&self) -> OpenConnection {
        self.http_connections.inc();
        OpenConnection(self.http_connections.clone())
    }

    /// What the databases of a mount take beside their content.
    pub(crate) fn usage(&self, mount: &str, usage: MountUsage) {
        set(&self.log_bytes, mount, usage.log_bytes);
        set(&self.snapshot_seconds, mount, usage.snapshot_age.as_secs());
    }

    /// The quota of a mount, and what of it is used.
    pub(crate) fn quota(&self, mount: &str, bytes_max: u64, used_bytes: u64) {
        set(&self.quota_bytes, mount, bytes_max);
        set(&self.quota_used_bytes, mount, used_bytes);
    }

    pub(crate) fn connected(&self, mount: &str) {
        self.connections.with_label_values(&[mount]).inc();
        self.connections_total.with_label_values(&[mount]).inc();
    }

    pub(crate) fn disconnected(&self, mount: &str, code: u16) {
        self.connections.with_label_values(&[mount]).dec();
        let code = if CLOSE_CODES.contains(&code) { code.to_string() } else { OTHER_CODE.to_owned() };
        self.closes.with_label_values(&[mount, code.as_str()]).inc();
    }

    /// The counters of messages of a mount.
    pub(crate) fn traffic(&self, mount: &str) -> Traffic {
        let of = |direction| {
            let labels = [mount, direction];
            MessageCounters { messages: self.frames.with_label_values(&labels), bytes: self.bytes.with_label_values(&labels) }
        };
        Traffic { received: of("in"), sent: of("out") }
    }

    pub(crate) fn call(&self, mount: &str, export: &str, ok: bool, elapsed: Duration) {
        self.calls.with_label_values(&[mount, export, if ok { "ok" } else { "failed" }]).inc();
        self.call_seconds.with_label_values(&[mount, export]).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn group_settled(&self, mount: &str, durable: bool) {
        self.groups.with_label_values(&[mount, if durable { "durable" } else { "lost" }]).inc();
    }

    pub(crate) fn published(&self, mount: &str) {
        self.publications.with_label_values(&[mount]).inc();
    }

    pub(crate) fn slow_reader(&self, mount: &str) {
        self.slow_readers.with_label_values(&[mount]).inc();
    }

    pub(crate) fn request(&self, mount: &str, status: u16) {
        let class = format!("{}xx", status / 100);
        self.requests.with_label_values(&[mount, class.as_str()]).inc();
    }

    /// An object could not be sent whole.
    pub(crate) fn object_failed(&self, mount: &str) {
        self.objects_failed.with_label_values(&[mount]).inc();
    }

    pub(crate) fn turned_away(&self, reason: &str) {
        self.turned_away.with_label_values(&[reason]).inc();
    }

    pub(crate) fn component_counter(&self, mount: &str, name: &str, labels: &[(String, String)], value: f64) {
        let mut component = self.component.lock();
        if !component.takes(mount, name, labels) {
            return;
        }
        let room = component.has_room();
        let (names, values) = with_mount(mount, labels);
        let make = || CounterVec::new(Opts::new(name, name), &names);
        let counter = registered(&self.registry, &mut component.counters, name, room, make);
        // A counter only grows.
        if let Some(metric) = counter.and_then(|counter| counter.get_metric_with_label_values(&values).ok())
            && value > 0.0
        {
            metric.inc_by(value);
        }
    }

    pub(crate) fn component_gauge(&self, mount: &str, name: &str, labels: &[(String, String)], value: f64) {
        let mut component = self.component.lock();
        if !component.takes(mount, name, labels) {
            return;
        }
        let room = component.has_room();
        let (names, values) = with_mount(mount, labels);
        let make = || GaugeVec::new(Opts::new(name, name), &names);
        let gauge = registered(&self.registry, &mut component.gauges, name, room, make);
        if let Some(metric) = gauge.and_then(|gauge| gauge.get_metric_with_label_values(&values).ok()) {
            metric.set(value);
        }
    }

    pub(crate) fn component_histogram(&self, mount: &str, name: &str, labels: &[(String, String)], value: f64) {
        let mut component = self.component.lock();
        if !component.takes(mount, name, labels) {
            return;
        }
        let room = component.has_room();
        let (names, values) = with_mount(mount, labels);
        let make = || HistogramVec::new(HistogramOpts::new(name, name), &names);
        let histogram = registered(&self.registry, &mut component.histograms, name, room, make);
        if let Some(metric) = histogram.and_then(|histogram| histogram.get_metric_with_label_values(&values).ok()) {
            metric.observe(value);
        }
    }

    /// Counters and gauges of a mount.
    pub(crate) fn of_mount(&self, mount: &str) -> Vec<MountValue> {
        let mut values = Vec::new();
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                let labels: Vec<_> = metric.get_label().iter().map(|label| (label.name().to_owned(), label.value().to_owned())).collect();
                if !labels.iter().any(|(name, value)| name == "mount" && value == mount) {
                    continue;
                }
                match family.get_field_type() {
                    prometheus::proto::MetricType::COUNTER => {
                        values.push((family.name().to_owned(), labels, metric.get_counter().get_value(), true));
                    }
                    prometheus::proto::MetricType::GAUGE => {
                        values.push((family.name().to_owned(), labels, metric.get_gauge().get_value(), false));
                    }
                    _ => {}
                }
            }
        }
        values
    }
}

/// Counters of WebSocket messages of one mount, found once: looking them up by their labels would cost more than counting.
pub(crate) struct Traffic {
    received: MessageCounters,
    sent: MessageCounters,
}

struct MessageCounters {
    messages: IntCounter,
    bytes: IntCounter,
}

impl Traffic {
    /// A message of a client came.
    pub(crate) fn received(&self, bytes: usize) {
        self.received.count(bytes);
    }

    /// A message left for a client.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.count(bytes);
    }
}

impl MessageCounters {
    fn count(&self, bytes: usize) {
        self.messages.inc();
        self.bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

/// Counts as open until it is dropped.
pub(crate) struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn set(gauges: &IntGaugeVec, mount: &str, value: u64) {
    gauges.with_label_values(&[mount]).set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn with_mount<'a>(mount: &'a str, labels: &'a [(String, String)]) -> (Vec<&'a str>, Vec<&'a str>) {
    let names = std::iter::once("mount").chain(labels.iter().map(|(name, _)| name.as_str())).collect();
    let values = std::iter::once(mount).chain(labels.iter().map(|(_, value)| value.as_str())).collect();
    (names, values)
}

/// A metric of a component, made and registered when first used. One that cannot be is dropped with a word in the log.
fn registered<'a, M: Clone + prometheus::core::Collector + 'static>(
    registry: &Registry,
    known: &'a mut HashMap<String, M>,
    name: &str,
    room: bool,
    make: impl FnOnce() -> Result<M, prometheus::Error>,
) -> Option<&'a M> {
    if !known.contains_key(name) {
        if !room {
            return None;
        }
        match make().and_then(|metric| registry.register(Box::new(metric.clone())).map(|()| metric)) {
            Ok(metric) => known.insert(name.to_owned(), metric),
            Err(error) => {
                tracing::debug!(name, %error, "a metric of the component was dropped");
                None
            }
        };
    }
    known.get(name)
}
