//! WebSockets: the handshake, and what becomes of it.

mod socket;
mod task;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, StatusCode};
use sha1::{Digest as _, Sha1};

use super::limiter::Visitor;
use super::requests::{Answer, HEADERS_MAX, from_mount, request_head, status, too_many};
use super::{Shared, loggable};
use crate::runtime::plans::UpgradeAnswer;
use crate::runtime::queue::Frame;
use crate::runtime::wit_types::Header;
use crate::runtime::{MountCore, Upgraded};
use socket::Socket;
use task::{SocketTask, outgoing, see_off};

/// What RFC 6455 appends to a key before it is hashed.
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a request asks for a WebSocket.
pub(crate) fn is_upgrade(request: &Request<Incoming>) -> bool {
    let names = |name: HeaderName, token: &str| {
        let values = request.headers().get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    names(CONNECTION, "upgrade") && names(UPGRADE, "websocket")
}

/// Answers an upgrade; where it is accepted, a task serves the socket from then on.
pub(crate) async fn upgrade(mut request: Request<Incoming>, visitor: &Visitor, mount: &Arc<MountCore>, shared: &Arc<Shared>) -> Answer {
    if request.method() != Method::GET {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    if request.headers().get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = status(StatusCode::UPGRADE_REQUIRED);
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return answer;
    }
    let Some(accept_key) = accept_key(request.headers()) else { return status(StatusCode::BAD_REQUEST) };
    // Behind a proxy the connections of an address are the sockets of its clients.
    let permit = match visitor.permit() {
        Ok(permit) => permit,
        Err(retry_after) => return too_many(Some(mount.as_ref()), retry_after),
    };
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (parts, _body) = request.into_parts();
    let switching = |headers: &[Header], subprotocol: Option<&str>| switching_protocols(&accept_key, headers, subprotocol);
    match mount.upgrade(request_head(&parts, &visitor.client)).await {
        Upgraded::Accepted { connection, subprotocol, headers, closing } => {
            if closing {
                visitor.failed_login();
            }
            mount.metrics.connected(&mount.name);
            let (mount, shared, flow) = (mount.clone(), shared.clone(), visitor.flow.clone());
            tokio::spawn(async move {
                let code = match accept(on_upgrade).await {
                    Some(socket) => SocketTask::new(socket, connection.clone(), &mount, flow).run().await,
                    None => 1006,
                };
                mount.disconnected(connection, code);
                drop((shared, permit));
            });
            switching(&headers, subprotocol.as_deref())
        }
        Upgraded::Refused(response) => {
            let response = mount.refusal(*response);
            tracing::info!(mount = mount.name, status = response.status, request = ?loggable(&parts), "an upgrade was refused");
            from_mount(response, visitor)
        }
        Upgraded::Host(UpgradeAnswer::Status(code)) => {
            tracing::info!(mount = mount.name, status = code, request = ?loggable(&parts), "an upgrade was refused by the host");
            status(StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE))
        }
        Upgraded::Host(UpgradeAnswer::Close((frames, close))) => {
            tracing::info!(mount = mount.name, code = close.code, request = ?loggable(&parts), "an upgrade was closed by the host");
            tokio::spawn(async move {
                if let Some(mut socket) = accept(on_upgrade).await {
                    frames.into_iter().map(Frame::from).map(outgoing).for_each(|frame| socket.queue(frame));
                    see_off(socket, &close.into(), false).await;
                }
                drop(permit);
            });
            switching(&[], None)
        }
    }
}

/// The answer to the one key of a handshake: 16 bytes in base64.
fn accept_key(headers: &HeaderMap) -> Option<String> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none())?.as_bytes();
    let random = STANDARD.decode(key).ok()?;
    (random.len() == 16).then(|| STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize()))
}

async fn accept(on_upgrade: OnUpgrade) -> Option<Socket> {
    match on_upgrade.await {
        Ok(upgraded) => Some(Socket::new(upgraded)),
        Err(error) => {
            tracing::debug!(%error, "an upgrade was not completed");
            None
        }
    }
}

fn switching_protocols(accept_key: &str, headers: &[Header], subprotocol: Option<&str>) -> Answer {
    let mut answer = status(StatusCode::SWITCHING_PROTOCOLS);
    let all = answer.headers_mut();
    all.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    all.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(value) = HeaderValue::try_from(accept_key) {
        all.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    if let Some(value) = subprotocol.and_then(|subprotocol| HeaderValue::try_from(subprotocol).ok()) {
        all.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    for header in headers.iter().take(HEADERS_MAX) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(header.name.as_str()), HeaderValue::from_bytes(&header.value)) {
            all.append(name, value);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes_in_base64_and_there_is_one() {
        let accepted = |keys: &[&str]| {
            let mut headers = HeaderMap::new();
            for key in keys {
                headers.append(SEC_WEBSOCKET_KEY, key.parse().unwrap());
            }
            accept_key(&headers)
        };
        // The example of RFC 6455.
        assert_eq!(accepted(&["dGhlIHNhbXBsZSBub25jZQ=="]).as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for keys in [
            &[][..],
            &[""],
            &["x"],
            &["dGhlIHNhbXBsZSBub25jZQ"],
            &["dGhlIHNhbXBsZSBub25j"],
            &["dGhlIHNhbXBsZSBub25jZQ==="],
            &["dGhlIHNhbXBsZSBub25jZSE="],
            &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="],
        ] {
            assert_eq!(accepted(keys), None, "{keys:?}");
        }
    }
}
