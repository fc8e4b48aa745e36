//! The commands.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::bindings::exports::syncline::sync::{http, live};
use crate::bindings::syncline::app::app::{self, Caller, Identity};
use crate::bindings::syncline::host::effects::{self, OutboundPost};
use crate::bindings::syncline::host::executor::{Error, Snapshot, Statement, Transaction, Value};
use crate::bindings::syncline::host::pubsub::{self, Class, Mode, Order, Publication, Subscription};
use crate::bindings::syncline::host::storage;
use crate::bindings::syncline::host::types::{Close, Frame, Header};
use crate::excess;

/// The one database.
pub const DATABASE: &str = "faulty";

/// What runs commands.
pub struct Run {
    mount: String,
    pub connection: u64,
    /// Tags of `defer` that have been put off already.
    attachment: String,
    /// Open transactions, the outermost first.
    pub transactions: Vec<Transaction>,
    /// What the call answers.
    pub outcome: live::Outcome,
    /// Headers of the response, where a request is answered.
    pub headers: Vec<Header>,
    /// The request is to wait.
    pub parked: Option<http::Parked>,
    /// What is written to a stream when nothing else is.
    pub keepalive: Option<(u64, Vec<u8>)>,
    /// The input that runs is to be put off for so long.
    pub deferred: Option<u64>,
    /// Name and step of the job that runs.
    pub job: Option<(String, u64)>,
    /// The next step of the job.
    pub next_step: Option<u64>,
}

/// A statement with texts as parameters: `$1` and so on, which both dialects take.
pub fn statement(sql: &str, parameters: &[&str]) -> Statement {
    Statement { sql: sql.into(), parameters: parameters.iter().map(|text| Value::Text((*text).into())).collect() }
}

/// An error by its name.
pub fn word_of(error: &Error) -> String {
    match error {
        Error::Aborted => "aborted",
        Error::Constraint(_) => "constraint",
        Error::InvalidStatement(_) => "invalid-statement",
        Error::Limit(_) => "limit",
        Error::Unavailable(_) => "unavailable",
    }
    .into()
}

/// A failure by its name.
pub fn word_of_failure(failure: live::Failure) -> &'static str {
    match failure {
        live::Failure::Trapped => "trapped",
        live::Failure::TimedOut => "timed-out",
    }
}

/// Adds to a counter, at once and whatever becomes of the call.
pub fn count(key: &str, delta: i64) -> i64 {
    storage::increment(key, delta, None).unwrap_or(-1)
}

/// A row as a snapshot sees it.
pub fn view(key: &str) -> Result<Option<String>, String> {
    row(&Snapshot::open(DATABASE).map_err(|error| word_of(&error))?, key)
}

/// A row as a view shows it.
pub fn row(view: &Snapshot, key: &str) -> Result<Option<String>, String> {
    let found = view.query(&statement("SELECT value FROM item WHERE key = $1", &[key]), None).map_err(|error| word_of(&error))?;
    Ok(first_text(&found.cells))
}

/// The first cell of a result, which is a text of the tests, if there is one.
fn first_text(cells: &[u8]) -> Option<String> {
    let content = cells.strip_prefix(&[3])?.get(4..)?;
    Some(String::from_utf8_lossy(content).into_owned())
}

#[allow(unconditional_recursion, reason = "that is the fault")]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box(recurse(std::hint::black_box(depth + 1)) + 1)
}

fn eat() {
    let mut kept = Vec::new();
    loop {
        kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

/// Falls as the word says; comes back where the word says nothing.
pub fn fall(how: &str) {
    match how {
        "trap" => panic!("the component was told to trap"),
        // A message of 1 MiB.
        "shout" => panic!("{}", "x".repeat(1 << 20)),
        "loop" => loop {
            std::hint::black_box(());
        },
        "eat" => eat(),
        "recurse" => drop(std::hint::black_box(recurse(0))),
        _ => {}
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

impl Run {
    /// For one call.
    pub fn new(mount: String, connection: u64, attachment: &str) -> Self {
        let outcome = live::Outcome {
            send: Vec::new(),
            attachment: None,
            close: None,
            seen: Vec::new(),
            cursors: Vec::new(),
            alarm: live::Alarm::Keep,
            pace: false,
            tasks: Vec::new(),
            defer: None,
            quiet_ms: None,
        };
        let attachment = attachment.to_owned();
        let (transactions, headers) = (Vec::new(), Vec::new());
        let (parked, keepalive) = (None, None);
        Self {
            mount,
            connection,
            attachment,
            transactions,
            outcome,
            headers,
            parked,
            keepalive,
            deferred: None,
            job: None,
            next_step: None,
        }
    }

    /// A frame for the client.
    pub fn say(&mut self, text: String) {
        self.outcome.send.push(Frame::Text(text));
    }

    /// Everything said, as one text.
    pub fn said(&self) -> String {
        let texts = self.outcome.send.iter().map(|frame| if let Frame::Text(text) = frame { text.as_str() } else { "" });
        texts.collect::<Vec<_>>().join(",")
    }

    /// Runs the commands of a frame until one fails or puts the frame off.
    pub fn frame(&mut self, text: &str, failure: Option<live::Failure>) {
        let again = text.strip_prefix("again\n");
        if let Some(failure) = failure {
            self.say(format!("failure {}", word_of_failure(failure)));
            if again.is_none() {
                return;
            }
        }
        for line in again.unwrap_or(text).lines() {
            if let Err(error) = self.command(line) {
                self.say(format!("error {error}"));
                break;
            }
            if self.deferred.is_some() {
                break;
            }
        }
        // What is left open is rolled back, the innermost first.
        while let Some(transaction) = self.transactions.pop() {
            drop(transaction);
        }
    }

    fn command(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = split(line);
        match word {
            "" => Ok(()),
            "trap" | "loop" | "eat" | "recurse" | "shout" => {
                fall(word);
                Ok(())
            }
            word if excess::WORDS.contains(&word) => {
                let (count, bytes) = excess::numbers(rest);
                excess::command(self, word, count, bytes)
            }
            "spin" => {
                let until = Instant::now() + Duration::from_millis(number(rest));
                while Instant::now() < until {
                    std::hint::black_box(());
                }
                Ok(())
            }
            "begin" | "put" | "remove" | "commit" | "rollback" | "write" | "read" | "view" => self.sql(word, rest),
            "set" | "get" | "keep" | "count" | "once" | "store" | "discard" => self.storage(word, rest),
            "publish" | "numbered" | "subscribe" | "unsubscribe" | "members" | "send" | "schedule" | "cancel" => self.pubsub(word, rest),
            "app" => self.app(rest),
            "post" | "document" | "refresh" => self.effects(word, rest),
            "at" | "steps" => self.step(word, rest),
            _ => self.outcome(word, rest),
        }
    }

    fn sql(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let failed = |error: Error| word_of(&error);
        match word {
            "begin" => self.transactions.push(Transaction::begin(DATABASE).map_err(failed)?),
            "put" => {
                let (key, value) = split(rest);
                let insert = statement(
                    "INSERT INTO item (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    &[key, value],
                );
                self.transactions.last().ok_or("no transaction")?.execute(&insert).map_err(failed)?;
            }
            "remove" => {
                self.sql("begin", "")?;
                let delete = statement("DELETE FROM item WHERE key = ?", &[rest]);
                self.transactions.last().ok_or("no transaction")?.execute(&delete).map_err(failed)?;
                self.sql("commit", "")?;
            }
            "commit" => Transaction::commit(self.transactions.pop().ok_or("no transaction")?).map_err(failed)?,
            "rollback" => drop(self.transactions.pop()),
            "write" => {
                self.sql("begin", "")?;
                self.sql("put", rest)?;
                self.sql("commit", "")?;
            }
            "read" => {
                let select = statement("SELECT value FROM item WHERE key = $1", &[rest]);
                let found = self.transactions.last().ok_or("no transaction")?.execute(&select).map_err(failed)?;
                let value = first_text(&found.cells).unwrap_or_else(|| "nothing".into());
                self.say(format!("read {rest}={value}"));
            }
            _ => {
                let value = view(rest)?.unwrap_or_else(|| "nothing".into());
                self.say(format!("view {rest}={value}"));
            }
        }
        Ok(())
    }

    fn storage(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let (key, value) = split(rest);
        match word {
            "set" => storage::set(key, value.as_bytes(), None).map_err(|_| "storage")?,
            "get" => self.say(format!("get {key}={}", crate::fact(key).unwrap_or_else(|| "nothing".into()))),
            // KEY BYTES
            "store" => {
                let content = vec![1; usize::try_from(number(value)).unwrap_or(0)];
                storage::write_object(key, "", &content).map_err(|error| match error {
                    storage::Error::Limit(_) => "limit",
                    _ => "storage",
                })?;
            }
            "discard" => storage::delete_object(key).map_err(|_| "storage")?,
            // A counter, changed at once.
            "keep" => drop(count(key, 1)),
            "count" => self.say(format!("count {rest}={}", count(rest, 0))),
            // The command is run the first time only, whatever becomes of the call.
            _ => {
                if storage::compare_and_set(&format!("once {key}"), None, b"1").map_err(|_| "storage")? {
                    self.command(value)?;
                }
            }
        }
        Ok(())
    }

    fn pubsub(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let (first, others) = split(rest);
        let (second, text) = split(others);
        let publication = |order, message: &str| Publication {
            topic: first.into(),
            message: message.as_bytes().to_vec(),
            order,
            class: Class::MustDeliver,
            except: None,
            close: None,
        };
        match word {
            "publish" => pubsub::publish(&publication(None, others)),
            // publish in the row of the topic's name: TOPIC SEQUENCE TEXT
            "numbered" => {
                let sequence = number(second);
                let order = Order { key: first.into(), after: sequence.saturating_sub(1), sequence };
                pubsub::publish(&publication(Some(order), text));
            }
            // TOPIC MODE [GROUP [CURSOR]]
            "subscribe" => {
                let mode = match second {
                    "deliver" => Mode::Deliver,
                    "deliver-by-cursor" => Mode::DeliverByCursor,
                    _ => Mode::ForwardText,
                };
                let (group, cursor) = split(text);
                let cursor = cursor.parse().ok();
                let presence = Some(group.as_bytes().to_vec());
                pubsub::subscribe(self.connection, &Subscription { topic: first.into(), mode, group: group.into(), cursor, presence });
            }
            "unsubscribe" => pubsub::unsubscribe(self.connection, first),
            "members" => self.say(format!("members {}", pubsub::members(first).len())),
            "send" => pubsub::send(number(first), &Frame::Text(others.into())),
            // NAME DUE-IN-MS COMMANDS; a due of 0 is long ago
            "schedule" => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64);
                let due = if second == "0" { 1 } else { now + number(second) };
                pubsub::schedule(first, due, text.as_bytes());
            }
            _ => pubsub::cancel(first),
        }
        Ok(())
    }

    fn effects(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let (first, second) = split(rest);
        match word {
            // URL TEXT
            "post" => {
                let headers = vec![Header { name: "x-test".into(), value: b"1".to_vec() }];
                effects::post(&OutboundPost { url: first.into(), headers, body: second.as_bytes().to_vec() });
            }
            "document" => self.say(format!("document {first}={}", crate::document(first).unwrap_or_else(|| "nothing".into()))),
            _ => {
                let content = effects::refresh_document(first).map(|content| String::from_utf8_lossy(&content).into_owned());
                self.say(format!("refreshed {first}={}", content.unwrap_or_else(|| "nothing".into())));
            }
        }
        Ok(())
    }

    fn app(&mut self, rest: &str) -> Result<(), String> {
        let (function, name) = split(rest);
        let identity = Identity { user_id: None, roles: Vec::new(), claims: "{}".into() };
        let caller = Caller { mount: self.mount.clone(), connection: Some(self.connection), identity, context: Vec::new() };
        let answer = match function {
            "describe" => app::describe(),
            "authorize" => format!("{:?}", app::authorize(&caller, name, &["a".into(), "b".into()])),
            _ => match app::mutate(&caller, name, "{}") {
                Ok(value) => format!("ok {value}"),
                Err(failure) => format!("{} {}", failure.code, failure.retriable),
            },
        };
        self.say(format!("app {answer}"));
        Ok(())
    }

    /// Within jobs: `steps N` tells of the step and asks for the next up to N; `at N COMMAND` runs a command in one step.
    fn step(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let (name, step) = self.job.clone().ok_or("no job")?;
        let (first, command) = split(rest);
        if word == "at" {
            return if number(first) == step { self.command(command) } else { Ok(()) };
        }
        self.pubsub("publish", &format!("jobs {name} step {step}"))?;
        self.next_step = (step < number(first)).then_some(step + 1);
        Ok(())
    }

    fn outcome(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let (first, second) = split(rest);
        match word {
            "echo" => self.say(rest.into()),
            "id" => self.say(format!("id {}", self.connection)),
            "huge" => self.say("x".repeat(usize::try_from(number(rest)).unwrap_or(0))),
            "seen" => self.outcome.seen.push((first.into(), number(second))),
            "cursor" => self.outcome.cursors.push((first.into(), number(second))),
            "alarm" => self.outcome.alarm = if rest == "stop" { live::Alarm::Stop } else { live::Alarm::AfterMs(number(rest)) },
            "pace" => self.outcome.pace = true,
            // MS KEY SEQUENCE COMMANDS: parked with a cut-off; in them `:` ends a line and `_` is a space
            "park" => {
                let (key, others) = split(second);
                let (sequence, commands) = split(others);
                let state = commands.replace(':', ";").replace('_', "+").into_bytes();
                self.parked = Some(http::Parked { state, timeout_ms: number(first), seen: vec![(key.into(), number(sequence))] });
            }
            // MS TEXT
            "keepalive" => self.keepalive = Some((number(first), second.as_bytes().to_vec())),
            "task" => self.outcome.tasks.push(rest.as_bytes().to_vec()),
            "close" => self.outcome.close = Some(Close { code: u16::try_from(number(rest)).unwrap_or(1000), reason: String::new() }),
            // TAG MS: the frame is put off the first time that it comes.
            "defer" if !self.attachment.contains(first) => {
                self.attachment.push_str(first);
                self.outcome.attachment = Some(self.attachment.clone().into_bytes());
                self.deferred = Some(number(second));
            }
            "defer" => {}
            _ => return Err(format!("no command {word}")),
        }
        Ok(())
    }
}

/// A number; 0 where there is none.
pub fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
