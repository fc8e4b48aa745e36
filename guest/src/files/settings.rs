//! The settings of a mount (docs/protocols/files.md).

use std::collections::BTreeMap;

use crate::settings::Settings as Keys;

/// Headers that are this room's, or the host's, to set.
const OWN_HEADERS: [&str; 10] = [
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "etag",
    "location",
    "transfer-encoding",
    "vary",
];

/// Everything that can be set, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The path prefix: empty (root) or with a leading and without a trailing slash.
    pub path: String,
    /// The folder, as configured.
    pub folder: String,
    /// The file that stands for the folder it is in.
    pub index: String,
    /// The file that stands for every path without a file whose last segment has no dot.
    pub fallback: Option<String>,
    /// How long whoever gets a file may keep it.
    pub cache_control: String,
    /// What every answer carries besides.
    pub headers: BTreeMap<String, String>,
}

impl Settings {
    /// Reads and checks settings (a JSON object). Each problem names its key.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut keys = Keys::parse(text)?;
        keys.take_public_address();
        let path = keys.take_path("/");
        let folder: String = keys.take_as("folder", &[]).unwrap_or_default();
        if folder.is_empty() {
            keys.problem("folder", "is required: the folder with the files");
        }
        let index = keys.take_as("index", &[]).unwrap_or_else(|| "index.html".to_owned());
        let fallback: Option<String> = keys.take_as("fallback", &[]);
        for (key, file) in [("index", Some(&index)), ("fallback", fallback.as_ref())] {
            if file.is_some_and(|file| !file.split('/').all(is_name)) {
                keys.problem(key, "must be the path of a file below the folder, without names that begin with a dot");
            }
        }
        let cache_control = keys.take_as("cache_control", &[]).unwrap_or_else(|| "no-cache".to_owned());
        if !is_header_value(&cache_control) {
            keys.problem("cache_control", "must be printable ASCII");
        }
        let given: BTreeMap<String, String> = keys.take_as("headers", &[]).unwrap_or_default();
        let mut headers = BTreeMap::new();
        for (name, value) in given {
            let name = name.to_ascii_lowercase();
            if !is_header_name(&name) || !is_header_value(&value) {
                keys.problem("headers", &format!("{name:?} is not a header with a value of printable ASCII"));
            } else if OWN_HEADERS.contains(&name.as_str()) {
                keys.problem("headers", &format!("{name:?} is set by the server itself"));
            }
            headers.insert(name, value);
        }
        let settings = Self { path, folder, index, fallback, cache_control, headers };
        let problems = keys.finish();
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }
}

/// Whether a segment of a path may name a file or a folder. What begins with a dot is nobody's business.
pub fn is_name(segment: &str) -> bool {
    !segment.is_empty() && !segment.starts_with('.') && !segment.contains(['\\', '\0'])
}

fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

fn is_header_value(value: &str) -> bool {
    value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}
