//! A double of Spin's PostgreSQL over a real server, with its traps: connections go back to a pool as they are, each statement is
//! prepared by itself, a parameter must be of exactly the type that the server wants, errors are the driver's debug text, and there is no answer
//! without a row.

use std::cell::RefCell;
use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::{LazyLock, Mutex};

use tokio::runtime::Runtime;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};

use crate::ports::{Bound, Cell, PortError, PostgresConnection, PostgresPort};
use crate::sql::Value;

/// A server of these tests, where nobody says where one is: it ends with the process, whose end it reads from.
struct Server {
    address: String,
    _child: Option<Mutex<Child>>,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    if let Ok(address) = std::env::var("SYNCLINE_TEST_POSTGRES") {
        return Server { address, _child: None };
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/with-postgres");
    let mut child = Command::new(script)
        .args(["sh", "-c", "echo $SYNCLINE_TEST_POSTGRES; cat >/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/with-postgres runs");
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    assert!(address.starts_with("postgres://"), "tests/with-postgres gave no address: {address:?}");
    Server { address: address.trim().to_owned(), _child: Some(Mutex::new(child)) }
});

/// The host's pool, for one address.
#[derive(Clone)]
pub(super) struct Pool {
    runtime: Rc<Runtime>,
    pub(super) address: Rc<str>,
    resting: Rc<RefCell<Vec<Client>>>,
}

impl Pool {
    /// For a database of a test's own.
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let name = format!("spin_{}_{:p}", std::process::id(), &raw const runtime).replace("0x", "");
        let admin = connect(&runtime, &SERVER.address);
        runtime.block_on(admin.batch_execute(&format!("CREATE DATABASE {name}"))).unwrap();
        let (server, _) = SERVER.address.rsplit_once('/').unwrap();
        Self { runtime: Rc::new(runtime), address: format!("{server}/{name}").into(), resting: Rc::default() }
    }

    /// A connection of somebody else.
    pub(super) fn other(&self) -> Other {
        Other { client: connect(&self.runtime, &self.address), runtime: Rc::clone(&self.runtime) }
    }
}

/// See [`Pool::other`].
pub(super) struct Other {
    client: Client,
    runtime: Rc<Runtime>,
}

impl Other {
    pub(super) fn run(&self, sql: &str) {
        self.runtime.block_on(self.client.batch_execute(sql)).unwrap();
    }
}

fn connect(runtime: &Runtime, address: &str) -> Client {
    let (client, connection) = runtime.block_on(tokio_postgres::connect(address, NoTls)).unwrap();
    runtime.spawn(connection);
    client
}

struct Handle {
    pool: Pool,
    client: Option<Client>,
}

impl PostgresPort for Pool {
    fn open(&self, address: &str) -> Result<Box<dyn PostgresConnection>, PortError> {
        if *address != *self.address {
            return Err(PortError::Away("there is no such server".into()));
        }
        let resting = self.resting.borrow_mut().pop();
        let client = resting.unwrap_or_else(|| connect(&self.runtime, address));
        Ok(Box::new(Handle { pool: self.clone(), client: Some(client) }))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(client) = self.client.take().filter(|client| !client.is_closed()) {
            self.pool.resting.borrow_mut().push(client);
        }
    }
}

#[derive(Debug)]
struct Nothing;

impl ToSql for Nothing {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Ok(IsNull::Yes)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

fn given(parameters: &[Bound]) -> Vec<Box<dyn ToSql + Sync + Send>> {
    let bound = |bound: &Bound| -> Box<dyn ToSql + Sync + Send> {
        match bound {
            Bound::Null => Box::new(Nothing),
            Bound::Boolean(flag) => Box::new(*flag),
            Bound::Int16(number) => Box::new(*number),
            Bound::Int32(number) => Box::new(*number),
            Bound::Int64(number) => Box::new(*number),
            Bound::Float32(number) => Box::new(*number),
            Bound::Float64(number) => Box::new(*number),
            Bound::Text(text) => Box::new(text.clone()),
            Bound::Bytes(bytes) => Box::new(bytes.clone()),
        }
    };
    parameters.iter().map(bound).collect()
}

fn cell(row: &Row, index: usize) -> Cell {
    fn get<'a, T: FromSql<'a>>(row: &'a Row, index: usize, value: impl Fn(T) -> Value) -> Cell {
        Some(row.get::<_, Option<T>>(index).map_or(Value::Null, value))
    }
    match *row.columns()[index].type_() {
        Type::BOOL => get(row, index, |flag: bool| Value::Integer(flag.into())),
        Type::INT2 => get(row, index, |number: i16| Value::Integer(number.into())),
        Type::INT4 => get(row, index, |number: i32| Value::Integer(number.into())),
        Type::INT8 => get(row, index, Value::Integer),
        Type::FLOAT4 => get(row, index, |number: f32| Value::Real(number.into())),
        Type::FLOAT8 => get(row, index, Value::Real),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => get(row, index, Value::Text),
        Type::BYTEA => get(row, index, Value::Blob),
        _ => None,
    }
}

impl PostgresConnection for Handle {
    fn query(&self, sql: &str, parameters: &[Bound]) -> Result<Vec<Vec<Cell>>, PortError> {
        let given = given(parameters);
        let borrowed: Vec<&(dyn ToSql + Sync)> = given.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        let rows = self.pool.runtime.block_on(self.client.as_ref().unwrap().query(sql, &borrowed));
        let rows = rows.map_err(|error| PortError::Said(format!("{error:?}")))?;
        assert!(!rows.is_empty(), "Spin 4.0 never answers where there is no row: {sql}");
        Ok(rows.iter().map(|row| (0..row.len()).map(|index| cell(row, index)).collect()).collect())
    }

    fn execute(&self, sql: &str, parameters: &[Bound]) -> Result<u64, PortError> {
        let given = given(parameters);
        let borrowed: Vec<&(dyn ToSql + Sync)> = given.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        let changed = self.pool.runtime.block_on(self.client.as_ref().unwrap().execute(sql, &borrowed));
        changed.map_err(|error| PortError::Said(format!("{error:?}")))
    }
}
