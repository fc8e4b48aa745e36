//! From JSON to tables, with every problem named.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::{Column, ColumnType, Index, OnDelete, Reference, Relation, RelationKind, Schema, Table, TableAuth, normalize};
use crate::plasma::envelope::EnvelopeLimits;
use crate::plasma::language::{Allowed, Predicate, are_comparable, is_comparable, parse_predicate};
use crate::settings::Settings;

/// Columns of a primary key.
const KEY_COLUMNS_MAX: usize = 8;
/// Names that PostgreSQL keeps for itself in every table.
const POSTGRES_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// What is left of a table's JSON once its columns are known.
struct Draft {
    path: String,
    indexes: Option<Json>,
    relations: Option<Json>,
    auth: Option<Json>,
}

/// The tables of a schema, in the order of their names.
pub fn tables(source: &Json, path: &str) -> Result<Vec<Table>, Vec<String>> {
    let mut problems = Vec::new();
    let Some(object) = source.as_object() else { return Err(vec![format!("{path}: must be an object")]) };
    let mut settings = Settings::nested(path, object.clone());
    let listed = settings.take("tables", &[]);
    problems.extend(settings.finish());
    let Some(Json::Object(listed)) = listed else {
        problems.push(format!("{path}.tables: must be an object"));
        return Err(problems);
    };
    let path = format!("{path}.tables");
    problems.extend(name_problems(&path, listed.keys(), |name| starts_with_ignoring_case(name, "sqlite_")));
    let (mut tables, mut drafts) = (Vec::new(), Vec::new());
    for (name, table) in listed {
        if let Some((table, draft)) = parse_table(&name, &table, &format!("{path}.{name}"), &mut problems) {
            tables.push(table);
            drafts.push(draft);
        }
    }
    // Rules are judged only where the columns are right: a wrong column would be reported again by each of them.
    if !problems.is_empty() {
        return Err(problems);
    }
    parse_rules(tables, drafts, source)
}

fn parse_rules(tables: Vec<Table>, drafts: Vec<Draft>, source: &Json) -> Result<Vec<Table>, Vec<String>> {
    let mut problems = Vec::new();
    let schema = Schema { source: source.clone(), tables };
    let mut tables = schema.tables.clone();
    let mut paths = Vec::new();
    for (table, draft) in tables.iter_mut().zip(drafts) {
        let path = &draft.path;
        table.indexes = parse_indexes(table, draft.indexes, &format!("{path}.indexes"), &mut problems);
        table.relations = parse_relations(&schema, table, draft.relations, &format!("{path}.relations"), &mut problems);
        if let Some(auth) = draft.auth {
            table.auth = parse_auth(&schema, table, auth, &format!("{path}.auth"), &mut problems);
        }
        paths.push(draft.path);
    }
    for (table, path) in tables.iter().zip(paths) {
        for column in &table.columns {
            let found = column.references.as_ref().and_then(|reference| reference_problem(&tables, column, reference));
            problems.extend(found.map(|problem| format!("{path}.columns.{}.references: {problem}", column.name)));
        }
    }
    if problems.is_empty() { Ok(tables) } else { Err(problems) }
}

/// Whether a name can be an identifier in both databases.
fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && name.len() <= 63 && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn starts_with_ignoring_case(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// What is wrong with the names of one space.
fn name_problems<'a>(path: &str, names: impl Iterator<Item = &'a String>, is_reserved: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for name in names {
        if !is_identifier(name) {
            problems.push(format!("{path}.{name}: is not an identifier ([A-Za-z_][A-Za-z0-9_]{{0,62}})"));
        } else if starts_with_ignoring_case(name, "_plasma_") || is_reserved(name) {
            problems.push(format!("{path}.{name}: is a reserved name"));
        } else if !seen.insert(name.to_ascii_lowercase()) {
            problems.push(format!("{path}.{name}: differs from another name only in case"));
        }
    }
    problems
}

fn parse_table(name: &str, source: &Json, path: &str, problems: &mut Vec<String>) -> Option<(Table, Draft)> {
    let Some(object) = source.as_object() else {
        problems.push(format!("{path}: must be an object"));
        return None;
    };
    let mut settings = Settings::nested(path, object.clone());
    let listed = settings.take("columns", &[]);
    let key: Option<Vec<String>> = settings.take_as("primary_key", &[]);
    let [indexes, relations, auth] = ["indexes", "relations", "auth"].map(|key| settings.take(key, &[]));
    problems.extend(settings.finish());
    let columns = match listed {
        Some(Json::Object(listed)) if !listed.is_empty() => parse_columns(&listed, &format!("{path}.columns"), problems),
        _ => {
            problems.push(format!("{path}.columns: must be an object with at least one column"));
            return None;
        }
    };
    let mut table = Table {
        name: name.to_owned(),
        columns,
        primary_key: Vec::new(),
        indexes: Vec::new(),
        relations: BTreeMap::new(),
        auth: TableAuth {
            declared: false,
            read: Predicate::Const(true),
            insert: Predicate::Const(true),
            update: Predicate::Const(true),
            delete: Predicate::Const(true),
        },
    };
    match parse_key(&table, key) {
        Ok(key) => table.primary_key = key,
        Err(problem) => problems.push(format!("{path}.primaryKey: {problem}")),
    }
    Some((table, Draft { path: path.to_owned(), indexes, relations, auth }))
}

fn parse_key(table: &Table, key: Option<Vec<String>>) -> Result<Vec<usize>, String> {
    let key = key.ok_or("must be a list of column names")?;
    if key.is_empty() || key.len() > KEY_COLUMNS_MAX {
        return Err(format!("must name 1 to {KEY_COLUMNS_MAX} columns"));
    }
    let mut positions = Vec::new();
    for name in key {
        let position = table.position(&name).ok_or_else(|| format!("unknown column {name}"))?;
        let column = &table.columns[position];
        let is_fit = matches!(column.column_type, ColumnType::Text | ColumnType::Integer | ColumnType::Bigint | ColumnType::Boolean);
        let problem = match column {
            _ if positions.contains(&position) => "is named twice",
            Column { nullable: true, .. } => "must not be nullable",
            Column { encrypted: true, .. } => "must not be encrypted",
            _ if !is_fit => "must be text, integer, bigint or boolean",
            _ => {
                positions.push(position);
                continue;
            }
        };
        return Err(format!("column {name} {problem}"));
    }
    Ok(positions)
}

fn parse_columns(listed: &Map<String, Json>, path: &str, problems: &mut Vec<String>) -> Vec<Column> {
    let is_reserved = |name: &str| POSTGRES_COLUMNS.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
    problems.extend(name_problems(path, listed.keys(), is_reserved));
    listed.iter().filter_map(|(name, source)| parse_column(name, source, &format!("{path}.{name}"), problems)).collect()
}

fn parse_column(name: &str, source: &Json, path: &str, problems: &mut Vec<String>) -> Option<Column> {
    let Some(object) = source.as_object() else {
        problems.push(format!("{path}: must be an object"));
        return None;
    };
    let mut settings = Settings::nested(path, object.clone());
    let type_name = settings.take("type", &[]);
    let nullable = settings.take_as("nullable", &[]).unwrap_or(false);
    let encrypted = settings.take_as("encrypted", &[]).unwrap_or(false);
    let default = settings.take("default", &[]);
    let references = settings.take("references", &[]);
    problems.extend(settings.finish());
    let references = references.and_then(|source| match parse_reference(&source, &format!("{path}.references")) {
        Ok(reference) => Some(reference),
        Err(found) => {
            problems.extend(found);
            None
        }
    });
    let column_type = ColumnType::ALL.into_iter().find(|column_type| type_name.as_ref().and_then(Json::as_str) == Some(column_type.name()));
    let Some(column_type) = column_type else {
        let names = ColumnType::ALL.map(ColumnType::name).join(", ");
        problems.push(format!("{path}.type: must be one of {names}"));
        return None;
    };
    let mut column = Column { name: name.to_owned(), column_type, nullable, default: None, encrypted, references };
    match default.map(|default| normalize(&column, &default, &EnvelopeLimits::default())) {
        None | Some(Ok(Json::Null)) => {}
        Some(Ok(default)) => column.default = Some(default),
        Some(Err(error)) => problems.push(format!("{path}.default: {error}")),
    }
    Some(column)
}

fn parse_reference(source: &Json, path: &str) -> Result<Reference, Vec<String>> {
    let object = source.as_object().ok_or_else(|| vec![format!("{path}: must be an object")])?;
    let mut settings = Settings::nested(path, object.clone());
    let table: Option<String> = settings.take_as("table", &[]);
    let column: Option<String> = settings.take_as("column", &[]);
    let on_delete = match settings.take("on_delete", &[]).as_ref().map(|action| action.as_str().unwrap_or_default()) {
        None | Some("restrict") => OnDelete::Restrict,
        Some("cascade") => OnDelete::Cascade,
        Some("setNull") => OnDelete::SetNull,
        Some(_) => {
            settings.problem("onDelete", "must be restrict, cascade or setNull");
            OnDelete::Restrict
        }
    };
    if table.is_none() || column.is_none() {
        settings.problems.push(format!("{path}: must name a table and a column"));
    }
    match (table, column, settings.finish()) {
        (Some(table), Some(column), problems) if problems.is_empty() => Ok(Reference { table, column, on_delete }),
        (_, _, problems) => Err(problems),
    }
}

fn reference_problem(tables: &[Table], column: &Column, reference: &Reference) -> Option<String> {
    let Some(target) = tables.iter().find(|table| table.name == reference.table) else {
        return Some(format!("unknown table {}", reference.table));
    };
    let Some(referenced) = target.column(&reference.column) else {
        return Some(format!("unknown column {}.{}", reference.table, reference.column));
    };
    let is_key = target.key_columns().map(|key| &key.name).eq([&reference.column]);
    let is_unique = target.indexes.iter().any(|index| index.unique && index.columns == [reference.column.as_str()]);
    if column.encrypted || referenced.encrypted {
        Some("an encrypted column cannot refer or be referred to".into())
    } else if column.column_type != referenced.column_type || !is_comparable(column.column_type) {
        Some(format!("column {} is {}, not {}", reference.column, referenced.column_type.name(), column.column_type.name()))
    } else if !is_key && !is_unique {
        Some(format!("column {}.{} is neither the primary key nor unique", reference.table, reference.column))
    } else if reference.on_delete == OnDelete::SetNull && !column.nullable {
        Some("setNull needs a nullable column".into())
    } else {
        None
    }
}

/// The members of an optional object.
fn members(source: Option<Json>, path: &str, problems: &mut Vec<String>) -> Map<String, Json> {
    match source {
        None => Map::new(),
        Some(Json::Object(members)) => {
            problems.extend(name_problems(path, members.keys(), |_| false));
            members
        }
        Some(_) => {
            problems.push(format!("{path}: must be an object"));
            Map::new()
        }
    }
}

fn parse_indexes(table: &Table, source: Option<Json>, path: &str, problems: &mut Vec<String>) -> Vec<Index> {
    let mut indexes = Vec::new();
    for (name, source) in members(source, path, problems) {
        let path = format!("{path}.{name}");
        let Json::Object(object) = source else {
            problems.push(format!("{path}: must be an object"));
            continue;
        };
        let mut settings = Settings::nested(&path, object);
        let columns: Vec<String> = settings.take_as("columns", &[]).unwrap_or_default();
        let unique = settings.take_as("unique", &[]).unwrap_or(false);
        problems.extend(settings.finish());
        problems.extend(column_list_problem(table, &columns).map(|problem| format!("{path}.columns: {problem}")));
        indexes.push(Index { name, columns, unique });
    }
    indexes
}

fn column_list_problem(table: &Table, columns: &[String]) -> Option<String> {
    if columns.is_empty() {
        return Some("must be a list of column names".into());
    }
    let unknown = columns.iter().find(|column| table.column(column).is_none());
    let twice = columns.iter().enumerate().find(|(position, column)| columns[..*position].contains(column));
    match (unknown, twice) {
        (Some(column), _) => Some(format!("unknown column {column}")),
        (None, Some((_, column))) => Some(format!("column {column} is named twice")),
        (None, None) => None,
    }
}

fn parse_relations(
    schema: &Schema,
    table: &Table,
    source: Option<Json>,
    path: &str,
    problems: &mut Vec<String>,
) -> BTreeMap<String, Relation> {
    let mut relations = BTreeMap::new();
    for (name, source) in members(source, path, problems) {
        let path = format!("{path}.{name}");
        let Json::Object(object) = source else {
            problems.push(format!("{path}: must be an object"));
            continue;
        };
        let mut settings = Settings::nested(&path, object);
        let kind = match settings.take("kind", &[]).as_ref().and_then(Json::as_str) {
            Some("one") => RelationKind::One,
            Some("many") => RelationKind::Many,
            _ => {
                settings.problem("kind", "must be one or many");
                RelationKind::Many
            }
        };
        let target: String = settings.take_as("table", &[]).unwrap_or_default();
        let from: Vec<String> = settings.take_as("from", &[]).unwrap_or_default();
        let to: Vec<String> = settings.take_as("to", &[]).unwrap_or_default();
        problems.extend(settings.finish());
        let relation = Relation { kind, table: target, from, to };
        problems.extend(relation_problem(schema, table, &relation).map(|problem| format!("{path}: {problem}")));
        relations.insert(name, relation);
    }
    relations
}

/// What is wrong with the columns of a relation, of the schema or of a query.
pub(in crate::plasma) fn relation_problem(schema: &Schema, table: &Table, relation: &Relation) -> Option<String> {
    let Some(target) = schema.table(&relation.table) else { return Some(format!("unknown table {}", relation.table)) };
    if relation.from.is_empty() || relation.from.len() != relation.to.len() {
        return Some("from and to must name as many columns, at least one".into());
    }
    relation.from.iter().zip(&relation.to).find_map(|(from, to)| match (table.column(from), target.column(to)) {
        (None, _) => Some(format!("unknown column {}.{from}", table.name)),
        (_, None) => Some(format!("unknown column {}.{to}", target.name)),
        (Some(from), Some(to)) => pair_problem(from, to),
    })
}

/// Why two columns cannot be compared.
pub(in crate::plasma) fn pair_problem(left: &Column, right: &Column) -> Option<String> {
    let encrypted = [left, right].into_iter().find(|column| column.encrypted);
    match encrypted {
        Some(column) => Some(format!("column {} is encrypted", column.name)),
        None if !are_comparable(left.column_type, right.column_type) => Some(format!(
            "column {} ({}) cannot be compared with {} ({})",
            left.name,
            left.column_type.name(),
            right.name,
            right.column_type.name()
        )),
        None => None,
    }
}

fn parse_auth(schema: &Schema, table: &Table, source: Json, path: &str, problems: &mut Vec<String>) -> TableAuth {
    let mut auth = TableAuth { declared: true, ..table.auth.clone() };
    let Json::Object(object) = source else {
        problems.push(format!("{path}: must be an object"));
        return auth;
    };
    let mut settings = Settings::nested(path, object);
    let [read, write] = ["read", "write"].map(|key| settings.take(key, &[]));
    problems.extend(settings.finish());
    let mut parse = |source: &Json, path: String| {
        parse_predicate(schema, Some(table), source, &path, Allowed::default()).unwrap_or_else(|error| {
            problems.push(error.to_string());
            Predicate::Const(false)
        })
    };
    if let Some(read) = read {
        auth.read = parse(&read, format!("{path}.read"));
    }
    match write {
        None => {}
        Some(Json::Object(actions))
            if actions.is_empty() || ["insert", "update", "delete"].iter().any(|action| actions.contains_key(*action)) =>
        {
            let mut of = |action: &str| {
                actions.get(action).map_or(Predicate::Const(false), |source| parse(source, format!("{path}.write.{action}")))
            };
            (auth.insert, auth.update, auth.delete) = (of("insert"), of("update"), of("delete"));
            let unknown = actions.keys().filter(|key| !["insert", "update", "delete"].contains(&key.as_str()));
            problems.extend(unknown.map(|key| format!("{path}.write.{key}: unknown key")));
        }
        Some(write) => {
            let write = parse(&write, format!("{path}.write"));
            (auth.insert, auth.update, auth.delete) = (write.clone(), write.clone(), write);
        }
    }
    auth
}
