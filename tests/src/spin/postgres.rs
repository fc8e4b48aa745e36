//! PostgreSQL as Spin gives it: a pool for each address, into which connections return as they are, transactions included.
//!
//! Spin 4.0 never answers a query that gives no row (spinframework/spin#3671); here that is an error, so that tests need not wait.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, NoTls, Row};
use wasmtime::component::Resource;

use super::bindings::fermyon::spin::{postgres, rdbms_types as types};
use super::instance::Instance;

/// Connections to one address at most; who wants another waits.
const POOL_SIZE: usize = 64;

/// A handle.
pub struct Connection {
    /// Some until it is dropped.
    client: Option<Client>,
    pool: Arc<Pool>,
    _place: OwnedSemaphorePermit,
}

/// The connections to one address.
pub struct Pool {
    idle: Mutex<Vec<Client>>,
    places: Arc<Semaphore>,
}

/// All pools.
#[derive(Default)]
pub struct Pools(Mutex<HashMap<String, Arc<Pool>>>);

impl Pools {
    async fn connect(&self, address: &str) -> Result<Connection, String> {
        let new = || Arc::new(Pool { idle: Mutex::default(), places: Arc::new(Semaphore::new(POOL_SIZE)) });
        let pool = self.0.lock().entry(address.to_owned()).or_insert_with(new).clone();
        let place = pool.places.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let idle = pool.idle.lock().pop().filter(|client| !client.is_closed());
        let client = match idle {
            Some(client) => client,
            None => {
                let (client, connection) = tokio_postgres::connect(address, NoTls).await.map_err(|error| format!("{error:?}"))?;
                tokio::spawn(connection);
                client
            }
        };
        Ok(Connection { client: Some(client), pool, _place: place })
    }
}

impl Connection {
    fn client(&self) -> &Client {
        self.client.as_ref().expect("a handle has a connection until it is dropped")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // No ROLLBACK: the next one gets what was left open.
        self.pool.idle.lock().extend(self.client.take());
    }
}

/// SQL null, of whatever type.
#[derive(Debug)]
struct Null;

impl ToSql for Null {
    fn to_sql(&self, _: &Type, _: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        Ok(IsNull::Yes)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

type Parameter = Box<dyn ToSql + Sync + Send>;

fn parameter(value: types::ParameterValue) -> Result<Parameter, types::Error> {
    use types::ParameterValue as From;
    Ok(match value {
        From::Boolean(value) => Box::new(value),
        From::Int8(value) => Box::new(value),
        From::Int16(value) => Box::new(value),
        From::Int32(value) => Box::new(value),
        From::Int64(value) => Box::new(value),
        From::Floating32(value) => Box::new(value),
        From::Floating64(value) => Box::new(value),
        From::Str(value) => Box::new(value),
        From::Binary(value) => Box::new(value),
        From::DbNull => Box::new(Null),
        From::Uint8(_) | From::Uint16(_) | From::Uint32(_) | From::Uint64(_) => {
            return Err(types::Error::ValueConversionFailed("PostgreSQL has no unsigned numbers".into()));
        }
    })
}

fn data_type(of: &Type) -> types::DbDataType {
    match *of {
        Type::BOOL => types::DbDataType::Boolean,
        Type::BYTEA => types::DbDataType::Binary,
        Type::FLOAT4 => types::DbDataType::Floating32,
        Type::FLOAT8 => types::DbDataType::Floating64,
        Type::INT2 => types::DbDataType::Int16,
        Type::INT4 => types::DbDataType::Int32,
        Type::INT8 => types::DbDataType::Int64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => types::DbDataType::Str,
        _ => types::DbDataType::Other,
    }
}

fn cell(row: &Row, index: usize) -> Result<types::DbValue, tokio_postgres::Error> {
    fn read<'a, T: tokio_postgres::types::FromSql<'a>>(
        row: &'a Row,
        index: usize,
        make: impl FnOnce(T) -> types::DbValue,
    ) -> Result<types::DbValue, tokio_postgres::Error> {
        Ok(row.try_get::<_, Option<T>>(index)?.map_or(types::DbValue::DbNull, make))
    }
    use types::DbValue as To;
    match *row.columns()[index].type_() {
        Type::BOOL => read(row, index, To::Boolean),
        Type::BYTEA => read(row, index, To::Binary),
        Type::FLOAT4 => read(row, index, To::Floating32),
        Type::FLOAT8 => read(row, index, To::Floating64),
        Type::INT2 => read(row, index, To::Int16),
        Type::INT4 => read(row, index, To::Int32),
        Type::INT8 => read(row, index, To::Int64),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR => read(row, index, To::Str),
        _ => Ok(To::Unsupported),
    }
}

/// Spin's words are those of the driver, for whoever debugs it.
fn failed(error: &tokio_postgres::Error) -> types::Error {
    types::Error::QueryFailed(format!("{error:?}"))
}

async fn query(client: &Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<types::RowSet, types::Error> {
    let found = client.query(sql, parameters).await.map_err(|error| failed(&error))?;
    if found.is_empty() {
        return Err(types::Error::Other(format!("no row, and no answer from Spin 4.0: {sql}")));
    }
    let row = |row: &Row| (0..row.len()).map(|index| cell(row, index)).collect();
    let rows = found.iter().map(row).collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    // Spin knows the columns by the first row only.
    let columns = found.first().map_or(&[][..], Row::columns);
    let column = |column: &tokio_postgres::Column| types::Column { name: column.name().into(), data_type: data_type(column.type_()) };
    Ok(types::RowSet { columns: columns.iter().map(column).collect(), rows })
}

impl types::Host for Instance {}

impl postgres::Host for Instance {}

impl postgres::HostConnection for Instance {
    async fn open(&mut self, address: String) -> wasmtime::Result<Result<Resource<Connection>, types::Error>> {
        match self.shared.pools.connect(&address).await {
            Ok(connection) => Ok(Ok(self.table.push(connection)?)),
            Err(error) => Ok(Err(types::Error::ConnectionFailed(error))),
        }
    }

    async fn query(
        &mut self,
        handle: Resource<Connection>,
        sql: String,
        parameters: Vec<types::ParameterValue>,
    ) -> wasmtime::Result<Result<types::RowSet, types::Error>> {
        let parameters: Vec<Parameter> = match parameters.into_iter().map(parameter).collect() {
            Ok(parameters) => parameters,
            Err(error) => return Ok(Err(error)),
        };
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|parameter| &**parameter as _).collect();
        Ok(query(self.table.get(&handle)?.client(), &sql, &parameters).await)
    }

    async fn execute(
        &mut self,
        handle: Resource<Connection>,
        sql: String,
        parameters: Vec<types::ParameterValue>,
    ) -> wasmtime::Result<Result<u64, types::Error>> {
        let parameters: Vec<Parameter> = match parameters.into_iter().map(parameter).collect() {
            Ok(parameters) => parameters,
            Err(error) => return Ok(Err(error)),
        };
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|parameter| &**parameter as _).collect();
        Ok(self.table.get(&handle)?.client().execute(&sql, &parameters).await.map_err(|error| failed(&error)))
    }

    async fn drop(&mut self, handle: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}
