//! What the deployment answers for itself: `/healthz`, `/readyz`, `POST /internal/tick`.

use serde_json::{Value, json};

use crate::answers;
use crate::bindings::syncline::host::types::RequestHead;
use crate::front::{Deployment, Front};
use crate::head::{bearer, is_same};
use crate::log::{Level, log, words};
use crate::ports::{Clock, Exchange};

/// Where a clock from outside knocks.
pub(crate) const TICK: &str = "/internal/tick";
/// How long a tick may work.
const TICK_MS: u64 = 20_000;

/// Whether a path is one of the process itself, which is answered whatever else is wrong.
pub(crate) fn is_for_process(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// An object of one text.
pub(crate) fn of_process(key: &str, text: &str) -> Value {
    json!({key: text})
}

impl<C: Clock> Front<C> {
    /// The answer to a path of the process itself.
    pub(crate) async fn of_process(&self, path: &str, method: &str) -> (u16, Value) {
        if method != "GET" && method != "HEAD" {
            return (405, of_process("error", "method-not-allowed"));
        }
        if path == "/healthz" {
            return (200, of_process("status", "ok"));
        }
        let failed = self.not_ready().await;
        if failed.is_empty() { (200, of_process("status", "ready")) } else { (503, json!({"status": "unavailable", "failed": failed})) }
    }

    /// What does not work. Mounts that were never started are.
    async fn not_ready(&self) -> Vec<String> {
        let deployment = match self.deployment() {
            Ok(deployment) => deployment,
            Err(error) => {
                log(Level::Error, None, "not ready", error);
                return vec!["config".into()];
            }
        };
        let mut failed = Vec::new();
        let names: Vec<String> = deployment.mounts.iter().map(|mount| mount.name.clone()).collect();
        if let Err(error) = self.adapter.positions(&names) {
            log(Level::Error, None, "not ready", words(&error));
            failed.push("executor".into());
        }
        for mount in &deployment.mounts {
            if let Err(error) = self.ready(mount).await {
                log(Level::Error, Some(&mount.name), "not ready", error);
                failed.push(format!("mount {}", mount.name));
            }
        }
        failed
    }

    /// Does what is due, as much as can be done in a while.
    pub(crate) async fn tick(&self, deployment: &Deployment, head: &RequestHead, exchange: &mut impl Exchange) {
        let config = &deployment.config;
        let tokens = [&config.tick_token, &config.admin_token];
        if tokens.iter().all(|token| token.is_none()) {
            return answers::send_status(exchange, 404).await;
        }
        if head.method != "POST" {
            return answers::send_status(exchange, 405).await;
        }
        let presented = bearer(&head.headers);
        let fits = |expected: &str| presented.is_some_and(|presented| is_same(expected, presented));
        if !tokens.into_iter().flatten().any(|token| fits(token.expose())) {
            return answers::send_status(exchange, 401).await;
        }
        let done = self.do_due(deployment, self.clock.now_ms().saturating_add(TICK_MS)).await;
        let next_due = match self.adapter.next_due() {
            Ok(next_due) => next_due,
            Err(error) => {
                log(Level::Error, None, "what is due cannot be looked at", words(&error));
                return answers::send_json(exchange, 503, &of_process("error", "unavailable"), true).await;
            }
        };
        answers::send_json(exchange, 200, &json!({"jobs": done.jobs, "posts_failed": done.posts_failed, "next_due": next_due}), true).await;
    }
}
