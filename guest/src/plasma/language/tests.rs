//! Queries and predicates on SQLite and in memory.

use rusqlite::types::ValueRef;

use super::testing::{Case, Random};
use super::*;
use crate::imports::{Dialect, RowSet, Statement, Value};
use crate::plasma::schema::create_schema;

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
    RowSet { columns: Vec::new(), rows, changed: 0, truncated: false }
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
