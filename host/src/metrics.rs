//! Prometheus metrics. Labels come from the configuration and the contract only, so that their number is bounded.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{CounterVec, Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

/// Distinct metric names that components may bring, all mounts together.
const COMPONENT_METRICS_MAX: usize = 200;

/// The metrics of a host.
pub struct Metrics {
    registry: Registry,
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
    component: Mutex<ComponentMetrics>,
}

#[derive(Default)]
struct ComponentMetrics {
    counters: HashMap<String, CounterVec>,
    gauges: HashMap<String, GaugeVec>,
    histograms: HashMap<String, HistogramVec>,
}

impl ComponentMetrics {
    fn len(&self) -> usize {
        self.counters.len() + self.gauges.len() + self.histograms.len()
    }
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
        let connections = IntGaugeVec::new(Opts::new("syncline_connections", "Open connections"), &["mount"])?;
        registry.register(Box::new(connections.clone()))?;
        let call_seconds = HistogramVec::new(
            HistogramOpts::new("syncline_call_seconds", "Time of a call of the component, waiting for its turn included")
                .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
            &["mount", "export"],
        )?;
        registry.register(Box::new(call_seconds.clone()))?;
        Ok(Self {
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
            call_seconds,
            component: Mutex::default(),
            registry,
        })
    }

    /// The text format, version 0.0.4.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    pub(crate) fn connected(&self, mount: &str) {
        self.connections.with_label_values(&[mount]).inc();
        self.connections_total.with_label_values(&[mount]).inc();
    }

    pub(crate) fn disconnected(&self, mount: &str, code: u16) {
        self.connections.with_label_values(&[mount]).dec();
        // Clients may send any code: those without a meaning of their own share a label.
        let code = if (1000..=1015).contains(&code) { code.to_string() } else { "other".to_owned() };
        self.closes.with_label_values(&[mount, code.as_str()]).inc();
    }

    pub(crate) fn frame(&self, mount: &str, direction: &str, bytes: usize) {
        self.frames.with_label_values(&[mount, direction]).inc();
        self.bytes.with_label_values(&[mount, direction]).inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
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

    pub(crate) fn component_counter(&self, mount: &str, name: &str, labels: &[(String, String)], value: f64) {
        let mut component = self.component.lock();
        let room = component.len() < COMPONENT_METRICS_MAX;
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
        let room = component.len() < COMPONENT_METRICS_MAX;
        let (names, values) = with_mount(mount, labels);
        let make = || GaugeVec::new(Opts::new(name, name), &names);
        let gauge = registered(&self.registry, &mut component.gauges, name, room, make);
        if let Some(metric) = gauge.and_then(|gauge| gauge.get_metric_with_label_values(&values).ok()) {
            metric.set(value);
        }
    }

    pub(crate) fn component_histogram(&self, mount: &str, name: &str, labels: &[(String, String)], value: f64) {
        let mut component = self.component.lock();
        let room = component.len() < COMPONENT_METRICS_MAX;
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
        let made = make().and_then(|metric| registry.register(Box::new(metric.clone())).map(|()| metric));
        match made {
            Ok(metric) if room => known.insert(name.to_owned(), metric),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(name, %error, "a metric of the component was dropped");
                None
            }
        };
    }
    known.get(name)
}
