//! Redis as Spin gives it: a connection for each handle, and lists within lists as one list.

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, AsyncConnectionConfig, RedisError, Value};
use wasmtime::component::Resource;

use super::bindings::fermyon::spin::redis as spin;
use super::instance::{HANDLES_MAX, Instance};

/// A handle.
pub struct Connection(MultiplexedConnection);

type Answer<T> = wasmtime::Result<Result<T, spin::Error>>;

fn other(error: impl std::fmt::Display) -> spin::Error {
    spin::Error::Other(error.to_string())
}

fn of_set(error: RedisError) -> spin::Error {
    match error.kind() {
        redis::ErrorKind::UnexpectedReturnType => spin::Error::TypeError,
        _ => other(error),
    }
}

fn flatten(value: Value, into: &mut Vec<spin::RedisResult>) {
    match value {
        Value::Nil => into.push(spin::RedisResult::Nil),
        Value::Int(number) => into.push(spin::RedisResult::Int64(number)),
        Value::BulkString(bytes) => into.push(spin::RedisResult::Binary(bytes)),
        Value::SimpleString(status) => into.push(spin::RedisResult::Status(status)),
        Value::Okay => into.push(spin::RedisResult::Status("OK".into())),
        Value::Array(values) | Value::Set(values) => values.into_iter().for_each(|value| flatten(value, into)),
        Value::Map(pairs) => pairs.into_iter().flat_map(|(key, value)| [key, value]).for_each(|value| flatten(value, into)),
        Value::Push { data, .. } => data.into_iter().for_each(|value| flatten(value, into)),
        Value::Boolean(value) => into.push(spin::RedisResult::Int64(value.into())),
        Value::Double(number) => into.push(spin::RedisResult::Status(number.to_string())),
        other => into.push(spin::RedisResult::Status(format!("{other:?}"))),
    }
}

impl Instance {
    fn redis(&mut self, handle: &Resource<Connection>) -> wasmtime::Result<&mut MultiplexedConnection> {
        Ok(&mut self.table.get_mut(handle)?.0)
    }
}

impl spin::Host for Instance {}

impl spin::HostConnection for Instance {
    async fn open(&mut self, address: String) -> Answer<Resource<Connection>> {
        if self.redis_handles >= HANDLES_MAX {
            return Ok(Err(spin::Error::TooManyConnections));
        }
        let Ok(client) = redis::Client::open(address) else { return Ok(Err(spin::Error::InvalidAddress)) };
        // Nobody knows how long a command waits.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        match client.get_multiplexed_async_connection_with_config(&config).await {
            Ok(connection) => {
                self.redis_handles += 1;
                Ok(Ok(self.table.push(Connection(connection))?))
            }
            Err(error) => Ok(Err(other(error))),
        }
    }

    async fn publish(&mut self, handle: Resource<Connection>, channel: String, payload: Vec<u8>) -> Answer<()> {
        Ok(self.redis(&handle)?.publish::<_, _, ()>(channel, payload).await.map_err(other))
    }

    async fn get(&mut self, handle: Resource<Connection>, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(self.redis(&handle)?.get(key).await.map_err(other))
    }

    async fn set(&mut self, handle: Resource<Connection>, key: String, value: Vec<u8>) -> Answer<()> {
        Ok(self.redis(&handle)?.set::<_, _, ()>(key, value).await.map_err(other))
    }

    async fn incr(&mut self, handle: Resource<Connection>, key: String) -> Answer<i64> {
        Ok(self.redis(&handle)?.incr(key, 1).await.map_err(other))
    }

    async fn del(&mut self, handle: Resource<Connection>, keys: Vec<String>) -> Answer<u32> {
        Ok(self.redis(&handle)?.del(keys).await.map_err(other))
    }

    async fn sadd(&mut self, handle: Resource<Connection>, key: String, values: Vec<String>) -> Answer<u32> {
        Ok(self.redis(&handle)?.sadd(key, values).await.map_err(of_set))
    }

    async fn smembers(&mut self, handle: Resource<Connection>, key: String) -> Answer<Vec<String>> {
        Ok(self.redis(&handle)?.smembers(key).await.map_err(other))
    }

    async fn srem(&mut self, handle: Resource<Connection>, key: String, values: Vec<String>) -> Answer<u32> {
        Ok(self.redis(&handle)?.srem(key, values).await.map_err(other))
    }

    async fn execute(
        &mut self,
        handle: Resource<Connection>,
        command: String,
        arguments: Vec<spin::RedisParameter>,
    ) -> Answer<Vec<spin::RedisResult>> {
        let mut command = redis::cmd(&command);
        for argument in arguments {
            match argument {
                spin::RedisParameter::Int64(number) => command.arg(number),
                spin::RedisParameter::Binary(bytes) => command.arg(bytes),
            };
        }
        let answered: Result<Value, _> = command.query_async(self.redis(&handle)?).await;
        Ok(answered.map_err(other).map(|value| {
            let mut results = Vec::new();
            flatten(value, &mut results);
            results
        }))
    }

    async fn drop(&mut self, handle: Resource<Connection>) -> wasmtime::Result<()> {
        self.redis_handles -= 1;
        self.table.delete(handle)?;
        Ok(())
    }
}
