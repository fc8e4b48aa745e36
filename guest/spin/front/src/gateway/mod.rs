//! What a gateway asks (`syncline_spin_wire`): which mounts there are, calls for the sockets that it holds, and what was published.

mod calls;
mod convert;
mod poll;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use syncline_spin_wire as wire;

use crate::answers::{self, send_whole};
use crate::bindings::syncline::host::types::{Header, RequestHead};
use crate::bindings::syncline::sync::http::BodyIn;
use crate::body::Body;
use crate::front::{Deployment, Front};
use crate::head::{announced_bytes, bearer, is_same};
use crate::log::{Level, log, words};
use crate::mount::hex;
use crate::ports::{Clock, Exchange};

/// Where the paths of gateways begin.
pub(crate) const PREFIX: &str = wire::PREFIX;

/// Why a gateway gets no answer of the wire.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// What it says cannot be read.
    #[error(transparent)]
    Decode(#[from] wire::DecodeError),
    /// What is to be said cannot be written.
    #[error(transparent)]
    Encode(#[from] wire::EncodeError),
    /// Data cannot be reached.
    #[error("{0}")]
    Unavailable(String),
}

impl From<crate::bindings::syncline::spin::adapter::Error> for Refused {
    fn from(error: crate::bindings::syncline::spin::adapter::Error) -> Self {
        Self::Unavailable(words(&error).to_owned())
    }
}

impl Refused {
    fn status(&self) -> u16 {
        match self {
            Self::Decode(wire::DecodeError::TooLarge { .. }) => 413,
            Self::Decode(_) => 400,
            Self::Encode(_) => 500,
            Self::Unavailable(_) => 503,
        }
    }
}

impl<C: Clock> Front<C> {
    /// Answers a gateway.
    pub(crate) async fn of_gateway(&self, deployment: &Deployment, head: &RequestHead, exchange: &mut impl Exchange) {
        let Some(secret) = &deployment.config.gateway_secret else { return answers::send_status(exchange, 404).await };
        if !bearer(&head.headers).is_some_and(|presented| is_same(secret.expose(), presented)) {
            return answers::send_status(exchange, 401).await;
        }
        if ![wire::MOUNTS, wire::CALLS, wire::POLL].contains(&head.path.as_str()) {
            return answers::send_status(exchange, 404).await;
        }
        if head.method != "POST" {
            return answers::send_status(exchange, 405).await;
        }
        let body = Body::new(exchange, &self.clock).read_inline(wire::REQUEST_BYTES_MAX as u64, announced_bytes(head)).await;
        let body = match body {
            Ok(BodyIn::Bytes(bytes)) => bytes,
            Ok(BodyIn::Failed(_)) => return answers::send_status(exchange, 413).await,
            Ok(_) => Vec::new(),
            Err(_) => return answers::send_status(exchange, 400).await,
        };
        let answered = match head.path.as_str() {
            wire::MOUNTS => self.described(deployment, &body),
            wire::POLL => self.polled(deployment, &body).await,
            _ => match wire::decode::<wire::Calls>(&body, wire::REQUEST_BYTES_MAX) {
                Ok(calls) => return self.called(deployment, calls, exchange).await,
                Err(error) => Err(error.into()),
            },
        };
        match answered {
            Ok(answer) => send_whole(exchange, 200, headers(), answer, true).await,
            Err(error) => refuse(&error, exchange).await,
        }
    }

    /// The mounts.
    fn described(&self, deployment: &Deployment, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let wire::Hello { gateway: _ } = wire::decode(body, wire::REQUEST_BYTES_MAX)?;
        let names: Vec<String> = deployment.mounts.iter().map(|mount| mount.name.clone()).collect();
        let positions = self.adapter.positions(&names)?;
        let mounts = deployment.mounts.iter().zip(positions).map(|(mount, position)| wire::MountPlan {
            name: mount.name.clone(),
            protocol: mount.protocol.clone(),
            path: mount.path.clone().or_else(|| mount.plan.routes.first().map(|route| route.path.clone())).unwrap_or_default(),
            plan: convert::plan(&mount.plan),
            position,
        });
        let answer = wire::Deployment { revision: deployment.revision(), sent_topic: self.adapter.sent_topic(), mounts: mounts.collect() };
        encoded(&answer)
    }
}

impl Deployment {
    /// Another one where anything that a gateway knows of it may be another.
    fn revision(&self) -> String {
        let mut digest = Sha256::new();
        for text in self.mounts.iter().flat_map(|mount| [&mount.name, &mount.revision]) {
            digest.update(text.len().to_le_bytes());
            digest.update(text);
        }
        hex(&digest.finalize())
    }
}

fn encoded(answer: &impl Serialize) -> Result<Vec<u8>, Refused> {
    Ok(wire::encode(answer, wire::ANSWER_BYTES_MAX)?)
}

fn headers() -> Vec<Header> {
    vec![Header { name: "content-type".into(), value: wire::CONTENT_TYPE.into() }]
}

async fn refuse(error: &Refused, exchange: &mut impl Exchange) {
    log(Level::Warn, None, "a gateway was refused", error);
    let headers = vec![Header { name: "content-type".into(), value: b"text/plain; charset=utf-8".to_vec() }];
    send_whole(exchange, error.status(), headers, error.to_string().into_bytes(), true).await;
}
