//! `syncline:host/effects`: posts, log, metrics and documents of a mount.

use crate::runtime::bindings::guest::syncline::host::effects::{Host, Kind, Level, Metric, OutboundPost};
use crate::runtime::effect::Effect;
use crate::runtime::limits::{LOG_LINES_MAX, POST_BYTES_MAX, loggable};
use crate::runtime::outbox::Post;
use crate::runtime::state::State;

impl Host for State {
    async fn post(&mut self, post: OutboundPost) -> wasmtime::Result<()> {
        let mount = self.mount()?;
        if mount.plan().post_targets.contains(&post.url) {
            let id = format!("{:016x}{:016x}", mount.environment.random(), mount.environment.random());
            let post = Post::new(id, post.url, &post.headers, post.body);
            if post.bytes() > POST_BYTES_MAX {
                return Err(wasmtime::Error::msg(format!("a post has more than {POST_BYTES_MAX} bytes")));
            }
            return self.call()?.effect(Effect::Post(post));
        }
        if !self.may_log()? {
            return Ok(());
        }
        let host = post.url.split('/').nth(2).unwrap_or_default().to_owned();
        tracing::warn!(mount = mount.name, host = %loggable(&host), "a post to a target that the plan does not allow was dropped");
        Ok(())
    }

    async fn measure(&mut self, metric: Metric) -> wasmtime::Result<()> {
        let metrics = &self.mount()?.metrics;
        match metric.kind {
            Kind::Counter => metrics.component_counter(&self.mount()?.name, &metric.name, &metric.labels, metric.value),
            Kind::Gauge => metrics.component_gauge(&self.mount()?.name, &metric.name, &metric.labels, metric.value),
            Kind::Histogram => metrics.component_histogram(&self.mount()?.name, &metric.name, &metric.labels, metric.value),
        }
        Ok(())
    }

    async fn measured(&mut self) -> wasmtime::Result<Vec<Metric>> {
        let values = self.mount()?.metrics.of_mount(&self.mount()?.name);
        let metric = |(name, labels, value, counter)| {
            let kind = if counter { Kind::Counter } else { Kind::Gauge };
            Metric { name, kind, labels, value }
        };
        Ok(values.into_iter().map(metric).collect())
    }

    async fn log(&mut self, level: Level, message: String, fields: String) -> wasmtime::Result<()> {
        if !self.may_log()? {
            return Ok(());
        }
        let mount = self.mount()?;
        let mount = mount.name.as_str();
        let (message, fields) = (loggable(&message), loggable(&fields));
        let fields = fields.as_ref();
        match level {
            Level::Debug => tracing::debug!(target: "syncline::component", mount, fields, "{message}"),
            Level::Info => tracing::info!(target: "syncline::component", mount, fields, "{message}"),
            Level::Warn => tracing::warn!(target: "syncline::component", mount, fields, "{message}"),
            Level::Error => tracing::error!(target: "syncline::component", mount, fields, "{message}"),
        }
        Ok(())
    }

    async fn refresh_document(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        let mount = self.mount()?;
        let document = mount.plan().documents.iter().find(|document| document.name == name).cloned();
        if let Some(document) = document {
            return Ok(mount.refresh_document(&document).await);
        }
        if self.may_log()? {
            tracing::warn!(mount = mount.name, document = %loggable(&name), "the plan has no document of this name");
        }
        Ok(None)
    }
}

impl State {
    /// Whether the call may write another line to the log; where it stops the log says so.
    fn may_log(&mut self) -> wasmtime::Result<bool> {
        let call = self.call()?;
        call.log_lines += 1;
        let lines = call.log_lines;
        if lines == LOG_LINES_MAX + 1 {
            tracing::warn!(mount = self.mount()?.name, lines_max = LOG_LINES_MAX, "a call logs too much: the rest of it is left out");
        }
        Ok(lines <= LOG_LINES_MAX)
    }
}
