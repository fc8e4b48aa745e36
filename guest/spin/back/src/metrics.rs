//! Metrics of the logic, in the memory of this instance: what one request gathered is gone with it where instances are not used again.

use std::collections::BTreeMap;

use crate::bindings::exports::syncline::host::effects::{Kind, Metric};

/// Distinct metrics that an instance keeps.
const METRICS_MAX: usize = 10_000;

type Key = (String, String, Vec<(String, String)>);

/// Counters and gauges by mount, name and labels.
#[derive(Default)]
pub struct Metrics(BTreeMap<Key, (bool, f64)>);

impl Metrics {
    /// Adds to a counter or sets a gauge. Histograms are not kept: nobody could read them.
    pub fn measure(&mut self, mount: &str, metric: Metric) {
        let counts = match metric.kind {
            Kind::Counter => true,
            Kind::Gauge => false,
            Kind::Histogram => return,
        };
        let key = (mount.to_owned(), metric.name, metric.labels);
        if self.0.len() >= METRICS_MAX && !self.0.contains_key(&key) {
            return;
        }
        let (_, value) = self.0.entry(key).or_insert((counts, 0.0));
        if counts {
            *value += metric.value;
        } else {
            *value = metric.value;
        }
    }

    /// Those of a mount.
    pub fn of(&self, mount: &str) -> Vec<Metric> {
        let own = self.0.iter().filter(|((of, _, _), _)| of == mount);
        let metric = |((_, name, labels), (counts, value)): (&Key, &(bool, f64))| Metric {
            name: name.clone(),
            kind: if *counts { Kind::Counter } else { Kind::Gauge },
            labels: labels.clone(),
            value: *value,
        };
        own.map(metric).collect()
    }
}
