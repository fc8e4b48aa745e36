//! Spin's interfaces as ports.

use crate::bindings::fermyon::spin::{key_value, postgres, rdbms_types, redis, sqlite};
use crate::ports::{
    Bound, Cell, KeyValue, KeyValuePort, PortError, PostgresConnection, PostgresPort, Redis, RedisPort, SqliteConnection, SqlitePort,
};
use crate::sql::Value;

/// SQLite.
pub(super) struct Sqlite;

struct SqliteHandle(sqlite::Connection);

fn sqlite_error(error: sqlite::Error) -> PortError {
    match error {
        sqlite::Error::NoSuchDatabase => PortError::Forbidden("Spin knows no SQLite database of this label".into()),
        sqlite::Error::AccessDenied => PortError::Forbidden("spin.toml does not list the label under sqlite_databases".into()),
        sqlite::Error::InvalidConnection => PortError::Away("the connection to SQLite is gone".into()),
        sqlite::Error::DatabaseFull => PortError::Said("database or disk is full".into()),
        sqlite::Error::Io(said) => PortError::Said(said),
    }
}

impl SqlitePort for Sqlite {
    fn open(&self, label: &str) -> Result<Box<dyn SqliteConnection>, PortError> {
        match sqlite::Connection::open(label) {
            Ok(connection) => Ok(Box::new(SqliteHandle(connection))),
            // Whatever is said here, it is not about a statement.
            Err(sqlite::Error::Io(said)) => Err(PortError::Away(said)),
            Err(error) => Err(sqlite_error(error)),
        }
    }
}

impl SqliteConnection for SqliteHandle {
    fn execute(&self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, PortError> {
        let parameters: Vec<sqlite::Value> = parameters
            .iter()
            .map(|value| match value {
                Value::Null => sqlite::Value::Null,
                Value::Integer(number) => sqlite::Value::Integer(*number),
                Value::Real(number) => sqlite::Value::Real(*number),
                Value::Text(text) => sqlite::Value::Text(text.clone()),
                Value::Blob(bytes) => sqlite::Value::Blob(bytes.clone()),
            })
            .collect();
        let result = self.0.execute(sql, &parameters).map_err(sqlite_error)?;
        let cell = |value| match value {
            sqlite::Value::Null => Value::Null,
            sqlite::Value::Integer(number) => Value::Integer(number),
            sqlite::Value::Real(number) => Value::Real(number),
            sqlite::Value::Text(text) => Value::Text(text),
            sqlite::Value::Blob(bytes) => Value::Blob(bytes),
        };
        Ok(result.rows.into_iter().map(|row| row.values.into_iter().map(cell).collect()).collect())
    }
}

/// PostgreSQL.
pub(super) struct Postgres;

struct PostgresHandle(postgres::Connection);

fn postgres_error(error: rdbms_types::Error) -> PortError {
    match error {
        // May hold what the address holds.
        rdbms_types::Error::ConnectionFailed(_) => {
            PortError::Away("PostgreSQL cannot be reached: look at the address, and at allowed_outbound_hosts in spin.toml".into())
        }
        rdbms_types::Error::BadParameter(said)
        | rdbms_types::Error::QueryFailed(said)
        | rdbms_types::Error::ValueConversionFailed(said)
        | rdbms_types::Error::Other(said) => PortError::Said(said),
    }
}

impl PostgresPort for Postgres {
    fn open(&self, address: &str) -> Result<Box<dyn PostgresConnection>, PortError> {
        match postgres::Connection::open(address) {
            Ok(connection) => Ok(Box::new(PostgresHandle(connection))),
            Err(rdbms_types::Error::ConnectionFailed(_)) => Err(postgres_error(rdbms_types::Error::ConnectionFailed(String::new()))),
            Err(_) => Err(PortError::Away("PostgreSQL cannot be reached at the address".into())),
        }
    }
}

fn parameters(given: &[Bound]) -> Vec<rdbms_types::ParameterValue> {
    use rdbms_types::ParameterValue as Parameter;
    given
        .iter()
        .map(|bound| match bound {
            Bound::Null => Parameter::DbNull,
            Bound::Boolean(flag) => Parameter::Boolean(*flag),
            Bound::Int16(number) => Parameter::Int16(*number),
            Bound::Int32(number) => Parameter::Int32(*number),
            Bound::Int64(number) => Parameter::Int64(*number),
            Bound::Float32(number) => Parameter::Floating32(*number),
            Bound::Float64(number) => Parameter::Floating64(*number),
            Bound::Text(text) => Parameter::Str(text.clone()),
            Bound::Bytes(bytes) => Parameter::Binary(bytes.clone()),
        })
        .collect()
}

fn cell(value: rdbms_types::DbValue) -> Cell {
    use rdbms_types::DbValue as Found;
    Some(match value {
        Found::Boolean(flag) => Value::Integer(flag.into()),
        Found::Int8(number) => Value::Integer(number.into()),
        Found::Int16(number) => Value::Integer(number.into()),
        Found::Int32(number) => Value::Integer(number.into()),
        Found::Int64(number) => Value::Integer(number),
        Found::Uint8(number) => Value::Integer(number.into()),
        Found::Uint16(number) => Value::Integer(number.into()),
        Found::Uint32(number) => Value::Integer(number.into()),
        Found::Uint64(number) => Value::Integer(i64::try_from(number).ok()?),
        Found::Floating32(number) => Value::Real(number.into()),
        Found::Floating64(number) => Value::Real(number),
        Found::Str(text) => Value::Text(text),
        Found::Binary(bytes) => Value::Blob(bytes),
        Found::DbNull => Value::Null,
        Found::Unsupported => return None,
    })
}

impl PostgresConnection for PostgresHandle {
    fn query(&self, sql: &str, given: &[Bound]) -> Result<Vec<Vec<Cell>>, PortError> {
        let rows = self.0.query(sql, &parameters(given)).map_err(postgres_error)?.rows;
        Ok(rows.into_iter().map(|row| row.into_iter().map(cell).collect()).collect())
    }

    fn execute(&self, sql: &str, given: &[Bound]) -> Result<u64, PortError> {
        self.0.execute(sql, &parameters(given)).map_err(postgres_error)
    }
}

/// Key-value stores.
pub(super) struct KeyValues;

struct Store(key_value::Store);

fn key_value_error(error: key_value::Error) -> PortError {
    match error {
        key_value::Error::StoreTableFull => PortError::Away("too many key-value stores are open".into()),
        key_value::Error::NoSuchStore => PortError::Forbidden("Spin knows no key-value store of this label".into()),
        key_value::Error::AccessDenied => PortError::Forbidden("spin.toml does not list the label under key_value_stores".into()),
        key_value::Error::Other(said) => PortError::Away(said),
    }
}

impl KeyValuePort for KeyValues {
    fn open(&self, label: &str) -> Result<Box<dyn KeyValue>, PortError> {
        key_value::Store::open(label).map(|store| Box::new(Store(store)) as Box<dyn KeyValue>).map_err(key_value_error)
    }
}

impl KeyValue for Store {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, PortError> {
        self.0.get(key).map_err(key_value_error)
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), PortError> {
        self.0.set(key, value).map_err(key_value_error)
    }

    fn delete(&self, key: &str) -> Result<(), PortError> {
        self.0.delete(key).map_err(key_value_error)
    }
}

/// Redis servers.
pub(super) struct RedisServers;

struct RedisHandle(redis::Connection);

impl RedisPort for RedisServers {
    fn open(&self, address: &str) -> Result<Box<dyn Redis>, PortError> {
        // What is said may hold what the address holds.
        let connection = redis::Connection::open(address).map_err(|_| PortError::Away("Redis cannot be reached".into()))?;
        Ok(Box::new(RedisHandle(connection)))
    }
}

impl Redis for RedisHandle {
    fn command(&self, command: &str, arguments: &[&[u8]]) -> Result<Option<Vec<u8>>, PortError> {
        let arguments: Vec<redis::RedisParameter> =
            arguments.iter().map(|argument| redis::RedisParameter::Binary(argument.to_vec())).collect();
        let answer = self.0.execute(command, &arguments).map_err(|error| match error {
            redis::Error::InvalidAddress => PortError::Forbidden("the address of Redis cannot be read".into()),
            redis::Error::TooManyConnections => PortError::Away("too many connections to Redis".into()),
            redis::Error::TypeError => PortError::Said("a value in Redis is of another kind".into()),
            redis::Error::Other(said) => PortError::Said(said),
        })?;
        Ok(match answer.into_iter().next() {
            None | Some(redis::RedisResult::Nil) => None,
            Some(redis::RedisResult::Status(text)) => Some(text.into_bytes()),
            Some(redis::RedisResult::Int64(number)) => Some(number.to_string().into_bytes()),
            Some(redis::RedisResult::Binary(bytes)) => Some(bytes),
        })
    }
}
