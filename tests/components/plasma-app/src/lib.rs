//! An app component for plasma, over the tables `todos` and `counters` of the fixture. Mutators are refused and fall as their names
//! say, each after a write; hooks write what they hear into counters.
#![allow(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]

/// Generated from `wit/deps/app`.
#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit/deps/app",
        inline: "
            package syncline:test;
            world component {
                import syncline:app/plasma@0.1.0;
                export syncline:app/app@0.1.0;
            }
        ",
        world: "syncline:test/component",
        generate_all,
    });
}

use std::time::{Duration, Instant};

use bindings::exports::syncline::app::app::{Caller, Failure, Guest, Identity, Reply, RouteRequest, RouteResponse, Verdict};
use bindings::syncline::app::plasma::{self, Error};
use serde_json::{Value, json};

struct App;

fn refusal(code: &str, message: impl Into<String>) -> Failure {
    Failure { code: code.into(), message: message.into(), retriable: false }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Authorization(denial) => {
                refusal("PlasmaAuthorizationError", format!("{} on {} is not allowed", denial.action, denial.table))
            }
            Error::Invalid(why) => refusal("", why),
            Error::Unavailable(why) => Failure { code: "unavailable".into(), message: why, retriable: true },
        }
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Sets a counter.
fn count(id: &str, n: u64) -> Result<(), Error> {
    plasma::upsert("counters", &json!({"id": id, "n": n}).to_string())
}

/// Reads a row, counts rows by a query, and writes what it found by each kind of write.
fn copy(from: &str, to: &str) -> Result<(), Failure> {
    let found = plasma::get("todos", &json!([from]).to_string())?.ok_or_else(|| refusal("", format!("no todo {from}")))?;
    let mut todo = parsed(&found);
    let query = json!({"from": "todos", "where": {"op": "=", "left": {"col": "title"}, "right": {"param": "title"}}});
    let same = parsed(&plasma::query(&query.to_string(), &json!({"title": todo["title"]}).to_string())?);
    todo["id"] = json!(to);
    plasma::insert("todos", &todo.to_string())?;
    plasma::update("todos", &json!([to]).to_string(), &json!({"rank": 7}).to_string())?;
    plasma::delete("todos", &json!([from]).to_string())?;
    Ok(count("same", same.as_array().map_or(0, |rows| rows.len() as u64))?)
}

/// A write of which the second part fails: nothing of it stays, and what is written before and after it does.
fn swallow() -> Result<(), Failure> {
    count("before", 1)?;
    let operations = json!([{"insert": {"table": "counters", "row": {"id": "undone"}}}, {"insert": {"table": "nowhere", "row": {}}}]);
    let refused = plasma::write(Some("{}"), &operations.to_string());
    if !matches!(refused, Err(Error::Invalid(_))) {
        return Err(refusal("", format!("it was done: {refused:?}")));
    }
    Ok(count("after", 1)?)
}

/// Works for longer than a transaction may stay open.
fn think() -> Result<(), Error> {
    count("thinking", 1)?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1200) {
        std::hint::black_box(());
    }
    count("thought", 1)
}

/// Falls, within the services where it can be.
fn fall(how: &str) {
    match how {
        "trap" => panic!("the app was told to trap"),
        "loop" => loop {
            std::hint::black_box(());
        },
        // Most of the time a savepoint of the services is open.
        "write-on" => {
            let mut next = 0;
            loop {
                drop(std::hint::black_box(count("fallen", next)));
                next += 1;
            }
        }
        "eat" => {
            let mut kept = Vec::new();
            loop {
                kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        _ => {}
    }
}

impl Guest for App {
    fn describe() -> String {
        json!({
            "functions": ["authenticate", "authorize", "mutate", "event"],
            "mutators": ["copy", "own", "own-for", "swallow", "think", "tell", "refuse", "trap", "loop", "write-on", "eat"],
            "events": ["on-pushed", "on-error", "on-metric", "on-migration"],
        })
        .to_string()
    }

    fn authenticate(mount: String, credentials: String, _request: String) -> Result<Identity, Failure> {
        let name = credentials.strip_prefix("user-").filter(|_| mount == "plasma");
        let name = name.ok_or_else(|| refusal("", "not one of ours"))?;
        Ok(Identity { user_id: Some(name.into()), roles: Vec::new(), claims: json!({"role": "member"}).to_string() })
    }

    /// Nobody but `root` writes the counter `locked`. A judge looks, and cannot write.
    fn authorize(caller: Caller, _action: String, objects: Vec<String>) -> Vec<bool> {
        let allowed = |object: String| {
            let given = parsed(&object);
            let is_locked = given["table"] == "counters" && given["after"]["id"] == "locked";
            let looks = matches!(plasma::get("counters", r#"["judge"]"#), Ok(None)) && matches!(count("judge", 1), Err(Error::Invalid(_)));
            looks && (!is_locked || caller.identity.user_id.as_deref() == Some("root"))
        };
        objects.into_iter().map(allowed).collect()
    }

    fn mutate(_caller: Caller, name: String, arguments: String) -> Result<String, Failure> {
        let given = parsed(&arguments);
        let text = |key: &str| given[key].as_str().unwrap_or_default();
        let todo = || json!({"id": text("id"), "owner": text("owner"), "title": "t", "shared": false});
        match name.as_str() {
            "copy" => copy(text("from"), text("to"))?,
            "own" => plasma::insert("todos", &todo().to_string())?,
            "own-for" => {
                plasma::write(None, &json!([{"insert": {"table": "todos", "row": todo()}}]).to_string())?;
            }
            "swallow" => swallow()?,
            "think" => think()?,
            "tell" => {}
            _ => {
                count("fallen", 1)?;
                fall(&name);
                return Err(refusal("", "so it is"));
            }
        }
        Ok("null".into())
    }

    /// What it hears becomes a counter, by a write of the server's own.
    fn event(_caller: Caller, name: String, data: String) -> Result<Reply, Failure> {
        let given = parsed(&data);
        let (id, n) = match name.as_str() {
            "on-pushed" if given["clientID"] == "trap" => panic!("the app was told to trap"),
            "on-pushed" => (format!("pushed by {}", given["ctx"]["userId"].as_str().unwrap_or_default()), given["version"].as_u64()),
            "on-error" => (format!("error {}", given["kind"].as_str().unwrap_or_default()), given["mutationID"].as_u64().or(Some(0))),
            "on-migration" => ("migrated".to_owned(), given["events"].as_array().map(|events| events.len() as u64)),
            _ if given["ok"] == false => (format!("failed {}", given["kind"].as_str().unwrap_or_default()), Some(1)),
            _ => return Ok(Reply { value: None, context: Vec::new() }),
        };
        plasma::write(None, &json!([{"upsert": {"table": "counters", "row": {"id": id, "n": n}}}]).to_string())?;
        Ok(Reply { value: None, context: Vec::new() })
    }

    fn validate(_caller: Caller, _operation: String) -> Verdict {
        Verdict::Accept
    }

    fn call(_caller: Caller, _method: String, _parameters: String) -> Result<Reply, Failure> {
        Err(refusal("not-implemented", ""))
    }

    fn route(_caller: Caller, _request: RouteRequest) -> RouteResponse {
        RouteResponse { status: 404, headers: Vec::new(), body: Vec::new() }
    }
}

bindings::export!(App with_types_in bindings);
