//! What an instance of the component has: it lives as long as one request.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::host::Shared;
use super::outbound::Outbound;

/// Open handles of a kind that an instance may have.
pub const HANDLES_MAX: usize = 256;
/// Bytes of a result that Spin keeps in memory.
pub const RESULT_BYTES_MAX: usize = 128 << 20;

/// What belongs to one request.
pub struct Instance {
    /// Its handles.
    pub table: ResourceTable,
    /// What it shares with all others.
    pub shared: Arc<Shared>,
    /// Handles of SQLite that it has.
    pub sqlite_handles: usize,
    /// Handles of key-value stores that it has.
    pub stores: usize,
    /// Handles of Redis that it has.
    pub redis_handles: usize,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
    _place: OwnedSemaphorePermit,
}

impl Instance {
    /// A fresh one, in a place of the pool.
    pub fn new(shared: Arc<Shared>, place: OwnedSemaphorePermit) -> wasmtime::Result<Self> {
        let mut wasi = WasiCtx::builder();
        wasi.inherit_stdout().inherit_stderr();
        if let Some(files) = &shared.settings.files {
            wasi.preopened_dir(files, "/", FsPerms::ReadOnly)?;
        }
        Ok(Self {
            table: ResourceTable::new(),
            shared,
            sqlite_handles: 0,
            stores: 0,
            redis_handles: 0,
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outbound: Outbound,
            _place: place,
        })
    }
}

impl WasiView for Instance {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Instance {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}
