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

/// serde quotes a value of the wrong kind: `invalid type: string "secret", expected u16`. What stands before stays. A field
/// or a variant that nobody knows is named if it looks like a name: with a quote missing, a value runs into its key.
pub(crate) fn without_value(message: &str) -> String {
    let starts = ["invalid type: ", "invalid value: ", "unknown field ", "unknown variant "];
    let wrong = starts.iter().filter_map(|start| message.find(start)).min();
    let quote = wrong.and_then(|wrong| message[wrong..].find(['"', '`']).map(|quote| wrong + quote));
    let line = || message.lines().collect::<Vec<_>>().join(", ");
    let Some(quote) = quote else {
        return line();
    };
    let (before, quoted) = message.split_at(quote);
    let named = before.ends_with("unknown field ") || before.ends_with("unknown variant ");
    let harmless = if named {
        quoted[1..].split_once('`').is_some_and(|(name, _)| looks_like_a_name(name))
    } else {
        // No value came before what serde expects.
        before.contains(", expected ")
    };
    if harmless {
        return line();
    }
    // The names that serde expects come behind the value, which may contain the same words.
    let after = if named { quoted.rfind("`, expected ").map(|end| end + 1) } else { quoted.rfind(", expected ") };
    format!("{}{}", before.trim_end(), after.map_or("", |after| &quoted[after..]))
}

/// Whether a text could be a key or a choice that somebody misspelt: secrets have digits, signs or length.
fn looks_like_a_name(text: &str) -> bool {
    const NAME_BYTES_MAX: usize = 32;
    text.len() <= NAME_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_')
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
        let secrets = [
            r#"{"admin_token": ["secret-token"]}"#,
            r#"{"mount": "secret-token"}"#,
            r#"{"data": secret-token}"#,
            r#"{"admin_secret-token","limits":{}}"#,
        ];
        for text in secrets {
            let said = said(text, "a.json");
            assert!(said.starts_with("a.json: line 1, column ") && !said.contains("secret-token"), "{said}");
        }
        assert!(!said("admin_token = 731905\n", "a.toml").contains("731905"));
    }

    #[test]
    fn the_place_is_named() {
        assert!(said("listen = \"x\"\n\nlisten = \"y\"", "a.toml").starts_with("a.toml: line 3, column 1: "));
        assert!(said("data = 7", "a.toml").contains("invalid type: integer, expected "));
        assert!(said("dta = \"x\"", "a.toml").contains("unknown field `dta`, expected one of `listen`, "));
        assert!(said("d8e = \"x\"", "a.toml").contains("unknown field, expected one of `listen`, "));
    }
}
