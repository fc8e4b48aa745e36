//! What is said of JSON that cannot be read. The text may hold secrets, so none of it is quoted but names of keys.

/// Names are not longer than this.
const NAME_BYTES_MAX: usize = 32;

/// What is wrong, and where.
pub(super) fn of_json(error: &serde_json::Error) -> String {
    let said = error.to_string();
    // serde_json says the place at the end; it comes first here, as in the messages of the server.
    let what = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
    format!("line {}, column {}: {}", error.line(), error.column(), without_value(what))
}

/// A message without the value that it quotes. A key that nobody knows is named if it looks like a name.
fn without_value(message: &str) -> String {
    for kind in ["unknown field ", "unknown variant "] {
        if let Some(rest) = message.strip_prefix(kind) {
            let name = rest.strip_prefix('`').and_then(|rest| rest.split_once('`')).map(|(name, _)| name);
            let name = name.filter(|name| looks_like_a_name(name)).map_or_else(String::new, |name| format!(" `{name}`"));
            let expected = rest.rfind(", expected ").map_or("", |start| &rest[start..]);
            return format!("{}{name}{expected}", kind.trim_end());
        }
    }
    for kind in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = message.strip_prefix(kind) {
            let found: String = rest.chars().take_while(|character| character.is_ascii_alphabetic() || *character == ' ').collect();
            let expected = rest.rfind(", expected ").map_or("", |start| &rest[start..]);
            return format!("{kind}{}{expected}", found.trim_end());
        }
    }
    message.lines().collect::<Vec<_>>().join(", ")
}

/// Whether a text could be a key that somebody misspelt: secrets have digits, signs or length.
fn looks_like_a_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
}
