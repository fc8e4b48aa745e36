//! Settings of a mount: JSON objects whose keys may be spelt in snake_case or camelCase, unknown ones refused by name.

use std::net::SocketAddr;

use serde_json::{Map, Value};

/// A JSON object that is taken apart key by key; every problem is noted with the path of its key.
pub struct Settings {
    path: String,
    left: Map<String, Value>,
    /// What was wrong, one line a problem.
    pub problems: Vec<String>,
}

impl Settings {
    /// Parses the settings of a mount. Anything but an object is a problem of the whole.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        match serde_json::from_str(text) {
            Ok(Value::Object(left)) => Ok(Self { path: String::new(), left, problems: Vec::new() }),
            Ok(_) => Err(vec!["settings: must be an object".into()]),
            Err(error) => Err(vec![format!("settings: {error}")]),
        }
    }

    /// An object inside settings, at `path`.
    pub fn nested(path: &str, left: Map<String, Value>) -> Self {
        Self { path: format!("{path}."), left, problems: Vec::new() }
    }

    /// Whether a key is there and has not been taken, in either spelling.
    pub fn has(&self, key: &str) -> bool {
        self.left.contains_key(key) || self.left.contains_key(&other_spelling(key))
    }

    /// Takes a key out, under its own name, in the other spelling, or by an alias.
    pub fn take(&mut self, key: &str, aliases: &[&str]) -> Option<Value> {
        let other = other_spelling(key);
        let mut found = None;
        for name in [key, other.as_str()].into_iter().chain(aliases.iter().copied()) {
            if let Some(value) = self.left.remove(name) {
                if found.is_some() {
                    self.problem(key, "is given twice, in two spellings");
                }
                found = Some(value);
            }
        }
        found
    }

    /// Takes a key as a type; a value that does not fit is a problem and counts as absent.
    pub fn take_as<T: serde::de::DeserializeOwned>(&mut self, key: &str, aliases: &[&str]) -> Option<T> {
        let value = self.take(key, aliases)?;
        match serde_json::from_value(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(key, &error.to_string());
                None
            }
        }
    }

    /// Takes one of several words; the first stands for absence.
    pub fn take_word<T: Copy>(&mut self, key: &str, first: (&str, T), others: &[(&str, T)]) -> T {
        let Some(value) = self.take(key, &[]) else { return first.1 };
        let mut words = std::iter::once(&first).chain(others);
        if let Some((_, word)) = words.find(|(name, _)| value.as_str() == Some(*name)) {
            return *word;
        }
        let names: Vec<_> = std::iter::once(first.0).chain(others.iter().map(|(name, _)| *name)).collect();
        self.problem(key, &format!("must be one of {names:?}"));
        first.1
    }

    /// Takes a number that must be more than 0.
    pub fn take_positive(&mut self, key: &str, default: u64) -> u64 {
        let value = self.take_as(key, &[]).unwrap_or(default);
        if value == 0 {
            self.problem(key, "must be more than 0");
        }
        value
    }

    /// Takes the path prefix of a mount: empty (root) or with a leading and without a trailing slash.
    pub fn take_path(&mut self, default: &str) -> String {
        let path: String = self.take_as("path", &[]).unwrap_or_else(|| default.to_owned());
        if !path.is_empty() && !path.starts_with('/') {
            self.problem("path", "must be empty or begin with a slash");
        }
        path.trim_end_matches('/').to_owned()
    }

    /// Takes an object as settings of their own; one that is absent is empty. To be given back by [`Settings::end_block`].
    pub fn block(&mut self, key: &str) -> Self {
        let left = self.take_as(key, &[]).unwrap_or_default();
        Self { path: format!("{}{key}.", self.path), left, problems: Vec::new() }
    }

    /// Ends the reading of a block.
    pub fn end_block(&mut self, block: Self) {
        self.problems.extend(block.finish());
    }

    /// What has not been taken yet.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        self.left.keys().map(String::as_str)
    }

    /// Notes a problem of a key.
    pub fn problem(&mut self, key: &str, what: &str) {
        self.problems.push(format!("{}{key}: {what}", self.path));
    }

    /// Takes out the address that the host listens on. Gives it where other machines can reach it.
    pub fn take_public_address(&mut self) -> Option<String> {
        let address: String = self.take_as("listen", &[])?;
        (!is_loopback(&address)).then_some(address)
    }

    /// Ends the reading: what is left is unknown.
    pub fn finish(mut self) -> Vec<String> {
        for key in self.left.keys() {
            self.problems.push(format!("{}{key}: unknown key", self.path));
        }
        self.problems
    }
}

fn is_loopback(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => address.starts_with("localhost:"),
    }
}

/// `max_frame_bytes` as `maxFrameBytes`, and the other way round.
fn other_spelling(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    let mut upper = false;
    for character in key.chars() {
        if character == '_' {
            upper = true;
        } else if upper {
            out.extend(character.to_uppercase());
            upper = false;
        } else if character.is_uppercase() {
            out.push('_');
            out.extend(character.to_lowercase());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_one_key_and_unknown_keys_are_named() {
        let mut settings = Settings::parse(r#"{"maxFrameBytes": 3, "colour": 1}"#).unwrap();
        assert_eq!(settings.take_as::<u64>("max_frame_bytes", &[]), Some(3));
        assert_eq!(settings.finish(), ["colour: unknown key"]);
        let mut twice = Settings::parse(r#"{"a_b": 1, "aB": 2}"#).unwrap();
        twice.take("a_b", &[]);
        assert_eq!(twice.finish(), ["a_b: is given twice, in two spellings"]);
        let mut camel = Settings::parse(r#"{"max_frame_bytes": "x"}"#).unwrap();
        assert_eq!(camel.take_as::<u64>("maxFrameBytes", &[]), None);
        assert!(camel.finish()[0].starts_with("maxFrameBytes: "));
    }
}
