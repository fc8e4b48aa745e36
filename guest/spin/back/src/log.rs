//! Lines of the log: JSON on standard error, where Spin collects them.

use serde_json::{Map, Value as Json};

use crate::back::Back;
use crate::bindings::exports::syncline::host::effects::Level;

/// Message, or fields, of one line.
const LOG_BYTES_MAX: usize = 16 << 10;

impl Back {
    /// A line of the logic. `fields` is a JSON object.
    pub fn log(&self, level: Level, message: &str, fields: &str) {
        let may_log = self.try_call(|call| (call.may_log(), call.mount.clone()));
        let (may_log, mount) = may_log.unwrap_or((Some(true), String::new()));
        match may_log {
            Some(true) => {}
            Some(false) => return,
            None => return self.log_own("warn", "a call logs too much: the rest of it is left out", &[("mount", &mount)]),
        }
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let mut line = self.line(level, message);
        if !mount.is_empty() {
            line.insert("mount".into(), mount.into());
        }
        let fields = shortened(fields);
        let parsed = serde_json::from_str(&fields).ok().filter(Json::is_object);
        line.insert("fields".into(), parsed.unwrap_or_else(|| Json::from(fields)));
        self.ports.log.line(&Json::Object(line).to_string());
    }

    /// A line of the adapter's own.
    pub fn log_own(&self, level: &str, message: &str, fields: &[(&str, &str)]) {
        let mut line = self.line(level, message);
        for (name, value) in fields {
            line.insert((*name).into(), shortened(value).into());
        }
        self.ports.log.line(&Json::Object(line).to_string());
    }

    fn line(&self, level: &str, message: &str) -> Map<String, Json> {
        let mut line = Map::new();
        line.insert("time_ms".into(), self.now_ms().into());
        line.insert("level".into(), level.into());
        line.insert("message".into(), shortened(message).into());
        line
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= LOG_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(LOG_BYTES_MAX);
    format!("{}… ({} bytes more)", &text[..end], text.len() - end)
}
