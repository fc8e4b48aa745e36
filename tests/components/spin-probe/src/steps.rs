//! The steps of a request, one after the other. Handles that a step opens are known by the name that it gives them.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::bindings::fermyon::spin::{key_value, postgres, redis, sqlite, variables};
use crate::{fetch, rows};

#[derive(Default)]
struct Open {
    sqlite: HashMap<String, sqlite::Connection>,
    postgres: HashMap<String, postgres::Connection>,
}

/// What each step gave: its result, or `{"error": …}`.
pub fn run(steps: &[Value]) -> Value {
    let mut open = Open::default();
    steps.iter().map(|step| open.run(step).unwrap_or_else(|error| json!({ "error": error }))).collect()
}

/// A text of a step; empty where it has none.
fn text<'a>(step: &'a Value, name: &str) -> &'a str {
    step[name].as_str().unwrap_or_default()
}

fn texts(step: &Value, name: &str) -> Vec<String> {
    step[name].as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn said(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

impl Open {
    fn run(&mut self, step: &Value) -> Result<Value, String> {
        match text(step, "do") {
            "sqlite-open" => {
                let connection = sqlite::Connection::open(text(step, "label")).map_err(said)?;
                self.sqlite.insert(text(step, "as").into(), connection);
                Ok(Value::Null)
            }
            "sqlite" => {
                let connection = self.sqlite.get(text(step, "on")).ok_or("no such handle")?;
                let result = connection.execute(text(step, "sql"), &rows::of_sqlite(&step["parameters"])).map_err(said)?;
                Ok(rows::from_sqlite(&result))
            }
            "sqlite-close" => Ok(self.sqlite.remove(text(step, "on")).is_some().into()),
            "postgres-open" => {
                let connection = postgres::Connection::open(text(step, "address")).map_err(said)?;
                self.postgres.insert(text(step, "as").into(), connection);
                Ok(Value::Null)
            }
            "postgres" => {
                let connection = self.postgres.get(text(step, "on")).ok_or("no such handle")?;
                let set = connection.query(text(step, "sql"), &rows::of_postgres(&step["parameters"])).map_err(said)?;
                Ok(rows::from_postgres(&set))
            }
            "postgres-execute" => {
                let connection = self.postgres.get(text(step, "on")).ok_or("no such handle")?;
                connection.execute(text(step, "sql"), &rows::of_postgres(&step["parameters"])).map(Into::into).map_err(said)
            }
            "variable" => variables::get(text(step, "name")).map(Into::into).map_err(said),
            "fetch" => fetch::get(text(step, "authority"), text(step, "path")),
            "trap" => panic!("as asked"),
            other => {
                run_key_value(other, step).or_else(|| run_redis(other, step)).unwrap_or_else(|| Err(format!("unknown step {other:?}")))
            }
        }
    }
}

fn run_key_value(what: &str, step: &Value) -> Option<Result<Value, String>> {
    let what = what.strip_prefix("key-value-")?;
    let done = || {
        let store = key_value::Store::open(text(step, "label")).map_err(said)?;
        let key = text(step, "key");
        match what {
            "get" => store.get(key).map(|value| value.map(|bytes| rows::short(&bytes)).into()).map_err(said),
            "set" => {
                // A long value comes as the number of its bytes.
                let value = step["bytes"].as_u64().map_or_else(|| text(step, "value").into(), |count| vec![b'x'; count as usize]);
                store.set(key, &value).map(|()| Value::Null).map_err(said)
            }
            "delete" => store.delete(key).map(|()| Value::Null).map_err(said),
            "exists" => store.exists(key).map(Into::into).map_err(said),
            "keys" => store.get_keys().map(Into::into).map_err(said),
            _ => Err(format!("unknown step {what:?}")),
        }
    };
    Some(done())
}

fn run_redis(what: &str, step: &Value) -> Option<Result<Value, String>> {
    let what = what.strip_prefix("redis-")?;
    let done = || {
        let connection = redis::Connection::open(text(step, "address")).map_err(said)?;
        let (key, value) = (text(step, "key"), text(step, "value"));
        match what {
            "publish" => connection.publish(key, value.as_bytes()).map(|()| Value::Null).map_err(said),
            "get" => connection.get(key).map(|value| value.map(|bytes| rows::short(&bytes)).into()).map_err(said),
            "set" => connection.set(key, value.as_bytes()).map(|()| Value::Null).map_err(said),
            "incr" => connection.incr(key).map(Into::into).map_err(said),
            "del" => connection.del(&texts(step, "values")).map(Into::into).map_err(said),
            "sadd" => connection.sadd(key, &texts(step, "values")).map(Into::into).map_err(said),
            "srem" => connection.srem(key, &texts(step, "values")).map(Into::into).map_err(said),
            "smembers" => connection.smembers(key).map(Into::into).map_err(said),
            "execute" => {
                let arguments: Vec<_> = step["values"].as_array().into_iter().flatten().map(argument).collect();
                let results = connection.execute(text(step, "command"), &arguments).map_err(said)?;
                Ok(results.iter().map(|result| said(result).into()).collect::<Vec<Value>>().into())
            }
            _ => Err(format!("unknown step {what:?}")),
        }
    };
    Some(done())
}

fn argument(value: &Value) -> redis::RedisParameter {
    match value.as_i64() {
        Some(number) => redis::RedisParameter::Int64(number),
        None => redis::RedisParameter::Binary(value.as_str().unwrap_or_default().into()),
    }
}
