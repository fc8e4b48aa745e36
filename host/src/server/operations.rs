//! What the process answers for itself: `/healthz`, `/readyz`, `/metrics`.

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use subtle::ConstantTimeEq as _;

use super::Shared;
use super::requests::{Answer, status};

/// Whether a path is one of the process itself.
pub(crate) fn is_for_process(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
}

/// Whether whoever asks needs no right: who watches the process must always get an answer.
pub(crate) fn is_open(path: &str) -> bool {
    path != "/metrics"
}

/// The answer to a path of the process itself.
pub(crate) async fn answer(path: &str, method: &Method, headers: &HeaderMap, shared: &Shared) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    match path {
        "/healthz" => json(StatusCode::OK, &serde_json::json!({"status": "ok"})),
        "/readyz" => ready(shared).await,
        _ if !may_administrate(headers, shared) => status(StatusCode::UNAUTHORIZED),
        _ => metrics(shared).await,
    }
}

async fn ready(shared: &Shared) -> Answer {
    if *shared.stopping.borrow() {
        return json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({"status": "stopping"}));
    }
    let problems = shared.runtime.ready().await;
    if problems.is_empty() {
        return json(StatusCode::OK, &serde_json::json!({"status": "ready"}));
    }
    for (backend, problem) in &problems {
        tracing::warn!(backend, problem, "not ready");
    }
    let failed: Vec<_> = problems.into_iter().map(|(backend, _)| backend).collect();
    json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({"status": "unavailable", "failed": failed}))
}

async fn metrics(shared: &Shared) -> Answer {
    match shared.runtime.metrics_text().await {
        Ok(text) => {
            let mut answer = Response::new(Bytes::from(text).into());
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
            answer
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            status(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// Whether a request may see what is meant for whoever runs the server.
fn may_administrate(headers: &HeaderMap, shared: &Shared) -> bool {
    let Some(expected) = &shared.admin_token else { return true };
    let presented = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
    });
    presented.is_some_and(|presented| bool::from(presented.ct_eq(expected.as_bytes())))
}

fn json(code: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Bytes::from(value.to_string()).into());
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
