//! What is said of a text that cannot be read: where, and what is wrong, but nothing of the text itself. It may be the
//! line with a secret.

/// What is wrong with TOML.
pub(super) fn of_toml(error: &toml::de::Error, text: &str) -> String {
    let what = without_value(error.message());
    match error.span() {
        Some(span) => {
            let before = text.get(..span.start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("line {line}, column {column}: {what}")
        }
        None => what,
    }
}

/// What is wrong with JSON.
pub(super) fn of_json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    // serde_json puts the place behind.
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    format!("line {}, column {}: {}", error.line(), error.column(), without_value(what))
}

/// serde quotes a value of the wrong kind: `invalid type: string "secret", expected u16`. What stands before stays.
pub(crate) fn without_value(message: &str) -> String {
    let wrong = ["invalid type: ", "invalid value: "].iter().filter_map(|start| message.find(start)).min();
    let quote = wrong.and_then(|wrong| message[wrong..].find(['"', '`']).map(|quote| wrong + quote));
    match (quote, message.rfind(", expected ")) {
        (Some(quote), Some(expected)) if quote < expected => format!("{}{}", message[..quote].trim_end(), &message[expected..]),
        _ => message.lines().collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn said(text: &str, file: &str) -> String {
        Config::parse(text, Path::new(file)).unwrap_err().to_string()
    }

    #[test]
    fn nothing_of_the_text_is_quoted() {
        let secrets = [
            "admin_token = secret-token",
            "admin_token = \"secret-token",
            "admin_token = [\"secret-token\"]",
            "listen = { a = \"secret-token\" }",
            "mount = \"secret-token\"",
            "storage = \"secret-token\"",
            "[log]\nlevel = 3\nformat = [\"secret-token\"]",
            "admin_token = \"x\" secret-token",
            "[[mount]]\nprotocol = \"secsync\"\nsettings = \"secret-token, expected\"",
        ];
        for text in secrets {
            let said = said(text, "a.toml");
            assert!(said.starts_with("a.toml: line ") && !said.contains("secret-token"), "{said}");
        }
        for text in [r#"{"admin_token": ["secret-token"]}"#, r#"{"mount": "secret-token"}"#, r#"{"data": secret-token}"#] {
            let said = said(text, "a.json");
            assert!(said.starts_with("a.json: line 1, column ") && !said.contains("secret-token"), "{said}");
        }
        assert!(!said("admin_token = 731905\n", "a.toml").contains("731905"));
    }

    #[test]
    fn the_place_is_named() {
        assert!(said("listen = \"x\"\n\nlisten = \"y\"", "a.toml").starts_with("a.toml: line 3, column 1: "));
        assert!(said("data = 7", "a.toml").contains("invalid type: integer, expected "));
    }
}
