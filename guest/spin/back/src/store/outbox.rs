//! The outbox of `effects.post`: posts as rows, until they are sent or given up.

use super::of_mounts;
use crate::bindings::exports::syncline::host::types::Header;
use crate::sql::{Database, Dialect, Error, Value, Write, bytes, cells, number, text, unsigned};

/// How often a post is tried.
pub const ATTEMPTS_MAX: u32 = 20;
/// A post that is older is given up, in milliseconds.
pub const AGE_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The pause after the first failure, in milliseconds; it doubles with each further one.
const PAUSE_MS_FIRST: u64 = 1000;
/// The longest pause, in milliseconds.
const PAUSE_MS_MAX: u64 = 60 * 60 * 1000;
/// How long others leave alone what is being sent, in milliseconds: longer than an attempt.
const LEASE_MS: u64 = 15_000;
/// Bytes of a post.
pub const POST_BYTES_MAX: usize = 1 << 20;

/// A POST on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The same in every attempt.
    pub id: String,
    /// Its target.
    pub url: String,
    /// Lines of `name: value`.
    pub head: Vec<u8>,
    /// Sent as it is.
    pub body: Vec<u8>,
}

/// A post that is due, leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Whose it is.
    pub mount: String,
    /// What is sent.
    pub post: Post,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was made.
    pub created_ms: u64,
}

impl Post {
    /// A post without the headers that are not valid, and how many those were.
    pub fn new(id: String, url: String, headers: &[Header], body: Vec<u8>) -> (Self, usize) {
        let (mut head, mut refused) = (Vec::new(), 0);
        for header in headers {
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
            let is_value = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
            if header.name.is_empty() || !header.name.as_bytes().iter().all(is_name) || !header.value.iter().all(is_value) {
                refused += 1;
                continue;
            }
            head.extend_from_slice(header.name.to_ascii_lowercase().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(&header.value);
            head.push(b'\n');
        }
        (Self { id, url, head, body }, refused)
    }

    /// What it holds.
    pub fn bytes(&self) -> usize {
        self.id.len() + self.url.len() + self.head.len() + self.body.len()
    }

    /// Its headers.
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        let split = |line: &[u8]| {
            let colon = line.windows(2).position(|pair| pair == b": ")?;
            Some((String::from_utf8(line[..colon].to_owned()).ok()?, line[colon + 2..].to_owned()))
        };
        self.head.split(|byte| *byte == b'\n').filter_map(split).collect()
    }
}

/// Puts a post down.
pub fn keep(mount: &str, post: &Post, now_ms: u64) -> Write {
    (
        "INSERT INTO {}outbox (id, mount, url, headers, body, created, due, attempts) VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
        vec![
            post.id.as_str().into(),
            mount.into(),
            post.url.as_str().into(),
            post.head.as_slice().into(),
            post.body.as_slice().into(),
            number(now_ms),
            number(now_ms),
        ],
    )
}

/// Posts of mounts that are due, leased.
pub fn take(database: &Database, mounts: &[String], now_ms: u64, limit: u32) -> Result<Vec<Due>, Error> {
    if mounts.is_empty() || limit == 0 {
        return Ok(Vec::new());
    }
    let (of_mounts, mut parameters) = of_mounts(mounts);
    let due = format!("FROM {{}}outbox WHERE {of_mounts} AND due <= ? ORDER BY due, id LIMIT {limit}");
    parameters.push(number(now_ms));
    if database.run(&format!("SELECT 1 {due}"), &parameters)?.rows.is_empty() {
        return Ok(Vec::new());
    }
    database.write(|link| {
        let lock = if database.dialect() == Dialect::Postgres { " FOR UPDATE SKIP LOCKED" } else { "" };
        let select = format!("SELECT id, mount, url, headers, body, created, attempts {due}{lock}");
        let posts = link.run(&database.own(&select), &parameters)?.rows.into_iter().map(read).collect::<Result<Vec<Due>, Error>>()?;
        for due in &posts {
            let lease = database.own("UPDATE {}outbox SET due = ? WHERE id = ?");
            link.run(&lease, &[number(now_ms + LEASE_MS), due.post.id.as_str().into()])?;
        }
        Ok(posts)
    })
}

fn read(row: Vec<Value>) -> Result<Due, Error> {
    let [id, mount, url, head, body, created, attempts] = cells(row)?;
    let post = Post { id: text(id)?, url: text(url)?, head: bytes(head)?, body: bytes(body)? };
    let attempts = u32::try_from(unsigned(&attempts)?).unwrap_or(u32::MAX);
    Ok(Due { mount: text(mount)?, post, attempts, created_ms: unsigned(&created)? })
}

/// It was sent, or is given up.
pub fn forget(database: &Database, id: &str) -> Result<(), Error> {
    database.run("DELETE FROM {}outbox WHERE id = ?", &[id.into()]).map(drop)
}

/// It is tried again.
pub fn postpone(database: &Database, id: &str, attempts: u32, due_ms: u64) -> Result<(), Error> {
    let parameters = [i64::from(attempts).into(), number(due_ms), id.into()];
    database.run("UPDATE {}outbox SET attempts = ?, due = ? WHERE id = ?", &parameters).map(drop)
}

/// When to try again after so many failed attempts; none: never. `random` spreads those that failed together.
pub fn due_again(attempts: u32, created_ms: u64, now_ms: u64, random: u64) -> Option<u64> {
    if attempts >= ATTEMPTS_MAX || now_ms.saturating_sub(created_ms) >= AGE_MS_MAX {
        return None;
    }
    let doubled = PAUSE_MS_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(32));
    let half = doubled.min(PAUSE_MS_MAX) / 2;
    Some(now_ms + half + random % half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_could_forge_others_are_left_out() {
        let header = |name: &str, value: &[u8]| Header { name: name.into(), value: value.to_owned() };
        let given = [header("X-One", b"1: a"), header("bad\n", b"1"), header("x-two", b"1\r\nx: y"), header("", b"")];
        let (post, refused) = Post::new("id".into(), "http://a".into(), &given, Vec::new());
        assert_eq!((post.headers(), refused), (vec![("x-one".to_owned(), b"1: a".to_vec())], 3));
    }

    #[test]
    fn pauses_double_and_attempts_and_age_are_bounded() {
        let pause = |attempts, random| due_again(attempts, 0, 1000, random).map(|due| due - 1000);
        assert_eq!([pause(1, 0), pause(1, 499), pause(2, 0), pause(3, 0)], [Some(500), Some(999), Some(1000), Some(2000)]);
        assert_eq!(due_again(ATTEMPTS_MAX, 0, 1000, 0), None);
        assert_eq!(due_again(1, 1000, 1000 + AGE_MS_MAX, 0), None);
    }
}
