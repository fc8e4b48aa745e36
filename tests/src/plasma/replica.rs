//! What a Replicache client keeps, as strict as the real one, and stricter where it is careless.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A client group's copy of the rows.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    /// As the last answer gave it.
    pub cookie: Value,
    /// Rows by key (`todos/t1`).
    pub rows: BTreeMap<String, Value>,
    /// The last confirmed mutation of each client.
    pub last_mutation_ids: BTreeMap<String, u64>,
}

/// What an answer to a pull did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pulled {
    /// More can be had at once.
    pub has_more: bool,
    /// The patch began with `clear`.
    pub cleared: bool,
    /// Rows put, by key.
    pub put: Vec<String>,
    /// Rows deleted, by key.
    pub deleted: Vec<String>,
}

impl Replica {
    /// The order of its cookie; below all others before the first.
    pub fn order(&self) -> f64 {
        order_of(&self.cookie)
    }

    /// Applies an answer to the pull that was made with the present cookie.
    ///
    /// # Errors
    /// The rule that the answer breaks. Nothing was applied then.
    pub fn apply(&mut self, answer: &Value) -> Result<Pulled, String> {
        let fields = answer.as_object().ok_or("an answer is an object")?;
        if fields.contains_key("error") {
            return Err(format!("the pull was refused: {answer}"));
        }
        let patch = answer["patch"].as_array().ok_or("an answer has a patch")?;
        let confirmed = answer["lastMutationIDChanges"].as_object().ok_or("an answer has lastMutationIDChanges")?;
        let (before, after) = (self.order(), order_of(&answer["cookie"]));
        if after < before || after.is_nan() {
            return Err(format!("the cookie fell from {} to {}", self.cookie, answer["cookie"]));
        }
        if after == before && !(patch.is_empty() && confirmed.is_empty()) {
            return Err(format!("something came under the cookie that was there before: {answer}"));
        }
        if after == before && answer["cookie"] != self.cookie {
            return Err(format!("{} became {} without growing", self.cookie, answer["cookie"]));
        }
        let mut next = self.clone();
        for (client, id) in confirmed {
            let id = id.as_u64().ok_or_else(|| format!("{client} has no whole number in {answer}"))?;
            let known = next.last_mutation_ids.insert(client.clone(), id);
            if known.is_some_and(|known| known > id) {
                return Err(format!("the last mutation of {client} fell from {known:?} to {id}"));
            }
        }
        let pulled = next.patch(patch)?;
        let has_more = answer["hasMore"].as_bool().ok_or("an answer says hasMore")?;
        next.cookie = answer["cookie"].clone();
        *self = next;
        Ok(Pulled { has_more, ..pulled })
    }

    fn patch(&mut self, patch: &[Value]) -> Result<Pulled, String> {
        let mut pulled = Pulled::default();
        for (index, operation) in patch.iter().enumerate() {
            let key = || operation["key"].as_str().map(str::to_owned).ok_or_else(|| format!("{operation} has no key"));
            match operation["op"].as_str() {
                Some("clear") if index == 0 => {
                    self.rows.clear();
                    pulled.cleared = true;
                }
                Some("put") => {
                    self.rows.insert(key()?, operation["value"].clone());
                    pulled.put.push(key()?);
                }
                Some("del") => {
                    self.rows.remove(&key()?);
                    pulled.deleted.push(key()?);
                }
                _ => return Err(format!("{operation} does not belong at {index}")),
            }
        }
        let mut touched: Vec<_> = pulled.put.iter().chain(&pulled.deleted).collect();
        touched.sort_unstable();
        if let Some(twice) = touched.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("{} came twice in one patch", twice[0]));
        }
        Ok(pulled)
    }
}

/// The number by which Replicache compares cookies.
fn order_of(cookie: &Value) -> f64 {
    match cookie {
        Value::Null => f64::NEG_INFINITY,
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::Object(fields) => fields.get("order").and_then(Value::as_f64).unwrap_or(f64::NAN),
        _ => f64::NAN,
    }
}

impl Replica {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self { cookie: json!(null), ..Self::default() }
    }
}
