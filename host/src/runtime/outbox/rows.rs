//! Posts as rows: one table in each database that a call posted from, in the host's own where the call wrote none.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::executor::durable::statement;
use crate::executor::{DatabaseInfo, Dialect, RowSet, Statement, Value};
use crate::runtime::bindings::guest::syncline::host::types::Header;

/// A POST on its way to the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Post {
    /// The same in every attempt.
    pub(crate) id: String,
    pub(crate) url: String,
    /// Lines of `name: value`.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Post {
    /// A post without the headers that are not valid.
    pub(crate) fn new(id: String, url: String, headers: &[Header], body: Vec<u8>) -> Self {
        let mut head = Vec::new();
        for header in headers {
            match (HeaderName::try_from(header.name.as_str()), HeaderValue::from_bytes(&header.value)) {
                (Ok(name), Ok(value)) => {
                    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                        head.extend_from_slice(part);
                    }
                }
                _ => tracing::error!(header = header.name.len(), "a header of a post is not valid and was left out"),
            }
        }
        Self { id, url, head, body }
    }

    /// What it holds in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.id.len() + self.url.len() + self.head.len() + self.body.len()
    }

    /// Its headers.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in self.head.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = line.windows(2).position(|pair| pair == b": ") else { continue };
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 2..])) {
                headers.append(name, value);
            }
        }
        headers
    }
}

/// A post that is due, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) id: String,
    pub(super) attempts: u32,
    pub(super) created_ms: u64,
    pub(super) due_ms: u64,
}

/// The statements of an outbox.
pub(super) struct Table<'a> {
    pub(super) info: &'a DatabaseInfo,
    pub(super) mount: &'a str,
}

impl Table<'_> {
    fn statement(&self, template: &str, parameters: Vec<Value>) -> Statement {
        statement(self.info, template, parameters)
    }

    /// Makes the table where there is none.
    pub(super) fn create(&self) -> [Statement; 2] {
        let bytes = if self.info.dialect == Dialect::Postgres { "BYTEA" } else { "BLOB" };
        let table = format!(
            "CREATE TABLE IF NOT EXISTS {{}}syncline_outbox (id TEXT PRIMARY KEY, mount TEXT NOT NULL, url TEXT NOT NULL, \
             head {bytes} NOT NULL, body {bytes} NOT NULL, created BIGINT NOT NULL, due BIGINT NOT NULL, attempts BIGINT NOT NULL)"
        );
        let index = "CREATE INDEX IF NOT EXISTS {}syncline_outbox_due ON {}syncline_outbox (mount, url, due)";
        [self.statement(&table, Vec::new()), self.statement(index, Vec::new())]
    }

    pub(super) fn insert(&self, post: &Post, now_ms: u64) -> Statement {
        self.statement(
            "INSERT INTO {}syncline_outbox (id, mount, url, head, body, created, due, attempts) VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            vec![
                post.id.as_str().into(),
                self.mount.into(),
                post.url.as_str().into(),
                Value::Blob(post.head.clone()),
                Value::Blob(post.body.clone()),
                number(now_ms),
                number(now_ms),
            ],
        )
    }

    /// What is due for a target.
    pub(super) fn due(&self, url: &str, now_ms: u64, count: usize) -> Statement {
        let select = format!(
            "SELECT id, attempts, created, due FROM {{}}syncline_outbox WHERE mount = ? AND url = ? AND due <= ? ORDER BY due LIMIT {count}"
        );
        self.statement(&select, vec![self.mount.into(), url.into(), number(now_ms)])
    }

    /// How many wait, and when the first is due.
    pub(super) fn waiting(&self) -> Statement {
        self.statement("SELECT COUNT(*), MIN(due) FROM {}syncline_outbox WHERE mount = ?", vec![self.mount.into()])
    }

    /// The first time after now at which one is due.
    pub(super) fn due_next(&self, now_ms: u64) -> Statement {
        let select = "SELECT COUNT(*), MIN(due) FROM {}syncline_outbox WHERE mount = ? AND due > ?";
        self.statement(select, vec![self.mount.into(), number(now_ms)])
    }

    /// The whole of one.
    pub(super) fn content(&self, id: &str) -> Statement {
        self.statement("SELECT url, head, body FROM {}syncline_outbox WHERE id = ?", vec![id.into()])
    }

    /// Puts off one that is still due when it was; whether it was shows in the count of changes.
    pub(super) fn claim(&self, due: &Due, until_ms: u64) -> Statement {
        let update = "UPDATE {}syncline_outbox SET due = ? WHERE id = ? AND due = ?";
        self.statement(update, vec![number(until_ms), due.id.as_str().into(), number(due.due_ms)])
    }

    pub(super) fn postpone(&self, id: &str, attempts: u32, due_ms: u64) -> Statement {
        let update = "UPDATE {}syncline_outbox SET attempts = ?, due = ? WHERE id = ?";
        self.statement(update, vec![Value::Integer(attempts.into()), number(due_ms), id.into()])
    }

    pub(super) fn delete(&self, id: &str) -> Statement {
        self.statement("DELETE FROM {}syncline_outbox WHERE id = ?", vec![id.into()])
    }

    /// Removes what may not be sent any more.
    pub(super) fn delete_others(&self, targets: &[String]) -> Statement {
        let places = vec!["?"; targets.len()].join(", ");
        let targets = targets.iter().map(|target| target.as_str().into());
        let parameters = std::iter::once(self.mount.into()).chain(targets).collect();
        self.statement(&format!("DELETE FROM {{}}syncline_outbox WHERE mount = ? AND url NOT IN ({places})"), parameters)
    }
}

/// Rows of [`Table::due`].
pub(super) fn due_rows(rows: RowSet) -> Vec<Due> {
    let due = |row: Vec<Value>| match <[Value; 4]>::try_from(row) {
        Ok([Value::Text(id), Value::Integer(attempts), Value::Integer(created), Value::Integer(due)]) => Some(Due {
            id,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            created_ms: u64::try_from(created).unwrap_or(0),
            due_ms: u64::try_from(due).unwrap_or(0),
        }),
        _ => None,
    };
    rows.rows.iter().filter_map(due).collect()
}

/// The row of [`Table::waiting`] or [`Table::due_next`]: how many, and the first time.
pub(super) fn waiting_row(rows: &RowSet) -> (u64, Option<u64>) {
    let whole = |value: Value| if let Value::Integer(number) = value { u64::try_from(number).ok() } else { None };
    let mut cells = rows.rows.iter().flatten().map(whole);
    (cells.next().flatten().unwrap_or(0), cells.next().flatten())
}

/// The row of [`Table::content`]; none where it is gone.
pub(super) fn content_row(id: &str, rows: RowSet) -> Option<Post> {
    match <[Value; 3]>::try_from(rows.rows.iter().next()?) {
        Ok([Value::Text(url), Value::Blob(head), Value::Blob(body)]) => Some(Post { id: id.to_owned(), url, head, body }),
        _ => None,
    }
}

fn number(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_kept_as_they_are_and_what_is_none_is_left_out() {
        let header = |name: &str, value: &[u8]| Header { name: name.into(), value: value.to_vec() };
        let headers =
            [header("x-a", b"1: 2"), header("x-a", b"3"), header("x-b", b"\xff"), header("not valid", b""), header("x-c", b"a\r\nb")];
        let kept = Post::new("id".into(), "http://t/".into(), &headers, Vec::new()).headers();
        let kept: Vec<_> = kept.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(kept, [("x-a", &b"1: 2"[..]), ("x-a", b"3"), ("x-b", b"\xff")]);
    }
}
