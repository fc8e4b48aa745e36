//! Lines of the log: one JSON object each, on standard error, as the back adapter writes them.

use std::fmt::Display;

/// How much a line matters.
#[derive(Clone, Copy)]
pub(crate) enum Level {
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
}

/// Writes a line about a mount, or about the deployment as a whole.
pub(crate) fn log(level: Level, mount: Option<&str>, message: &str, detail: impl Display) {
    let level = match level {
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let mut line = serde_json::json!({"level": level, "message": message});
    let detail = detail.to_string();
    for (key, value) in [("mount", mount), ("detail", Some(detail.as_str()).filter(|detail| !detail.is_empty()))] {
        if let Some(value) = value {
            line[key] = value.into();
        }
    }
    eprintln!("{line}");
}

/// An error of the back adapter in words.
pub(crate) fn words(error: &crate::bindings::syncline::spin::adapter::Error) -> &str {
    use crate::bindings::syncline::spin::adapter::Error;

    match error {
        Error::Unavailable(text) | Error::Invalid(text) => text,
    }
}
