//! Schemas, values and migrations.

use serde_json::{Value as Json, json};

use super::*;
use crate::imports::{Dialect, Value};
use crate::plasma::envelope::EnvelopeLimits;

fn schema(tables: Json) -> Schema {
    Schema::parse(&json!({ "tables": tables }), "schema").unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn problems(tables: Json) -> Vec<String> {
    Schema::parse(&json!({ "tables": tables }), "schema").expect_err("something is wrong")
}

fn column(column_type: ColumnType) -> Column {
    Column { name: "c".into(), column_type, nullable: false, default: None, encrypted: false, references: None }
}

#[test]
fn every_problem_of_a_schema_is_named_by_its_key() {
    let found = problems(json!({
        "todos": {
            "columns": {
                "id": { "type": "text" },
                "ID": { "type": "text" },
                "rank": { "type": "number" },
                "done": { "type": "boolean", "default": 1 },
                "a-b": { "type": "text" },
                "xmin": { "type": "integer" },
                "owner": { "type": "text", "colour": 1, "nullable": "yes" },
            },
            "primaryKey": ["id", "nothing"],
        },
        "Todos": { "columns": { "id": { "type": "json" } }, "primaryKey": ["id"] },
        "_Plasma_x": { "columns": { "id": { "type": "text", "nullable": true } }, "primaryKey": ["id"] },
        "empty": { "columns": {}, "primaryKey": [] },
    }));
    let wanted = [
        "schema.tables._Plasma_x: is a reserved name",
        "schema.tables.todos: differs from another name only in case",
        "schema.tables.Todos.primaryKey: column id must be text, integer, bigint or boolean",
        "schema.tables._Plasma_x.primaryKey: column id must not be nullable",
        "schema.tables.empty.columns: must be an object with at least one column",
        "schema.tables.todos.columns.a-b: is not an identifier ([A-Za-z_][A-Za-z0-9_]{0,62})",
        "schema.tables.todos.columns.id: differs from another name only in case",
        "schema.tables.todos.columns.xmin: is a reserved name",
        "schema.tables.todos.columns.done.default: column done expects boolean",
        "schema.tables.todos.columns.owner.nullable: invalid type: string \"yes\", expected a boolean",
        "schema.tables.todos.columns.owner.colour: unknown key",
        "schema.tables.todos.columns.rank.type: must be one of text, integer, bigint, real, boolean, json, timestamp, bytes, file",
        "schema.tables.todos.primaryKey: unknown column nothing",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn indexes_relations_references_and_rules_are_checked_against_the_columns() {
    let found = problems(json!({
        "todos": {
            "columns": {
                "id": { "type": "text" },
                "secret": { "type": "text", "encrypted": true },
                "list": { "type": "integer", "references": { "table": "lists", "column": "id", "onDelete": "setNull" } },
                "other": { "type": "text", "references": { "table": "lists", "column": "name", "onDelete": "cascade" } },
            },
            "primaryKey": ["id"],
            "indexes": { "by_rank": { "columns": ["rank"] } },
            "relations": { "lists": { "kind": "many", "table": "lists", "from": ["id"], "to": ["id"] } },
            "auth": {
                "read": { "op": "=", "left": { "col": "secret" }, "right": { "ctx": "userId" } },
                "write": { "insert": { "op": "=", "left": { "col": "id" }, "right": { "param": "p" } }, "remove": { "const": true } },
            },
        },
        "lists": { "columns": { "id": { "type": "integer" }, "name": { "type": "text" } }, "primaryKey": ["id"] },
    }));
    let wanted = [
        "schema.tables.todos.indexes.by_rank.columns: unknown column rank",
        "schema.tables.todos.relations.lists: column id (text) cannot be compared with id (integer)",
        "schema.tables.todos.auth.read.left.col: column secret is encrypted",
        "schema.tables.todos.auth.write.insert.right.param: is not allowed here",
        "schema.tables.todos.auth.write.remove: unknown key",
        "schema.tables.todos.columns.list.references: setNull needs a nullable column",
        "schema.tables.todos.columns.other.references: column lists.name is neither the primary key nor unique",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn an_action_that_the_object_form_leaves_out_is_denied() {
    let table = |write: Json| json!({ "t": { "columns": { "id": { "type": "text" } }, "primaryKey": ["id"], "auth": { "write": write } } });
    let auth = |write: Json| schema(table(write)).table("t").unwrap().auth.clone();
    let (open, closed) = (Predicate::Const(true), Predicate::Const(false));
    let some = auth(json!({ "insert": { "const": true } }));
    assert_eq!((some.read, some.insert, some.update, some.delete), (open.clone(), open.clone(), closed.clone(), closed.clone()));
    assert_eq!(auth(json!({})).insert, closed);
    assert_eq!(auth(json!({ "const": true })).delete, open);
    let without = schema(json!({ "t": { "columns": { "id": { "type": "text" } }, "primaryKey": ["id"] } }));
    assert_eq!(without.tables_without_auth(), ["requireTableAuth: table t has no auth block"]);
}

#[test]
fn values_are_checked_and_brought_into_one_form() {
    let limits = EnvelopeLimits::default();
    let normal = |column_type, value: Json| normalize(&column(column_type), &value, &limits).map_err(|error| error.to_string());
    let same = [
        (ColumnType::Integer, json!(1.0), json!(1)),
        (ColumnType::Integer, json!(-0.0), json!(0)),
        (ColumnType::Timestamp, json!(9_007_199_254_740_991_i64), json!(9_007_199_254_740_991_i64)),
        (ColumnType::Bigint, json!("-000"), json!("0")),
        (ColumnType::Bigint, json!("-0012"), json!("-12")),
        (ColumnType::Real, json!(1), json!(1)),
        (ColumnType::Real, json!(1.0), json!(1)),
        (ColumnType::Json, json!({ "b": [1.0, -0.0, 0.1] }), json!({ "b": [1, 0, 0.1] })),
        (ColumnType::Bytes, json!("AAE="), json!("AAE=")),
    ];
    for (column_type, value, wanted) in same {
        assert_eq!(normal(column_type, value), Ok(wanted));
    }
    let wrong = [
        (ColumnType::Text, json!(5), "column c expects text"),
        (ColumnType::Text, json!("a\0"), "column c must not contain U+0000"),
        (ColumnType::Json, json!({ "a\0": 1 }), "column c must not contain U+0000"),
        (ColumnType::Json, Json::Null, "column c is not nullable"),
        (ColumnType::Integer, json!(1.5), "column c expects integer"),
        (ColumnType::Integer, json!(9_007_199_254_740_992_i64), "column c expects integer"),
        (ColumnType::Integer, json!("1"), "column c expects integer"),
        (ColumnType::Bigint, json!(1), "column c expects bigint"),
        (ColumnType::Bigint, json!("+1"), "column c expects bigint"),
        (ColumnType::Boolean, json!(1), "column c expects boolean"),
        (ColumnType::Timestamp, json!("2020-01-01"), "column c expects timestamp"),
        (ColumnType::Bytes, json!("AAE"), "column c expects bytes"),
        (ColumnType::Bytes, json!("AAF="), "column c expects bytes"),
        (ColumnType::Bytes, json!("_w=="), "column c expects bytes"),
        (ColumnType::File, json!({ "hash": "AB" }), "column c expects file"),
    ];
    for (column_type, value, message) in wrong {
        assert_eq!(normal(column_type, value).unwrap_err(), message);
    }
    let encrypted = Column { encrypted: true, ..column(ColumnType::Text) };
    let envelope = json!({ "v": 1, "alg": "a", "keyId": "k1", "iv": "AA==", "ct": "AAAA", "more": [1] });
    let normal = |limits: &EnvelopeLimits| normalize(&encrypted, &envelope, limits).map_err(|error| error.to_string());
    assert_eq!(normal(&limits), Ok(envelope.clone()));
    assert_eq!(normal(&EnvelopeLimits { ciphertext_bytes_max: Some(4), ..limits.clone() }), Ok(envelope.clone()));
    let small = EnvelopeLimits { ciphertext_bytes_max: Some(3), ..limits.clone() };
    assert_eq!(normal(&small).unwrap_err(), "invalid envelope in c: ct is longer than 3");
    let plain = normalize(&encrypted, &json!("text"), &limits).unwrap_err();
    assert_eq!(plain.to_string(), "invalid envelope in c: not an object");
}

#[test]
fn cells_are_written_as_they_are_read() {
    let cells = [
        (ColumnType::Text, Value::Text("a\"\\\n\u{1}é😀".into())),
        (ColumnType::Integer, Value::Integer(-5)),
        (ColumnType::Boolean, Value::Integer(1)),
        (ColumnType::Real, Value::Real(1e15)),
        (ColumnType::Real, Value::Real(-0.1)),
        (ColumnType::Real, Value::Real(1e300)),
        (ColumnType::Bigint, Value::Text("123".into())),
        (ColumnType::Bytes, Value::Blob(vec![0, 255])),
        (ColumnType::Json, Value::Text("{\"a\":[1,\"x\"]}".into())),
        (ColumnType::File, Value::Null),
    ];
    for (column_type, cell) in cells {
        let mut text = String::new();
        write_json(&column(column_type), &cell, &mut text);
        let (written, read): (Json, Json) = (serde_json::from_str(&text).unwrap(), from_sql(&column(column_type), &cell));
        assert_eq!(written, read);
        assert_eq!(text, read.to_string());
    }
}

#[test]
fn keys_are_text_that_no_other_key_has() {
    assert_eq!(key_text("members", &[json!("a/b%"), json!(5), json!(true)]), "members/a%2Fb%25/5/true");
    assert_eq!(pk_json(&[json!("a\""), json!(5), json!(false)]), "[\"a\\\"\",5,false]");
}

fn open(schema: &Schema) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    for _ in 0..2 {
        for sql in create_schema(schema, Dialect::Sqlite, "p_") {
            connection.execute(&sql, []).unwrap();
        }
    }
    connection
}

fn migrate(connection: &rusqlite::Connection, from: &Schema, to: &Schema) {
    for step in migration_statements(from, to, Dialect::Sqlite, "p_") {
        connection.execute(&step.statement.sql, []).unwrap_or_else(|error| panic!("{error}: {}", step.statement.sql));
    }
}

/// The definitions of all tables and indexes, without the order of what was added.
fn layout(connection: &rusqlite::Connection) -> Vec<(String, String)> {
    let sql = "SELECT m.name, coalesce(group_concat(c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || c.pk, ', ' ORDER BY c.name), m.sql)
        FROM sqlite_schema AS m LEFT JOIN pragma_table_info(m.name) AS c ON m.type = 'table' WHERE m.name NOT LIKE 'sqlite_%' GROUP BY m.name ORDER BY m.name";
    let mut prepared = connection.prepare(sql).unwrap();
    prepared.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn what_is_safe_is_done_and_fills_the_rows_that_are_there() {
    let from = schema(
        json!({ "todos": { "columns": { "id": { "type": "text" } }, "primaryKey": ["id"], "indexes": { "gone": { "columns": ["id"] } } } }),
    );
    let to = schema(json!({
        "todos": {
            "columns": {
                "id": { "type": "text" },
                "title": { "type": "text", "default": "it's" },
                "meta": { "type": "json", "nullable": true, "default": { "a": [1] } },
                "bytes": { "type": "bytes", "default": "AAE=" },
                "rank": { "type": "integer", "nullable": true },
            },
            "primaryKey": ["id"],
            "indexes": { "by_title": { "columns": ["title", "rank"] } },
        },
        "lists": { "columns": { "id": { "type": "integer" } }, "primaryKey": ["id"] },
    }));
    let diff = SchemaDiff::between(&from, &to);
    assert_eq!(
        serde_json::to_value(&diff).unwrap(),
        json!({
            "addedTables": ["lists"], "removedTables": [],
            "addedColumns": [
                { "table": "todos", "column": "bytes", "nullable": false, "hasDefault": true },
                { "table": "todos", "column": "meta", "nullable": true, "hasDefault": true },
                { "table": "todos", "column": "rank", "nullable": true, "hasDefault": false },
                { "table": "todos", "column": "title", "nullable": false, "hasDefault": true },
            ],
            "removedColumns": [], "changedColumns": [], "changedPrimaryKeys": [], "addedIndexes": ["by_title"], "removedIndexes": ["gone"],
        })
    );
    assert_eq!(diff.assert_safe_for_v1(), Ok(()));
    assert!(needs_reset(&from, &to) && !needs_reset(&to, &to) && SchemaDiff::between(&to, &to).is_empty());
    let connection = open(&from);
    connection.execute("INSERT INTO p_todos VALUES ('1')", []).unwrap();
    migrate(&connection, &from, &to);
    let row = connection.query_row("SELECT title, meta, hex(bytes), rank FROM p_todos", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, Option<i64>>(3)?))
    });
    assert_eq!(row, Ok(("it's".into(), "{\"a\":[1]}".into(), "0001".into(), None)));
    assert_eq!(layout(&connection), layout(&open(&to)));
}

#[test]
fn what_destroys_is_refused_with_reasons_and_done_with_leave() {
    let from = schema(json!({
        "todos": {
            "columns": {
                "id": { "type": "text" },
                "rank": { "type": "integer" },
                "done": { "type": "boolean", "nullable": true },
                "gone": { "type": "text" },
            },
            "primaryKey": ["id"],
            "indexes": { "by_rank": { "columns": ["rank"] } },
        },
        "lists": { "columns": { "id": { "type": "integer" } }, "primaryKey": ["id"] },
    }));
    let to = schema(json!({
        "todos": {
            "columns": {
                "id": { "type": "text" },
                "rank": { "type": "text" },
                "done": { "type": "boolean", "default": true },
                "owner": { "type": "text", "default": "nobody" },
            },
            "primaryKey": ["id", "owner"],
            "indexes": { "by_rank": { "columns": ["rank"] } },
        },
    }));
    let reasons = [
        "table lists would be dropped",
        "column todos.gone would be dropped",
        "column todos.done would change",
        "column todos.rank would change",
        "primary key of todos would change",
    ];
    let diff = SchemaDiff::between(&from, &to);
    assert_eq!(diff.assert_safe_for_v1().unwrap_err(), reasons);
    assert_eq!(diff.changed_columns[0].from, "boolean nullable");
    assert_eq!(impossible(&from, &to), Vec::<String>::new());
    let connection = open(&from);
    connection.execute("INSERT INTO p_todos (id, rank, done, gone) VALUES ('1', 5, NULL, ''), ('2', -7, 0, '')", []).unwrap();
    migrate(&connection, &from, &to);
    let mut prepared = connection.prepare("SELECT id || ' ' || rank || ' ' || done || ' ' || owner FROM p_todos ORDER BY id").unwrap();
    let rows: Vec<String> = prepared.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows, ["1 5 1 nobody", "2 -7 0 nobody"]);
    assert_eq!(layout(&connection), layout(&open(&to)));
}

#[test]
fn a_column_that_rows_can_have_no_value_for_is_impossible() {
    let table = |column: Json| schema(json!({ "t": { "columns": { "id": { "type": "text" }, "c": column }, "primaryKey": ["id"] } }));
    let bare = schema(json!({ "t": { "columns": { "id": { "type": "text" } }, "primaryKey": ["id"] } }));
    let text = table(json!({ "type": "text" }));
    let added = ["column t.c is not nullable and has no default"];
    assert_eq!(SchemaDiff::between(&bare, &text).assert_safe_for_v1().unwrap_err(), added);
    assert_eq!(impossible(&bare, &text), added);
    let encrypted = table(json!({ "type": "text", "encrypted": true }));
    assert_eq!(impossible(&text, &encrypted), ["column t.c cannot keep its values and has no default"]);
}

#[test]
fn what_refers_is_found_from_what_is_referred_to() {
    let schema = schema(json!({
        "lists": { "columns": { "id": { "type": "text" } }, "primaryKey": ["id"] },
        "todos": {
            "columns": { "id": { "type": "text" }, "list": { "type": "text", "references": { "table": "lists", "column": "id", "onDelete": "cascade" } } },
            "primaryKey": ["id"],
        },
    }));
    let found = schema.referrers("lists");
    assert_eq!(
        (found.len(), &*found[0].table.name, &*found[0].column.name, found[0].reference.on_delete),
        (1, "todos", "list", OnDelete::Cascade)
    );
    let index = index_name("", "todos", "list reference");
    assert!(create_schema(&schema, Dialect::Postgres, "").iter().any(|sql| sql.contains(&index)), "deletions over there do not scan");
    assert!(index_name("prefix_", &"t".repeat(63), &"i".repeat(63)).len() <= 63);
}
