//! Mutators that the settings declare, step by step.

use serde_json::{Map, Value as Json};

use super::Stopped;
use super::expression::{Environment, Expression, Place, descend, dotted};
use crate::plasma::language::{Allowed, Bindings, Predicate, evaluate, parse_predicate};
use crate::plasma::push::Mutation;
use crate::plasma::schema::{ColumnType, Schema, Table, key_text};
use crate::plasma::server_db::WriteRefused;
use crate::plasma::write::{Row, Writer};

/// A mutator.
#[derive(Clone, Debug)]
pub struct Declarative {
    arguments: Vec<(String, ColumnType)>,
    steps: Vec<Step>,
}

type Values = Vec<(String, Expression)>;

/// A step. What it names was found in the schema.
#[derive(Clone, Debug)]
enum Step {
    Insert { table: String, values: Values, if_absent: bool },
    Upsert { table: String, values: Values },
    Update { table: String, key: Vec<Expression>, set: Values, ignore_missing: bool },
    Delete { table: String, key: Vec<Expression> },
    Assert { condition: Predicate, message: String },
    Fail { message: String },
    ForEach { list: List, steps: Vec<Step> },
}

/// Where the elements of a `forEach` come from.
#[derive(Clone, Debug)]
enum List {
    Argument(Vec<String>),
    Item(Vec<String>),
}

impl Declarative {
    /// Parses and checks; every problem is named by the path of its key.
    pub fn parse(schema: &Schema, source: &Json, path: &str) -> Result<Self, Vec<String>> {
        let mut parser = Parser { schema, problems: Vec::new() };
        let Some(object) = source.as_object() else { return Err(vec![format!("{path}: expected an object")]) };
        parser.known(object, path, &["args", "steps"]);
        let arguments = parser.arguments(object.get("args"), path);
        let steps = match object.get("steps") {
            Some(steps) => parser.steps(steps, &format!("{path}.steps"), false),
            None => parser.problem(format!("{path}.steps: missing")),
        };
        if parser.problems.is_empty() { Ok(Self { arguments, steps }) } else { Err(parser.problems) }
    }

    /// Runs all steps.
    pub fn run<'a>(&'a self, writer: &mut Writer<'a>, context: &Map<String, Json>, mutation: &Mutation) -> Result<(), Stopped> {
        for (name, expected) in &self.arguments {
            let value = mutation.arguments.get(name).filter(|value| !value.is_null());
            if value.is_some_and(|value| !fits(*expected, value)) {
                return Err(Stopped::failed(format!("argument {name} expects {}", expected.name())));
            }
        }
        let environment = Environment {
            arguments: &mutation.arguments,
            item: None,
            context,
            row: None,
            timestamp: mutation.timestamp,
            now_ms: writer.imports.now_ms,
        };
        self.steps.iter().try_for_each(|step| step.run(writer, &environment))
    }
}

fn fits(expected: ColumnType, value: &Json) -> bool {
    match expected {
        ColumnType::Text | ColumnType::Bigint | ColumnType::Bytes => value.is_string(),
        ColumnType::Integer | ColumnType::Timestamp => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        ColumnType::Real => value.is_number(),
        ColumnType::Boolean => value.is_boolean(),
        ColumnType::File => value.is_object(),
        ColumnType::Json => true,
    }
}

impl Step {
    fn run<'a>(&'a self, writer: &mut Writer<'a>, environment: &Environment<'_>) -> Result<(), Stopped> {
        match self {
            Self::Insert { table, values, if_absent } => {
                Ok(writer.insert(writer.table(table)?, &given(values, environment)?, *if_absent)?)
            }
            Self::Upsert { table, values } => Ok(writer.upsert(writer.table(table)?, &given(values, environment)?)?),
            Self::Update { table, key, set, ignore_missing } => {
                let table = writer.table(table)?;
                let key = key_of(key, environment)?;
                let mut stopped = None;
                let found = writer.update(table, &key, |row| {
                    given(set, &Environment { row: Some(row), ..*environment }).map_err(|why| {
                        stopped = Some(why);
                        WriteRefused::Invalid("an expression failed".into())
                    })
                });
                match (stopped, found) {
                    (Some(why), _) => Err(why),
                    (None, Ok(false)) if !ignore_missing => Err(Stopped::failed(format!("row not found: {}", key_text(&table.name, &key)))),
                    (None, found) => Ok(found.map(drop)?),
                }
            }
            Self::Delete { table, key } => Ok(writer.delete(writer.table(table)?, &key_of(key, environment)?)?),
            Self::Assert { condition, message } => {
                let (arguments, item) = (Some(environment.arguments), environment.item);
                let bindings = Bindings { arguments, item, ..Bindings::of_context(environment.context) };
                if evaluate(condition, &Map::new(), &bindings, &*writer)? { Ok(()) } else { Err(Stopped::failed(message)) }
            }
            Self::Fail { message } => Err(Stopped::failed(message)),
            Self::ForEach { list, steps } => {
                let found = match list {
                    List::Argument(path) => descend(environment.arguments, path),
                    List::Item(path) => environment.item.and_then(|item| descend(item, path)),
                };
                let items = match found {
                    Some(Json::Array(items)) => items,
                    None | Some(Json::Null) => return Ok(()),
                    Some(_) => return Err(Stopped::failed("forEach expects a list")),
                };
                for item in items {
                    let environment = Environment { item: Some(item), ..*environment };
                    steps.iter().try_for_each(|step| step.run(writer, &environment))?;
                }
                Ok(())
            }
        }
    }
}

/// The values that are there; what an absent argument would have given is left out.
fn given(values: &Values, environment: &Environment<'_>) -> Result<Row, Stopped> {
    let mut row = Row::new();
    for (column, expression) in values {
        if let Some(value) = expression.evaluate(environment)? {
            row.insert(column.clone(), value);
        }
    }
    Ok(row)
}

fn key_of(key: &[Expression], environment: &Environment<'_>) -> Result<Vec<Json>, Stopped> {
    key.iter().map(|part| part.or_null(environment)).collect()
}

/// Goes through a mutator and collects what is wrong.
struct Parser<'a> {
    schema: &'a Schema,
    problems: Vec<String>,
}

impl<'a> Parser<'a> {
    fn problem<T: Default>(&mut self, what: String) -> T {
        self.problems.push(what);
        T::default()
    }

    fn known(&mut self, object: &Map<String, Json>, path: &str, keys: &[&str]) {
        for key in object.keys().filter(|key| !keys.contains(&key.as_str())) {
            self.problems.push(format!("{path}.{key}: unknown key"));
        }
    }

    fn arguments(&mut self, source: Option<&Json>, path: &str) -> Vec<(String, ColumnType)> {
        let object = match source {
            None => return Vec::new(),
            Some(Json::Object(object)) => object,
            Some(_) => return self.problem(format!("{path}.args: expected an object")),
        };
        let mut arguments = Vec::new();
        for (name, expected) in object {
            match ColumnType::ALL.into_iter().find(|one| Some(one.name()) == expected.as_str()) {
                Some(expected) => arguments.push((name.clone(), expected)),
                None => self.problems.push(format!("{path}.args.{name}: expected the name of a column type")),
            }
        }
        arguments
    }

    fn steps(&mut self, source: &Json, path: &str, in_for_each: bool) -> Vec<Step> {
        let Some(list) = source.as_array() else { return self.problem(format!("{path}: expected a list")) };
        let numbered = list.iter().enumerate();
        numbered.filter_map(|(index, step)| self.step(step, &format!("{path}[{index}]"), in_for_each)).collect()
    }

    fn step(&mut self, source: &Json, path: &str, in_for_each: bool) -> Option<Step> {
        let mut entries = source.as_object().into_iter().flatten();
        let (Some((kind, body)), None) = (entries.next(), entries.next()) else {
            return self.problem(format!("{path}: expected an object with one key, the kind of the step"));
        };
        let path = format!("{path}.{kind}");
        let Some(body) = body.as_object() else { return self.problem(format!("{path}: expected an object")) };
        let place = Place { in_for_each, updated: None };
        match kind.as_str() {
            "insert" => {
                self.known(body, &path, &["table", "values", "ifAbsent"]);
                let table = self.table(body, &path)?;
                let values = self.values(body, "values", &path, table, place);
                let if_absent = self.flag(body, "ifAbsent", &path);
                Some(Step::Insert { table: table.name.clone(), values, if_absent })
            }
            "upsert" => {
                self.known(body, &path, &["table", "values"]);
                let table = self.table(body, &path)?;
                Some(Step::Upsert { table: table.name.clone(), values: self.values(body, "values", &path, table, place) })
            }
            "update" => {
                self.known(body, &path, &["table", "key", "set", "missing"]);
                let table = self.table(body, &path)?;
                let key = self.key(body, &path, table, place);
                let set = self.values(body, "set", &path, table, Place { updated: Some(table), ..place });
                let ignore_missing = match body.get("missing").map(Json::as_str) {
                    None | Some(Some("error")) => false,
                    Some(Some("ignore")) => true,
                    Some(_) => self.problem(format!("{path}.missing: expected \"error\" or \"ignore\"")),
                };
                Some(Step::Update { table: table.name.clone(), key, set, ignore_missing })
            }
            "delete" => {
                self.known(body, &path, &["table", "key"]);
                let table = self.table(body, &path)?;
                Some(Step::Delete { table: table.name.clone(), key: self.key(body, &path, table, place) })
            }
            "assert" => self.assertion(body, &path, in_for_each),
            "fail" => {
                self.known(body, &path, &["message"]);
                Some(Step::Fail { message: self.message(body, &path) })
            }
            "forEach" => self.for_each(body, &path, in_for_each),
            _ => self.problem(format!("{path}: unknown step")),
        }
    }

    fn assertion(&mut self, body: &Map<String, Json>, path: &str, in_for_each: bool) -> Option<Step> {
        self.known(body, path, &["where", "exists", "message"]);
        let message = self.message(body, path);
        let (source, path) = match (body.get("where"), body.get("exists")) {
            (Some(condition), None) => (condition.clone(), format!("{path}.where")),
            (None, Some(exists)) => (serde_json::json!({"exists": exists}), path.to_owned()),
            _ => return self.problem(format!("{path}: expected either where or exists")),
        };
        let allowed = Allowed { parameters: false, arguments: true, items: in_for_each };
        match parse_predicate(self.schema, None, &source, &path, allowed) {
            Ok(condition) => Some(Step::Assert { condition, message }),
            Err(invalid) => self.problem(invalid.to_string()),
        }
    }

    fn for_each(&mut self, body: &Map<String, Json>, path: &str, in_for_each: bool) -> Option<Step> {
        self.known(body, path, &["arg", "item", "do"]);
        let list = match (body.get("arg"), body.get("item")) {
            (Some(list), None) => dotted(list, path, "arg").map(List::Argument),
            (None, Some(list)) if in_for_each => dotted(list, path, "item").map(List::Item),
            _ => Err(format!("{path}: expected arg, the path of a list")),
        };
        let steps = match body.get("do") {
            Some(steps) => self.steps(steps, &format!("{path}.do"), true),
            None => self.problem(format!("{path}.do: missing")),
        };
        match list {
            Ok(list) => Some(Step::ForEach { list, steps }),
            Err(problem) => self.problem(problem),
        }
    }

    fn table(&mut self, body: &Map<String, Json>, path: &str) -> Option<&'a Table> {
        let found = body.get("table").and_then(Json::as_str).and_then(|name| self.schema.table(name));
        if found.is_none() {
            self.problems.push(format!("{path}.table: expected the name of a table"));
        }
        found
    }

    fn values(&mut self, body: &Map<String, Json>, key: &str, path: &str, table: &Table, place: Place<'_>) -> Values {
        let path = format!("{path}.{key}");
        let Some(Json::Object(object)) = body.get(key) else { return self.problem(format!("{path}: expected an object")) };
        let mut values = Vec::new();
        for (column, source) in object {
            let path = format!("{path}.{column}");
            if table.column(column).is_none() {
                self.problems.push(format!("{path}: unknown column {column}"));
            }
            match Expression::parse(source, &path, place) {
                Ok(expression) => values.push((column.clone(), expression)),
                Err(problem) => self.problems.push(problem),
            }
        }
        values
    }

    fn key(&mut self, body: &Map<String, Json>, path: &str, table: &Table, place: Place<'_>) -> Vec<Expression> {
        let path = format!("{path}.key");
        let Some(Json::Array(list)) = body.get("key") else { return self.problem(format!("{path}: expected a list")) };
        if list.len() != table.primary_key.len() {
            self.problems.push(format!("{path}: the primary key of {} has {} columns", table.name, table.primary_key.len()));
        }
        let mut key = Vec::new();
        for (index, source) in list.iter().enumerate() {
            match Expression::parse(source, &format!("{path}[{index}]"), place) {
                Ok(expression) => key.push(expression),
                Err(problem) => self.problems.push(problem),
            }
        }
        key
    }

    fn flag(&mut self, body: &Map<String, Json>, key: &str, path: &str) -> bool {
        match body.get(key) {
            None => false,
            Some(Json::Bool(flag)) => *flag,
            Some(_) => self.problem(format!("{path}.{key}: expected true or false")),
        }
    }

    fn message(&mut self, body: &Map<String, Json>, path: &str) -> String {
        match body.get("message") {
            Some(Json::String(message)) => message.clone(),
            _ => self.problem(format!("{path}.message: expected a string")),
        }
    }
}
