//! What databases say, in the errors of the contract. Spin hands their words on as text, so the kind is read from that.

use super::{ConstraintKind, Error};
use crate::ports::PortError;

/// An error of SQLite.
pub fn sqlite_error(error: PortError) -> Error {
    let said = match error {
        PortError::Said(said) => said,
        PortError::Forbidden(why) | PortError::Away(why) => return Error::Unavailable(why),
    };
    if let Some(error) = sqlite_constraint(&said) {
        return error;
    }
    let holds = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    // Only whole messages count, but for those of servers that put words of their own around them.
    if holds(&["database is locked", "database table is locked", "SQLITE_BUSY", "database schema is locked"]) {
        Error::Aborted
    } else if holds(&["database or disk is full", "SQLITE_FULL"]) {
        Error::Limit("disk".into())
    } else if said.starts_with("interrupted") {
        Error::Limit("time of a statement".into())
    } else if said.starts_with("string or blob too big") {
        Error::Limit("size of a value or statement".into())
    } else if said.starts_with("query result exceeds limit") {
        Error::Limit("bytes of a result".into())
    } else if said.starts_with("out of memory") {
        Error::Limit("memory".into())
    } else if said.starts_with("not authorized") {
        Error::InvalidStatement("a statement of this kind is not allowed here".into())
    } else if said.starts_with("attempt to write a readonly database") {
        Error::InvalidStatement("a snapshot only reads".into())
    } else if holds(&["disk image is malformed", "file is not a database"]) {
        Error::Unavailable(format!("damaged ({said}): stop the server and restore a backup"))
    } else if [
        "disk I/O error",
        "unable to open database file",
        "internal runtime error",
        "locking protocol",
        "Hrana",
        "error sending request",
    ]
    .iter()
    .any(|start| said.starts_with(start))
    {
        Error::Unavailable(said)
    } else {
        Error::InvalidStatement(said)
    }
}

/// `UNIQUE constraint failed: todo.id` names the columns behind the colon.
fn sqlite_constraint(said: &str) -> Option<Error> {
    const FAILED: &str = " constraint failed";
    let end = said.find(FAILED)?;
    let kind = match &said[..end] {
        before if before.ends_with("UNIQUE") || before.ends_with("PRIMARY KEY") => ConstraintKind::Unique,
        before if before.ends_with("FOREIGN KEY") => ConstraintKind::ForeignKey,
        before if before.ends_with("NOT NULL") => ConstraintKind::NotNull,
        before if before.ends_with("CHECK") => ConstraintKind::Check,
        _ => ConstraintKind::Other,
    };
    let name = said[end + FAILED.len()..].strip_prefix(": ").unwrap_or(said);
    Some(Error::Constraint((kind, name.to_owned())))
}

/// An error of PostgreSQL, as the driver of Spin prints it.
pub fn postgres_error(error: PortError) -> Error {
    let said = match error {
        PortError::Said(said) => said,
        PortError::Forbidden(why) | PortError::Away(why) => return Error::Unavailable(why),
    };
    let message = || quoted(&said, "message: \"").unwrap_or_else(|| said.clone());
    let Some(code) = sql_state(&said) else {
        let lost = ["kind: Io", "kind: Closed", "kind: Connect", "kind: Timeout", "connection closed", "kind: Tls"];
        return if lost.iter().any(|part| said.contains(part)) {
            Error::Unavailable(said)
        } else if said.contains("exceeds limit") {
            Error::Limit("bytes of a result".into())
        } else {
            Error::InvalidStatement(said)
        };
    };
    let constraint = |kind| {
        let name = quoted(&said, "constraint: Some(\"").or_else(|| quoted(&said, "column: Some(\"")).unwrap_or_else(message);
        Error::Constraint((kind, name))
    };
    match code {
        "23505" => constraint(ConstraintKind::Unique),
        "23503" => constraint(ConstraintKind::ForeignKey),
        "23502" => constraint(ConstraintKind::NotNull),
        "23514" => constraint(ConstraintKind::Check),
        "40001" | "40P01" => Error::Aborted,
        "57014" => Error::Limit("time of a statement".into()),
        "55P03" => Error::Limit("time to wait for a lock".into()),
        "25006" => Error::InvalidStatement("a snapshot only reads".into()),
        "53100" => Error::Limit("disk".into()),
        "25P02" => Error::InvalidStatement(message()),
        _ => match &code[..2] {
            "23" => constraint(ConstraintKind::Other),
            "53" => Error::Limit(message()),
            "08" | "25" | "57" | "58" | "XX" | "F0" => Error::Unavailable(message()),
            _ => Error::InvalidStatement(message()),
        },
    }
}

/// The five characters of a code: `SqlState(E23505)`, or `SqlState(Other("XX999"))`.
fn sql_state(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("code: SqlState(")?;
    let code = rest.strip_prefix('E').or_else(|| rest.strip_prefix("Other(\""))?;
    code.get(..5).filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// What stands between this and the next quote, with its escapes undone.
fn quoted(said: &str, before: &str) -> Option<String> {
    let (_, rest) = said.split_once(before)?;
    let (mut text, mut characters) = (String::new(), rest.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => return Some(text),
            '\\' => match characters.next()? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
    None
}

/// A parameter that was not of the type that the server wants: its place, and that type as the driver calls it. Nothing was
/// sent then.
pub(super) fn wrong_type(error: &PortError) -> Option<(usize, &str)> {
    let PortError::Said(said) = error else { return None };
    let (_, rest) = said.split_once("kind: ToSql(")?;
    let (index, rest) = rest.split_once(')')?;
    let (_, rest) = rest.split_once("WrongType { postgres: ")?;
    let (wanted, _) = rest.rsplit_once(", rust: ")?;
    Some((index.parse().ok()?, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite(said: &str) -> Error {
        sqlite_error(PortError::Said(said.into()))
    }

    fn postgres(code: &str) -> Error {
        postgres_error(PortError::Said(format!(
            "Error {{ kind: Db, cause: Some(DbError {{ severity: \"ERROR\", parsed_severity: Some(Error), code: SqlState({code}), \
             message: \"it \\\"said\\\" so\", detail: None, table: Some(\"t\"), column: None, constraint: Some(\"t_pkey\") }}) }}"
        )))
    }

    #[test]
    fn words_of_sqlite_become_kinds() {
        let constraint = |kind, name: &str| Error::Constraint((kind, name.into()));
        assert_eq!(sqlite("UNIQUE constraint failed: t.a, t.b"), constraint(ConstraintKind::Unique, "t.a, t.b"));
        assert_eq!(sqlite("FOREIGN KEY constraint failed"), constraint(ConstraintKind::ForeignKey, "FOREIGN KEY constraint failed"));
        assert_eq!(sqlite("NOT NULL constraint failed: t.a"), constraint(ConstraintKind::NotNull, "t.a"));
        assert_eq!(sqlite("CHECK constraint failed: a > 0"), constraint(ConstraintKind::Check, "a > 0"));
        assert_eq!(sqlite("database is locked"), Error::Aborted);
        assert_eq!(sqlite("database or disk is full"), Error::Limit("disk".into()));
        assert_eq!(sqlite("attempt to write a readonly database"), Error::InvalidStatement("a snapshot only reads".into()));
        assert!(matches!(sqlite("no such table: x"), Error::InvalidStatement(_)));
        assert!(matches!(sqlite("near \"SELEC\": syntax error in SELEC at offset 0"), Error::InvalidStatement(_)));
        assert!(matches!(sqlite("disk I/O error"), Error::Unavailable(_)));
        assert!(matches!(sqlite("database disk image is malformed"), Error::Unavailable(_)));
    }

    #[test]
    fn codes_of_postgres_become_kinds() {
        assert_eq!(postgres("E23505"), Error::Constraint((ConstraintKind::Unique, "t_pkey".into())));
        assert_eq!(postgres("E23P01"), Error::Constraint((ConstraintKind::Other, "t_pkey".into())));
        assert_eq!(postgres("E40001"), Error::Aborted);
        assert_eq!(postgres("E40P01"), Error::Aborted);
        assert_eq!(postgres("E42P01"), Error::InvalidStatement("it \"said\" so".into()));
        assert_eq!(postgres("E25P02"), Error::InvalidStatement("it \"said\" so".into()));
        assert_eq!(postgres("E57P01"), Error::Unavailable("it \"said\" so".into()));
        assert_eq!(postgres("Other(\"P0001\")"), Error::InvalidStatement("it \"said\" so".into()));
        assert!(matches!(postgres_error(PortError::Said("Error { kind: Closed, cause: None }".into())), Error::Unavailable(_)));
    }

    #[test]
    fn a_parameter_of_another_type_is_found() {
        let said = "Error { kind: ToSql(2), cause: Some(WrongType { postgres: Jsonb, rust: \"alloc::string::String\" }) }";
        assert_eq!(wrong_type(&PortError::Said(said.into())), Some((2, "Jsonb")));
        assert_eq!(wrong_type(&PortError::Said("Error { kind: Db }".into())), None);
    }
}
