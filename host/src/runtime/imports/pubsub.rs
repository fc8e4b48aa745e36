//! `syncline:host/pubsub`: topics of the mount, and durable jobs.

use crate::runtime::bindings::guest::syncline::host::pubsub::{Host, Member, Publication, Subscription};
use crate::runtime::bindings::guest::syncline::host::types::Frame;
use crate::runtime::effect::{Deferred, Effect};
use crate::runtime::limits::{JOB_BYTES_MAX, Weight};
use crate::runtime::state::State;

impl Host for State {
    async fn publish(&mut self, publication: Publication) -> wasmtime::Result<()> {
        self.call()?.effect(Effect::Publish(publication))
    }

    async fn subscribe(&mut self, connection: u64, subscription: Subscription) -> wasmtime::Result<()> {
        let (mount, request) = (self.mount()?, self.call()?.request);
        if request == Some(connection) {
            mount.request_connection(connection);
        }
        mount.subscribe(connection, subscription).map_err(wasmtime::Error::msg)
    }

    async fn unsubscribe(&mut self, connection: u64, topic: String) -> wasmtime::Result<()> {
        self.mount()?.unsubscribe(connection, &topic);
        Ok(())
    }

    async fn members(&mut self, topic: String) -> wasmtime::Result<Vec<Member>> {
        Ok(self.mount()?.members(&topic))
    }

    async fn send(&mut self, connection: u64, frame: Frame) -> wasmtime::Result<()> {
        self.call()?.effect(Effect::Send { connection, frame: frame.into() })
    }

    async fn schedule(&mut self, name: String, due: u64, payload: Vec<u8>) -> wasmtime::Result<()> {
        if name.len().max(payload.len()) > JOB_BYTES_MAX {
            return Err(wasmtime::Error::msg(format!("the name or payload of a job has more than {JOB_BYTES_MAX} bytes")));
        }
        self.call()?.taken.add(Weight { pieces: 1, bytes: name.len() + payload.len() })?;
        // The contract promises that the job is on disk now and has no way to say that it is not: fail the call.
        self.mount()?.jobs.schedule(&self.mount()?.name, &name, due, payload).await.map_err(wasmtime::Error::from)
    }

    async fn cancel(&mut self, name: String) -> wasmtime::Result<()> {
        self.call()?.effect(Effect::Deferred(Deferred::CancelJob { name }))
    }
}
