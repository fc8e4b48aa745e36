//! What is told to others: pokes and webhooks with the commit, the app after it (docs/protocols/plasma.md, section 17).

use serde_json::{Value as Json, json};

use super::Call;
use super::engine::{Caller, Committing, Hooks};
use super::errors::Report;
use super::migration::MigrationResult;
use super::push::PushReply;
use super::realtime::{live, topics};
use crate::imports::{self, Identity, OutboundPost};
use crate::registry::FailedPost;

/// Beginning of the names of jobs that tell the app something.
pub const HOOK_JOB_PREFIX: &str = "hook/";

/// What the app can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A push changed rows.
    Pushed,
    /// Something went wrong.
    Error,
    /// A request was served.
    Metric,
    /// A schema was migrated.
    Migration,
}

impl Hook {
    /// The reserved name of the event.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Pushed => "on-pushed",
            Hook::Error => "on-error",
            Hook::Metric => "on-metric",
            Hook::Migration => "on-migration",
        }
    }
}

/// Pokes and webhooks of one write, made inside its transaction.
pub struct WriteHooks<'a> {
    call: &'a Call<'a>,
}

impl<'a> WriteHooks<'a> {
    /// Those of a call.
    pub fn of(call: &'a Call<'a>) -> Self {
        Self { call }
    }
}

impl Hooks for WriteHooks<'_> {
    fn committing(&self, change: &Committing<'_>) {
        let rules = &self.call.settings.on_pushed;
        let by_client = change.caller.is_some();
        if change.rows_changed > 0 {
            live::publish(self.call, change.version, Some(change.tables));
        }
        // Last: whoever has heard of the version by this has had what came before it.
        if rules.poke || !by_client {
            topics::publish_pokes(self.call, change.version);
        }
        if let (Some(url), Some(caller)) = (&rules.webhook, change.caller)
            && change.rows_changed > 0
        {
            let told = json!({
                "clientGroupID": change.client_group_id, "clientID": change.client_id,
                "userId": caller.user_id, "version": change.version,
            });
            self.call.post(url, &told);
        }
    }
}

impl Call<'_> {
    /// A POST of JSON from the outbox.
    pub fn post(&self, url: &str, body: &Json) {
        let headers = vec![crate::http::header("content-type", "application/json")];
        self.imports.effects.post(OutboundPost { url: url.into(), headers, body: body.to_string().into_bytes() });
    }

    /// Reports a webhook that failed. That of errors is not: its report would be another one.
    pub fn post_failed(&self, post: &FailedPost) {
        let Ok(told) = serde_json::from_slice::<Json>(&post.body) else { return };
        if self.settings.on_pushed.webhook.as_ref() != Some(&post.url) || told.get("kind").is_some() {
            return;
        }
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let fate = if post.given_up { "given up" } else { "tried again" };
        let cause = format!("webhook: {} ({fate} after attempt {})", post.error, post.attempts);
        self.report(&[Report::OnPushedFailed { client_group_id: text("clientGroupID"), client_id: text("clientID"), cause }]);
    }

    /// Tells the app of a push that changed rows. A failure is reported and nothing else.
    pub fn pushed(&self, caller: &Caller, client_group_id: &str, reply: &PushReply) {
        if reply.rows_changed == 0 {
            return;
        }
        let client_id = reply.client_id.clone().unwrap_or_default();
        let told = json!({"clientGroupID": client_group_id, "clientID": client_id, "ctx": caller.context, "version": reply.version});
        self.tell_app(Hook::Pushed, &told, Some(caller));
    }

    /// Tells the app of a migration.
    pub fn migrated(&self, result: &MigrationResult) {
        let told = json!({"diff": result.diff, "events": result.events});
        self.tell_app(Hook::Migration, &told, None);
    }

    /// Whether the app names an event in its description, and the settings do not forbid to tell it.
    fn hears(&self, hook: Hook) -> bool {
        let wanted = match hook {
            Hook::Pushed => self.settings.on_pushed.app,
            Hook::Error => self.settings.on_error.app,
            Hook::Metric => self.settings.on_metric.app,
            Hook::Migration => None,
        };
        wanted != Some(false) && self.engine.app(self.imports).is_ok_and(|app| app.has_event(hook.name()))
    }

    /// Tells the app something that it hears, now or (`waitUntil: "background"`) in a job of its own.
    pub fn tell_app(&self, hook: Hook, data: &Json, caller: Option<&Caller>) {
        if !self.hears(hook) {
            return;
        }
        if self.settings.hooks_in_background {
            let number = self.hook_jobs.get();
            self.hook_jobs.set(number + 1);
            let name = format!("{HOOK_JOB_PREFIX}{}/{number}", self.connection);
            let user_id = caller.map(|caller| &caller.user_id);
            let payload = json!({"hook": hook.name(), "data": data, "userId": user_id});
            self.imports.pubsub.schedule(&name, self.imports.now_ms, payload.to_string().into_bytes());
        } else {
            self.tell_app_now(hook.name(), data, caller.map(|caller| caller.user_id.as_str()));
        }
    }

    /// Runs a job that [`Call::tell_app`] put down.
    pub fn fire_hook(&self, payload: &[u8]) {
        let Ok(told) = serde_json::from_slice::<Json>(payload) else { return };
        if let Some(name) = told["hook"].as_str() {
            self.tell_app_now(name, &told["data"], told["userId"].as_str());
        }
    }

    fn tell_app_now(&self, name: &str, data: &Json, user_id: Option<&str>) {
        let identity = Identity { user_id: user_id.map(str::to_owned), roles: Vec::new(), claims: data["ctx"].to_string() };
        let caller = imports::Caller { mount: self.mount.to_owned(), connection: Some(self.connection), identity, context: Vec::new() };
        let Err(failure) = self.imports.app.event(&caller, name, &data.to_string()) else { return };
        let cause = if failure.message.is_empty() { failure.code } else { failure.message };
        if name == Hook::Pushed.name() {
            let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
            self.report(&[Report::OnPushedFailed { client_group_id: text("clientGroupID"), client_id: text("clientID"), cause }]);
        } else {
            let fields = json!({"hook": name, "cause": cause}).to_string();
            self.imports.effects.log(imports::Level::Warn, "a hook of the app failed", &fields);
        }
    }
}
