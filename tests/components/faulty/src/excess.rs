//! Commands that take more than a call, a connection or an instance may.

use crate::bindings::syncline::host::effects::{self, Kind, Level, Metric};
use crate::bindings::syncline::host::executor::{Snapshot, Transaction};
use crate::bindings::syncline::host::pubsub::{self, Class, Mode, Publication, Subscription};
use crate::bindings::syncline::host::storage;
use crate::bindings::syncline::host::types::{Frame, Header};
use crate::run::{DATABASE, Run, number, statement, word_of};

/// The words that [`command`] knows.
pub const WORDS: [&str; 17] = [
    "frames",
    "attach",
    "seens",
    "tasks",
    "headers",
    "publishes",
    "sends",
    "sets",
    "subscribes",
    "job",
    "nested",
    "snapshots",
    "rows",
    "batch",
    "keys",
    "logs",
    "measures",
];

/// Runs a command: `WORD COUNT BYTES`.
pub fn command(run: &mut Run, word: &str, count: u64, bytes: u64) -> Result<(), String> {
    let text = || "x".repeat(usize::try_from(bytes).unwrap_or(0));
    match word {
        "frames" => (0..count).for_each(|_| run.say(text())),
        "attach" => run.outcome.attachment = Some(vec![b'x'; usize::try_from(count).unwrap_or(0)]),
        "seens" => run.outcome.seen.extend((0..count).map(|number| (number.to_string(), 1))),
        "tasks" => run.outcome.tasks.extend((0..count).map(|_| Vec::new())),
        "headers" => run.headers.extend((0..count).map(|number| Header { name: format!("x-{number}"), value: Vec::new() })),
        "publishes" => {
            let publication = Publication {
                topic: "flood".into(),
                message: text().into_bytes(),
                order: None,
                class: Class::Droppable,
                except: None,
                close: None,
            };
            (0..count).for_each(|_| pubsub::publish(&publication));
        }
        "sends" => (0..count).for_each(|_| pubsub::send(run.connection, &Frame::Text(text()))),
        "sets" => {
            for number in 0..count {
                storage::set(&number.to_string(), text().as_bytes(), None).map_err(|_| "storage")?;
            }
        }
        "subscribes" => {
            for number in 0..count {
                let topic = format!("{number} {}", text());
                pubsub::subscribe(
                    run.connection,
                    &Subscription { topic, mode: Mode::ForwardText, group: String::new(), cursor: None, presence: None },
                );
            }
        }
        "job" => pubsub::schedule("huge", u64::MAX, &vec![0; usize::try_from(count).unwrap_or(0)]),
        "keys" => drop(storage::keys("", None, u32::try_from(count).unwrap_or(u32::MAX)).map_err(|_| "limit")?),
        "logs" => (0..count).for_each(|_| effects::log(Level::Info, &text(), "{}")),
        "measures" => (0..count).for_each(|number| measure(&format!("flood_{}", number % 1000), &format!("{number}{}", text()))),
        _ => return sql(run, word, count, bytes),
    }
    Ok(())
}

fn sql(run: &mut Run, word: &str, count: u64, bytes: u64) -> Result<(), String> {
    let failed = |error| word_of(&error);
    match word {
        // Handles that are never dropped.
        "nested" => {
            for _ in 0..count {
                run.transactions.push(Transaction::begin(DATABASE).map_err(failed)?);
            }
        }
        "snapshots" => {
            for _ in 0..count {
                std::mem::forget(Snapshot::open(DATABASE).map_err(failed)?);
            }
        }
        "rows" => {
            let many = format!(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {count}) SELECT x, hex(zeroblob({bytes})) FROM n"
            );
            let view = Snapshot::open(DATABASE).map_err(failed)?;
            drop(view.query(&statement(&many, &[]), None).map_err(failed)?);
        }
        _ => {
            let one = statement(&format!("SELECT zeroblob({bytes})"), &[]);
            let transaction = Transaction::begin(DATABASE).map_err(failed)?;
            drop(transaction.execute_batch(&vec![one; usize::try_from(count).unwrap_or(0)]).map_err(failed)?);
        }
    }
    Ok(())
}

fn measure(name: &str, label: &str) {
    effects::measure(&Metric { name: name.into(), kind: Kind::Counter, labels: vec![("label".into(), label.into())], value: 1.0 });
}

/// Count and bytes behind a word.
pub fn numbers(rest: &str) -> (u64, u64) {
    let (count, bytes) = rest.split_once(' ').unwrap_or((rest, ""));
    (number(count), number(bytes))
}
