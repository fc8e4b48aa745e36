//! Looks at SQL without understanding it: what kind of statement it is, where it ends, where its placeholders are.
//!
//! Strings, quoted names and comments of both dialects are passed over, so that nothing within them counts.

use super::Dialect;

/// A word, a placeholder or a single character of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Letters, digits, `_` and `$`, beginning with a letter.
    Word(&'a str),
    /// `$1`.
    Placeholder(usize),
    /// Anything else that is no space.
    Mark(char),
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'a> {
    pub(super) token: Token<'a>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The first word, in lower case.
    pub verb: String,
    /// Whether rows may be changed.
    pub writes: bool,
    /// Whether the statement gives rows.
    pub returns: bool,
    /// Whether it makes, alters or removes tables, indexes and the like.
    pub is_schema: bool,
    /// Length without a `;` and comments at the end.
    pub length: usize,
}

/// Why a statement is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only the first would run.
    #[error("more than one statement")]
    Several,
    /// It would end the transaction of the adapter, change the connection, or reach outside.
    #[error("a statement of this kind is not allowed here")]
    Kind,
    /// SQLite would take it for the end.
    #[error("the statement holds a NUL character")]
    Nul,
}

const VERBS: [&str; 12] =
    ["select", "insert", "update", "delete", "with", "values", "create", "alter", "drop", "analyze", "explain", "reindex"];
const SQLITE_VERBS: [&str; 1] = ["replace"];
const POSTGRES_VERBS: [&str; 2] = ["merge", "truncate"];
/// What changes rows.
pub(super) const WRITING: [&str; 5] = ["insert", "update", "delete", "merge", "replace"];

/// Looks at a statement of the logic.
pub fn shape(sql: &str, dialect: Dialect) -> Result<Shape, Refusal> {
    if sql.contains('\0') {
        return Err(Refusal::Nul);
    }
    let tokens = tokens(sql, dialect);
    let words = |token: &Token<'_>| if let Token::Word(word) = token { Some(word.to_ascii_lowercase()) } else { None };
    let is_bracket = |placed: &&Placed<'_>| placed.token == Token::Mark('(');
    let first = tokens.iter().find(|placed| !is_bracket(placed));
    let verb = first.and_then(|placed| words(&placed.token)).unwrap_or_default();
    let own = if dialect == Dialect::Sqlite { &SQLITE_VERBS[..] } else { &POSTGRES_VERBS[..] };
    if !VERBS.contains(&verb.as_str()) && !own.contains(&verb.as_str()) {
        return Err(Refusal::Kind);
    }
    let start: Vec<String> = tokens.iter().take(4).filter_map(|placed| words(&placed.token)).collect();
    if verb == "create" && start.iter().skip(1).take(1).any(|word| word == "temp" || word == "temporary") {
        return Err(Refusal::Kind);
    }
    let is_trigger = dialect == Dialect::Sqlite && verb == "create" && start.iter().any(|word| word == "trigger");
    let length = length(&tokens, is_trigger)?;
    let (main, returns) = main(&tokens, &words);
    let writes = match verb.as_str() {
        "insert" | "update" | "delete" | "merge" | "replace" => true,
        "with" => tokens.iter().filter_map(|placed| words(&placed.token)).any(|word| WRITING.contains(&word.as_str())),
        _ => false,
    };
    let is_schema = matches!(verb.as_str(), "create" | "alter" | "drop" | "truncate" | "reindex" | "analyze");
    let returns = match main.as_deref() {
        Some("insert" | "update" | "delete" | "merge" | "replace") => returns,
        _ => !is_schema,
    };
    Ok(Shape { verb, writes, returns, is_schema, length })
}

/// Where the one statement ends.
fn length(tokens: &[Placed<'_>], is_trigger: bool) -> Result<usize, Refusal> {
    let end = tokens.iter().rev().find(|placed| placed.token != Token::Mark(';')).map_or(0, |placed| placed.end);
    let semicolons = tokens.iter().any(|placed| placed.token == Token::Mark(';') && placed.start < end);
    let ends_trigger =
        || tokens.iter().any(|placed| placed.end == end && matches!(placed.token, Token::Word(word) if word.eq_ignore_ascii_case("end")));
    match semicolons {
        true if is_trigger && ends_trigger() => Ok(end),
        true => Err(Refusal::Several),
        false => Ok(end),
    }
}

/// The verb behind the expressions of a WITH, and whether RETURNING follows it.
fn main(tokens: &[Placed<'_>], words: &dyn Fn(&Token<'_>) -> Option<String>) -> (Option<String>, bool) {
    let (mut depth, mut main, mut returns) = (0_i32, None, false);
    for placed in tokens {
        match placed.token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            _ if depth > 0 => {}
            ref token => match words(token) {
                Some(word) if main.is_none() && (WRITING.contains(&word.as_str()) || matches!(word.as_str(), "select" | "values")) => {
                    main = Some(word);
                }
                Some(word) if word == "returning" && main.is_some() => returns = true,
                _ => {}
            },
        }
    }
    (main, returns)
}

/// Takes a statement apart.
pub(super) fn tokens(sql: &str, dialect: Dialect) -> Vec<Placed<'_>> {
    let (bytes, mut at, mut found) = (sql.as_bytes(), 0, Vec::new());
    while at < bytes.len() {
        let start = at;
        at = match bytes[at] {
            b'\'' => {
                let escapes = dialect == Dialect::Postgres && is_escape_string(&found, start);
                if escapes {
                    found.pop();
                }
                end_of_quoted(bytes, at, b'\'', escapes)
            }
            b'"' => end_of_quoted(bytes, at, b'"', false),
            b'`' if dialect == Dialect::Sqlite => end_of_quoted(bytes, at, b'`', false),
            b'[' if dialect == Dialect::Sqlite => end_of(bytes, at + 1, b"]"),
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at = end_of(bytes, at + 2, b"\n");
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = end_of_comment(bytes, at, dialect);
                continue;
            }
            b'$' if dialect == Dialect::Postgres => match dollar(sql, at) {
                (end, Some(token)) => {
                    found.push(Placed { token, start, end });
                    at = end;
                    continue;
                }
                (end, None) => end,
            },
            byte if byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii() => {
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii();
                let length = bytes[at..].iter().take_while(|byte| is_word(byte)).count();
                found.push(Placed { token: Token::Word(&sql[at..at + length]), start, end: at + length });
                at += length;
                continue;
            }
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            byte => {
                found.push(Placed { token: Token::Mark(byte.into()), start, end: at + 1 });
                at += 1;
                continue;
            }
        };
        // Quoted, whatever it is: it counts only as something that is there.
        found.push(Placed { token: Token::Mark('\''), start, end: at });
    }
    found
}

/// `E'…'`: a backslash escapes.
fn is_escape_string(found: &[Placed<'_>], start: usize) -> bool {
    found.last().is_some_and(|placed| placed.end == start && matches!(placed.token, Token::Word("e" | "E")))
}

fn end_of(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let found = bytes[from.min(bytes.len())..].windows(what.len()).position(|window| window == what);
    found.map_or(bytes.len(), |position| from + position + what.len())
}

fn end_of_quoted(bytes: &[u8], start: usize, quote: u8, escapes: bool) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 2,
            byte if byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Comments nest in PostgreSQL.
fn end_of_comment(bytes: &[u8], start: usize, dialect: Dialect) -> usize {
    if dialect == Dialect::Sqlite {
        return end_of(bytes, start + 2, b"*/");
    }
    let (mut depth, mut at) = (0, start);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// `$1`, or a string between `$tag$` and `$tag$`.
fn dollar(sql: &str, start: usize) -> (usize, Option<Token<'static>>) {
    let rest = &sql[start + 1..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 {
        let number = rest[..digits].parse().unwrap_or(usize::MAX);
        return (start + 1 + digits, Some(Token::Placeholder(number)));
    }
    let tag = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    if rest.as_bytes().get(tag) != Some(&b'$') {
        return (start + 1, Some(Token::Mark('$')));
    }
    let fence = &sql[start..start + tag + 2];
    (end_of(sql.as_bytes(), start + fence.len(), fence.as_bytes()), None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(sql: &str, dialect: Dialect) -> Shape {
        shape(sql, dialect).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"))
    }

    #[test]
    fn what_follows_the_first_statement_is_refused_and_not_dropped() {
        for sql in ["SELECT 1; SELECT 2", "SELECT 1;;DELETE FROM t", "DELETE FROM t;\n-- c\nSELECT 1"] {
            for dialect in [Dialect::Sqlite, Dialect::Postgres] {
                assert_eq!(shape(sql, dialect), Err(Refusal::Several), "{sql}");
            }
        }
        for sql in ["SELECT ';'", "SELECT 1 ; ; ", "SELECT 1 -- ; SELECT 2", "SELECT \";\" /* ; */ ;"] {
            assert!(shape(sql, Dialect::Sqlite).is_ok(), "{sql}");
        }
        assert!(shape("SELECT $a$;$a$, E'\\';', $1", Dialect::Postgres).is_ok());
        assert_eq!(&"SELECT 1 ; -- end"[..of("SELECT 1 ; -- end", Dialect::Sqlite).length], "SELECT 1");
    }

    #[test]
    fn triggers_of_sqlite_hold_statements() {
        let trigger = "CREATE TRIGGER a AFTER INSERT ON t BEGIN DELETE FROM u; UPDATE v SET w = 1; END;";
        assert!(of(trigger, Dialect::Sqlite).is_schema);
        assert_eq!(shape(&format!("{trigger} DELETE FROM t"), Dialect::Sqlite), Err(Refusal::Several));
    }

    #[test]
    fn what_only_the_adapter_does_is_refused() {
        for sql in [
            "COMMIT",
            " rollback",
            "BEGIN",
            "SAVEPOINT a",
            "PRAGMA a",
            "ATTACH 'a' AS b",
            "SET a TO b",
            "",
            "/* */",
            "CREATE TEMP TABLE t (a)",
        ] {
            for dialect in [Dialect::Sqlite, Dialect::Postgres] {
                assert_eq!(shape(sql, dialect), Err(Refusal::Kind), "{sql}");
            }
        }
        assert_eq!(shape("SELECT 1\0", Dialect::Sqlite), Err(Refusal::Nul));
        assert_eq!(shape("REPLACE INTO t VALUES (1)", Dialect::Postgres), Err(Refusal::Kind));
    }

    #[test]
    fn what_gives_rows_is_told_from_what_changes_them() {
        let seen = |sql: &str| (of(sql, Dialect::Postgres).writes, of(sql, Dialect::Postgres).returns);
        assert_eq!(seen("SELECT 1"), (false, true));
        assert_eq!(seen("(SELECT 1) UNION (SELECT 2)"), (false, true));
        assert_eq!(seen("INSERT INTO t SELECT 1"), (true, false));
        assert_eq!(seen("INSERT INTO t VALUES (1) RETURNING a"), (true, true));
        assert_eq!(seen("UPDATE t SET a = 'returning'"), (true, false));
        assert_eq!(seen("WITH gone AS (DELETE FROM t RETURNING a) SELECT a FROM gone"), (true, true));
        assert_eq!(seen("WITH gone AS (DELETE FROM t RETURNING a) INSERT INTO u SELECT a FROM gone"), (true, false));
        assert_eq!(seen("CREATE TABLE t AS SELECT 1"), (false, false));
    }

    #[test]
    fn placeholders_are_found_outside_of_strings() {
        let found: Vec<_> = tokens("SELECT $1, '$2', $a$ $3 $a$, \"$4\", $12::text -- $5", Dialect::Postgres)
            .into_iter()
            .filter_map(|placed| if let Token::Placeholder(number) = placed.token { Some(number) } else { None })
            .collect();
        assert_eq!(found, [1, 12]);
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at_without_a_panic(sql in "[ a-z$'\"/*;()\\[\\]`0-9\\-\\\\é]{0,40}") {
            for dialect in [Dialect::Sqlite, Dialect::Postgres] {
                let _ = shape(&sql, dialect);
                let placed = tokens(&sql, dialect);
                prop_assert!(placed.iter().all(|placed| placed.start < placed.end && placed.end <= sql.len()));
            }
        }
    }
}
