//! Queries and predicates on SQLite and in memory.

use rusqlite::types::ValueRef;
use serde_json::{Map, Value as Json, json};

use super::testing::{Case, Random};
use super::*;
use crate::imports::{Dialect, RowSet, Statement, Value};
use crate::plasma::schema::{Schema, bulk_cell, bulk_value, create_schema, normal_value};

fn run(connection: &rusqlite::Connection, statement: Statement) -> RowSet {
    let parameters = statement.parameters.into_iter().map(|value| match value {
        Value::Null => rusqlite::types::Value::Null,
        Value::Integer(number) => number.into(),
        Value::Real(number) => number.into(),
        Value::Text(text) => text.into(),
        Value::Blob(bytes) => bytes.into(),
    });
    let mut prepared = connection.prepare(&statement.sql).unwrap_or_else(|error| panic!("{error}: {}", statement.sql));
    let width = prepared.column_count();
    let mut found = prepared.query(rusqlite::params_from_iter(parameters)).unwrap();
    let mut rows = Vec::new();
    while let Some(row) = found.next().unwrap_or_else(|error| panic!("{error}: {}", statement.sql)) {
        let cell = |position| match row.get_ref(position).unwrap() {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Real(number) => Value::Real(number),
            ValueRef::Text(text) => Value::Text(String::from_utf8(text.to_vec()).unwrap()),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        };
        rows.push((0..width).map(cell).collect());
    }
    RowSet { rows, changed: 0, truncated: false }
}

fn database(case: &Case) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    for sql in create_schema(&case.schema, Dialect::Sqlite, "p_") {
        connection.execute(&sql, []).unwrap();
    }
    for statement in case.inserts(Dialect::Sqlite, "p_") {
        run(&connection, statement);
    }
    connection
}

proptest::proptest! {
    #[test]
    fn random_queries_give_in_sqlite_what_they_give_in_memory(seed: u64) {
        let mut random = Random::new(seed);
        let case = Case::generate(&mut random);
        let connection = database(&case);
        let sources = Sources::of_prefix("p_");
        for round in 0..20 {
            let source = case.query(&mut random);
            let query = parse_query(&case.schema, &source).unwrap();
            let read_auth = round % 4 != 0;
            let compiled = compile_query(&case.schema, &query, Dialect::Sqlite, &sources, read_auth);
            let statement = compiled.statement(&case.bindings()).unwrap();
            let found = compiled.rows(&run(&connection, statement.clone()));
            proptest::prop_assert_eq!(found, case.expected(&query, read_auth), "{}\n{}\n{}", source, statement.sql, case.schema.source());
        }
    }

    #[test]
    fn an_exists_asked_for_one_row_is_what_it_is_in_memory(seed: u64) {
        let mut random = Random::new(seed);
        let case = Case::generate(&mut random);
        let connection = database(&case);
        for table in case.schema.tables() {
            let Predicate::Exists(exists) = &table.auth.read else { continue };
            let compiled = compile_exists(exists, Dialect::Sqlite, &Sources::of_prefix("p_"));
            for row in &case.rows[&table.name] {
                let bindings = Bindings { outer: Some(row), ..case.bindings() };
                let found = run(&connection, compiled.statement(&bindings, &[]).unwrap());
                proptest::prop_assert_eq!(found.rows.len() == 1, case.exists(exists, row, &case.bindings()).unwrap());
            }
        }
    }
}

fn sample_schema() -> Schema {
    Schema::parse(&serde_json::from_str(include_str!("../testdata/schema.json")).unwrap(), "schema").unwrap()
}

/// A database with the tables of the samples and rows that their conditions tell apart.
fn sample_database(schema: &Schema) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    for sql in create_schema(schema, Dialect::Sqlite, "") {
        connection.execute(&sql, []).unwrap();
    }
    connection
        .execute_batch(
            r#"INSERT INTO todos (id, owner, title, done, rank, shared, meta) VALUES
                ('1', 'alice', 'a*b%x', 0, 3, 0, NULL), ('2', 'bob', 'abc', 0, 1, 1, '{"a":{"b":"y"}}'), ('3', 'bob', 'a', 0, 2, 0, NULL),
                ('4', 'alice', 'A*b%', 0, 5, 0, NULL), ('5', 'alice', 'abc', 1, 9, 1, '{"a":{"b":"x"}}'), ('6', 'bob', 'a*b%', 0, 7, 1, NULL);
            INSERT INTO comments (id, todoId, body, at) VALUES ('x', '1', 'one', 1), ('y', '1', 'two', 2), ('z', '1', 'three', 2), ('w', '2', '', 0);
            INSERT INTO members (team, userId) VALUES ('t', 'alice'), ('u', 'bob');
            INSERT INTO boards (id, team, name) VALUES ('b1', 't', ''), ('b2', 'u', '');"#,
        )
        .unwrap();
    connection
}

#[test]
fn the_samples_give_the_rows_of_their_own_sql() {
    let schema = sample_schema();
    let connection = sample_database(&schema);
    let samples: Vec<Json> = serde_json::from_str(include_str!("../testdata/query-sql.json")).unwrap();
    for sample in samples {
        let query = parse_query(&schema, &sample["query"]).unwrap();
        let (context, parameters) = (sample["ctx"].as_object().unwrap(), sample["params"].as_object().unwrap());
        let bindings = Bindings { parameters: Some(parameters), ..Bindings::of_context(context) };
        let compiled = compile_query(&schema, &query, Dialect::Sqlite, &Sources::of_prefix(""), true);
        let found = compiled.rows(&run(&connection, compiled.statement(&bindings).unwrap()));
        let text = |value: &Json| match value {
            Json::Number(number) => Value::Integer(number.as_i64().unwrap()),
            other => Value::Text(other.as_str().unwrap().to_owned()),
        };
        let parameters = sample["sqlite"]["params"].as_array().unwrap().iter().map(text).collect();
        let wanted = run(&connection, Statement { sql: sample["sqlite"]["sql"].as_str().unwrap().to_owned(), parameters });
        assert!(!wanted.rows.is_empty(), "{}", sample["name"]);
        let plain = |row: &Map<String, Json>, names: &[String]| names.iter().map(|name| row[name].clone()).collect::<Json>();
        let names: Vec<String> = match sample["name"].as_str().unwrap() {
            "filter" => vec!["id".into(), "title".into()],
            "related" => vec!["id".into(), "comments".into()],
            "aggregate" => vec!["todoId".into(), "n".into(), "last".into()],
            _ => vec!["id".into()],
        };
        let cell = |value: &Value| match value {
            Value::Text(text) if text.starts_with('[') => serde_json::from_str(text).unwrap(),
            Value::Text(text) => json!(text),
            Value::Integer(number) => json!(number),
            other => panic!("{other:?}"),
        };
        let wanted: Vec<Json> = wanted.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        assert_eq!(found.iter().map(|row| plain(row, &names)).collect::<Vec<_>>(), wanted, "{}", sample["name"]);
    }
}

#[test]
fn what_is_wrong_with_a_query_is_named() {
    let schema = sample_schema();
    let condition = |condition: Json| json!({ "from": "todos", "where": condition });
    let wrong = [
        (json!({ "from": "nothing" }), "from: unknown table nothing"),
        (json!({ "from": "_plasma_changes" }), "from: unknown table _plasma_changes"),
        (json!({ "from": "todos\" --" }), "from: unknown table todos\" --"),
        (json!({ "from": "todos", "select": ["id\" FROM todos --"] }), "select: unknown column id\" FROM todos --"),
        (
            json!({ "from": "todos", "orderBy": [["id", "asc; DROP TABLE todos"]] }),
            "orderBy: must be a list of [column, \"asc\" or \"desc\"]",
        ),
        (json!({ "from": "todos", "limit": -1 }), "limit: must be an integer that is not negative"),
        (json!({ "from": "todos", "limit": 1.5 }), "limit: must be an integer that is not negative"),
        (json!({ "from": "todos", "colour": 1 }), "colour: unknown key"),
        (json!({ "from": "todos", "aggregates": { "n": { "fn": "median", "col": "rank" } } }), "aggregates.n.fn: unknown aggregate"),
        (json!({ "from": "todos", "aggregates": { "a b": { "fn": "count" } } }), "aggregates: \"a b\" is not an identifier"),
        (
            json!({ "from": "todos", "related": { "others": {} } }),
            "related.others: unknown relation others; another needs table, from and to",
        ),
        (json!({ "from": "notes", "orderBy": [["body", "asc"]] }), "orderBy: column body is encrypted"),
        (json!({ "from": "notes", "where": { "op": "isNull", "left": { "col": "body" } } }), "where.left.col: column body is encrypted"),
        (condition(json!({ "op": "~", "left": { "col": "id" }, "right": { "val": "" } })), "where.op: unknown operator"),
        (condition(json!({ "op": "=", "left": { "col": "rank" }, "right": { "val": "1" } })), "where: val expects integer"),
        (
            condition(json!({ "op": "=", "left": { "col": "meta" }, "right": { "val": 1 } })),
            "where: a column of type json is compared by a path or with null",
        ),
        (
            condition(json!({ "op": "like", "left": { "col": "title" }, "right": { "val": "a\\" } })),
            "where: val expects a pattern of at most 1000 bytes that ends with no open escape",
        ),
        (condition(json!({ "op": "=", "left": { "col": "id" }, "right": { "arg": "x" } })), "where.right.arg: is not allowed here"),
        (
            condition(json!({ "and": [{ "not": { "op": "=", "left": { "outer": "id" }, "right": { "val": "" } } }] })),
            "where.and[0].not.left.outer: no row is here",
        ),
        (
            condition(json!({ "op": "=", "left": { "col": "meta", "path": ["a\"b"] }, "right": { "val": "" } })),
            "where.left.path: parts are positions or keys without quotation mark, backslash and control characters",
        ),
    ];
    for (query, problem) in wrong {
        assert_eq!(parse_query(&schema, &query).unwrap_err().to_string(), problem);
    }
}

#[test]
fn a_value_of_another_type_is_an_error_as_parameter_and_null_as_context() {
    let schema = sample_schema();
    let query = |source: Json| {
        parse_query(&schema, &json!({ "from": "todos", "where": { "op": "=", "left": { "col": "owner" }, "right": source } })).unwrap()
    };
    let context = json!({ "userId": 5 });
    let bind = |query: &Query, parameters: &Json| {
        let compiled = compile_query(&schema, query, Dialect::Postgres, &Sources::of_prefix(""), false);
        let bindings = Bindings { parameters: parameters.as_object(), ..Bindings::of_context(context.as_object().unwrap()) };
        compiled.statement(&bindings).map(|statement| statement.parameters).map_err(|error| error.to_string())
    };
    let by_parameter = query(json!({ "param": "p" }));
    assert_eq!(bind(&by_parameter, &json!({})).unwrap_err(), "parameter p is missing");
    assert_eq!(bind(&by_parameter, &json!({ "p": 5 })).unwrap_err(), "param p expects text");
    assert!(matches!(bind(&by_parameter, &json!({ "p": "x" })).unwrap()[..], [Value::Text(_)]));
    assert!(matches!(bind(&query(json!({ "ctx": "userId" })), &json!({})).unwrap()[..], [Value::Null]));
}

#[test]
fn every_double_goes_into_sqlite_and_comes_back_as_it_was() {
    let schema = Schema::parse(
        &json!({ "tables": { "t": { "columns": { "id": { "type": "text" }, "r": { "type": "real" } }, "primaryKey": ["id"] } } }),
        "schema",
    );
    let schema = schema.unwrap();
    let query = json!({ "from": "t", "related": { "same": { "table": "t", "from": ["id"], "to": ["id"] } } });
    let compiled = compile_query(&schema, &parse_query(&schema, &query).unwrap(), Dialect::Sqlite, &Sources::of_prefix(""), true);
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute(&create_schema(&schema, Dialect::Sqlite, "")[0], []).unwrap();
    let mut bits = 0x3fb9_9999_9999_999a_u64;
    for number in 0..2000 {
        bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        if f64::from_bits(bits).is_finite() {
            // As rows are written in bulk.
            let real = schema.tables()[0].column("r").unwrap();
            let array = Json::Array(vec![bulk_value(real, &normal_value(real.column_type, &json!(f64::from_bits(bits))).unwrap())]);
            let sql = format!("INSERT INTO t SELECT ?1, {} RETURNING r", bulk_cell(real, "?2", 0, Dialect::Sqlite));
            let written = connection.query_row(&sql, (number.to_string(), array.to_string()), |row| row.get(0));
            assert_eq!(written, Ok(f64::from_bits(bits)));
        }
    }
    let context = Map::new();
    let rows = compiled.rows(&run(&connection, compiled.statement(&Bindings::of_context(&context)).unwrap()));
    assert!(rows.len() > 1900);
    for row in rows {
        assert_eq!(row["r"], row["same"][0]["r"]);
    }
}
