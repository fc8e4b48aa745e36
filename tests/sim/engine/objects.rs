//! Simulated object storage: durable when a write returns, and away now and then.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::RngExt as _;
use rand::rngs::StdRng;
use syncline::runtime::environment::Environment as _;
use syncline::storage::memory::{MemoryKeyValue, MemoryObjects};
use syncline::storage::{ObjectInfo, ObjectWriter, Objects, OpenObject, Storage, StorageError};

use super::faults::up_to_ms;
use super::world::World;

/// The storage of a run. It outlives the processes that use it.
pub fn storage(world: &Arc<World>) -> Storage {
    let clock = |world: &Arc<World>| {
        let world = world.clone();
        move || world.now_ms()
    };
    let objects = SimulatedObjects {
        world: world.clone(),
        inner: MemoryObjects::with_clock(clock(world)),
        random: Mutex::new(world.random(0x0b7e_c700)),
    };
    Storage { keyvalue: Arc::new(MemoryKeyValue::with_clock(clock(world))), objects: Arc::new(objects) }
}

struct SimulatedObjects {
    world: Arc<World>,
    inner: MemoryObjects,
    random: Mutex<StdRng>,
}

impl SimulatedObjects {
    /// Takes its time, and may fail before anything happened.
    async fn attempt(&self, what: &str, key: &str) -> Result<(), StorageError> {
        if self.world.is_calm() {
            return Ok(());
        }
        let faults = &self.world.faults;
        let (wait, fails) = {
            let mut random = self.random.lock();
            (up_to_ms(&mut random, faults.object_ms), faults.object_failures > 0.0 && random.random_bool(faults.object_failures))
        };
        tokio::time::sleep(wait).await;
        if fails {
            self.world.note(format_args!("{what} of object {key}: away"));
            return Err(StorageError::Unavailable("simulated".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl Objects for SimulatedObjects {
    async fn head(&self, mount: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        self.attempt("head", key).await?;
        self.inner.head(mount, key).await
    }

    async fn read(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<Bytes, StorageError> {
        self.attempt("read", key).await?;
        self.inner.read(mount, key, range).await
    }

    async fn write(&self, mount: &str, key: &str, content_type: &str, content: Bytes) -> Result<ObjectInfo, StorageError> {
        self.attempt("write", key).await?;
        self.world.note(format_args!("object {key} of {} bytes", content.len()));
        self.inner.write(mount, key, content_type, content).await
    }

    async fn open(&self, mount: &str, key: &str, range: Option<(u64, u64)>) -> Result<OpenObject, StorageError> {
        self.attempt("open", key).await?;
        self.inner.open(mount, key, range).await
    }

    async fn create(&self, mount: &str, key: &str, content_type: &str) -> Result<Box<dyn ObjectWriter>, StorageError> {
        self.attempt("create", key).await?;
        self.world.note(format_args!("object {key} in pieces"));
        self.inner.create(mount, key, content_type).await
    }

    async fn delete(&self, mount: &str, key: &str) -> Result<(), StorageError> {
        self.attempt("delete", key).await?;
        self.inner.delete(mount, key).await
    }

    async fn list(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, StorageError> {
        self.attempt("list", prefix).await?;
        self.inner.list(mount, prefix, after, limit).await
    }

    async fn ready(&self) -> Result<(), StorageError> {
        Ok(())
    }
}
