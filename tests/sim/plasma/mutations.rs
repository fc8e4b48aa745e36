//! What clients ask for, and what it does to the rows by the fixture's rules.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use super::rows::{Caller, Rows, key};

/// Rows of each kind that clients quarrel about.
const CONTESTED: u64 = 8;
/// Names of no mutator; some are names of other things in other languages.
const UNKNOWN: [&str; 3] = ["nothing-of-this-name", "__proto__", "constructor"];
/// Ids whose keys need escapes.
const ODD_IDS: [&str; 3] = ["a/b", "100%", "t%2F1"];

/// A mutation of a client.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The client.
    pub client: String,
    /// Its number.
    pub id: u64,
    /// The mutator.
    pub name: String,
    /// Its arguments.
    pub args: Value,
    /// Milliseconds, with a fraction.
    pub timestamp_ms: f64,
    /// As whom the client is known to the server when it pushes this.
    pub caller: Caller,
}

impl Mutation {
    /// As it is pushed.
    pub fn wire(&self) -> Value {
        json!({"id": self.id, "clientID": self.client, "name": self.name, "args": self.args, "timestamp": self.timestamp_ms})
    }

    /// What it makes of rows, or why it fails.
    pub fn apply(&self, rows: &Rows) -> Result<Rows, String> {
        let mut after = rows.clone();
        run(&mut after, &self.name, &self.args, self.timestamp_ms.round(), &self.caller)?;
        Ok(after)
    }
}

fn columns<const N: usize>(pairs: [(&str, &Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(column, value)| (column.to_owned(), value.clone())).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// An absent argument stands for the column's default.
fn or(value: &Value, default: Value) -> Value {
    if value.is_null() { default } else { value.clone() }
}

fn run(rows: &mut Rows, name: &str, args: &Value, now_ms: f64, caller: &Caller) -> Result<(), String> {
    let todo = key("todos", &[text(&args["id"])]);
    match name {
        "createTodo" => {
            if !args["title"].is_string() {
                return Err("column title is not nullable".into());
            }
            let row = json!({
                "id": args["id"], "owner": caller.user, "title": args["title"], "done": or(&args["done"], false.into()),
                "rank": or(&args["rank"], 0.into()), "shared": or(&args["shared"], true.into()), "meta": args["meta"],
            });
            rows.insert("todos", row, caller)
        }
        "putTodo" => {
            let row = json!({"id": args["id"], "owner": caller.user, "title": args["title"]});
            rows.upsert("todos", row, todo_defaults(), caller)
        }
        "setTitle" => rows.update("todos", &todo, columns([("title", &args["title"])]), caller),
        "setDone" if !args["done"].is_boolean() => Err("column done expects boolean".into()),
        "setDone" => rows.update("todos", &todo, columns([("done", &args["done"])]), caller),
        "setShared" => rows.update("todos", &todo, columns([("shared", &args["shared"])]), caller),
        "deleteTodo" => rows.delete("todos", &todo, caller),
        "createMany" => args["items"].as_array().into_iter().flatten().try_for_each(|item| {
            let row = json!({"id": item["id"], "owner": caller.user, "title": item["title"]});
            let mut whole = todo_defaults().as_object().cloned().unwrap_or_default();
            whole.extend(row.as_object().cloned().unwrap_or_default());
            rows.insert("todos", whole.into(), caller)
        }),
        "addComment" => {
            if rows.get(&key("todos", &[text(&args["todoId"])])).is_none() {
                return Err("no such todo".into());
            }
            // A time within a run is far below where whole numbers end.
            #[allow(clippy::cast_possible_truncation)]
            let at = now_ms as i64;
            rows.insert("comments", json!({"id": args["id"], "todoId": args["todoId"], "body": args["body"], "at": at}), caller)
        }
        "inc" => {
            let counter = key("counters", &[text(&args["id"])]);
            let before = rows.get(&counter).and_then(|row| row["n"].as_i64()).unwrap_or(0);
            let by = args["by"].as_i64().ok_or("add expects numbers")?;
            rows.put("counters", json!({"id": args["id"], "n": before + by}));
            Ok(())
        }
        "writeThenFail" => Err("it always fails".into()),
        "saveNote" => {
            let row = json!({"id": args["id"], "owner": caller.user, "body": args["body"]});
            rows.upsert("notes", row, json!({}), caller)
        }
        "join" => {
            let row = json!({"team": args["team"], "userId": args["userId"]});
            rows.put("members", row);
            Ok(())
        }
        "leave" => rows.delete("members", &key("members", &[text(&args["team"]), text(&args["userId"])]), caller),
        "createBoard" => {
            let row = json!({"id": args["id"], "team": args["team"], "name": args["name"]});
            rows.upsert("boards", row, json!({}), caller)
        }
        "noop" => Ok(()),
        _ => Err(format!("unknown mutator: {name}")),
    }
}

/// What a todo has that nobody gave it.
pub fn todo_defaults() -> Value {
    json!({"done": false, "rank": 0, "shared": true, "meta": null})
}

fn one_of<'a>(random: &mut StdRng, choices: &[&'a str]) -> &'a str {
    choices[random.random_range(0..choices.len())]
}

/// An id of a row that others use too.
fn contested(random: &mut StdRng, prefix: &str) -> String {
    if random.random_bool(0.05) {
        return one_of(random, &ODD_IDS).to_owned();
    }
    format!("{prefix}{}", random.random_range(0..CONTESTED))
}

/// Something to ask for: mutator and arguments. `many`: rows of the largest mutation.
pub fn drawn(random: &mut StdRng, many: u64) -> (String, Value) {
    let todo = contested(random, "t");
    let title = format!("title {}", random.random::<u32>());
    let (team, user) = (one_of(random, &["x", "y"]).to_owned(), one_of(random, &["alice", "bob", "carol"]));
    let (name, args) = match random.random_range(0..100) {
        0..14 => {
            let mut args = json!({"id": todo, "title": title, "shared": random.random::<bool>()});
            if random.random_bool(0.3) {
                args["meta"] = json!({"a": [random.random::<u8>(), null, "ü"], "rank": 1.5});
                args["rank"] = random.random_range(-5..5).into();
            }
            ("createTodo", args)
        }
        14..20 => ("putTodo", json!({"id": todo, "title": title})),
        20..29 => ("setTitle", json!({"id": todo, "title": title})),
        29..33 => ("setDone", json!({"id": todo, "done": random.random::<bool>()})),
        33..34 => ("setDone", json!({"id": todo, "done": "yes"})),
        34..35 => ("createTodo", json!({"id": todo})),
        35..44 => ("setShared", json!({"id": todo, "shared": random.random::<bool>()})),
        44..51 => ("deleteTodo", json!({"id": todo})),
        51..56 => {
            let first = random.random::<u32>();
            let mut items: Vec<Value> = (0..many).map(|index| json!({"id": format!("many-{first}-{index}"), "title": title})).collect();
            if random.random_bool(0.3) {
                // Perhaps it is there, and nothing of all this comes to pass.
                items.push(json!({"id": todo, "title": title}));
            }
            ("createMany", json!({ "items": items }))
        }
        56..62 => ("addComment", json!({"id": contested(random, "c"), "todoId": todo, "body": title})),
        62..75 => ("inc", json!({"id": contested(random, "k"), "by": random.random_range(1..10)})),
        75..76 => ("inc", json!({"id": contested(random, "k"), "by": "one"})),
        76..79 => ("writeThenFail", json!({"id": format!("never-{}", random.random::<u32>())})),
        79..83 => {
            let body = json!({"v": 1, "alg": "x", "keyId": "k1", "iv": "AA==", "ct": one_of(random, &["AAAA", "AAEC", "/+8="])});
            ("saveNote", json!({"id": contested(random, "n"), "body": body}))
        }
        83..88 => ("join", json!({"team": team, "userId": user})),
        88..92 => ("leave", json!({"team": team, "userId": user})),
        92..96 => ("createBoard", json!({"id": contested(random, "b"), "team": team, "name": title})),
        96..98 => ("noop", Value::Null),
        _ => (one_of(random, &UNKNOWN), json!({"id": todo})),
    };
    (name.to_owned(), args)
}

/// A time with a fraction, as clients measure it.
pub fn timestamp_ms(random: &mut StdRng) -> f64 {
    f64::from(random.random_range(0..1_000_000_u32)) + 0.25
}
