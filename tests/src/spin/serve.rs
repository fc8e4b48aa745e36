//! Requests to the component: what Spin makes of their heads, and an instance for each.

use std::net::SocketAddr;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme as WasiScheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error, WasiHttpView as _};

use super::host::Shared;
use super::instance::Instance;

/// Answered by Spin itself.
const HEALTH: &str = "/.well-known/spin/health";

fn plain(status: StatusCode, body: &'static str) -> Response<HyperOutgoingBody> {
    let body = if body.is_empty() {
        Empty::new().map_err(Error::from).boxed_unsync()
    } else {
        Full::from(body).map_err(Error::from).boxed_unsync()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// Answers a request as Spin does: an instance that fails before its answer is an empty 500.
pub async fn serve(shared: Arc<Shared>, client: SocketAddr, request: Request<Incoming>) -> Response<HyperOutgoingBody> {
    if request.uri().path() == HEALTH {
        return plain(StatusCode::OK, "OK");
    }
    match run(shared, client, request).await {
        Ok(response) => response,
        Err(error) => {
            eprintln!("fake of Spin: {error:?}");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "")
        }
    }
}

async fn run(shared: Arc<Shared>, client: SocketAddr, request: Request<Incoming>) -> wasmtime::Result<Response<HyperOutgoingBody>> {
    let request = prepare(request, client)?;
    let Ok(place) = shared.places.clone().try_acquire_owned() else {
        let most = shared.settings.instances_max;
        wasmtime::bail!("maximum concurrent limit of {most} for component instances reached");
    };
    let mut store = Store::new(shared.component.engine(), Instance::new(shared.clone(), place)?);
    let instance = shared.component.instantiate_async(&mut store).await?;
    let (sender, receiver) = oneshot::channel();
    let request = store.data_mut().http().new_incoming_request(WasiScheme::Http, request)?;
    let out = store.data_mut().http().new_response_outparam(sender)?;
    // It goes on after its answer has begun, and after its client has gone.
    let call = shared.spawn(async move { instance.wasi_http_incoming_handler().call_handle(&mut store, request, out).await });
    match receiver.await {
        Ok(response) => Ok(response?),
        Err(_) => match call.await_end().await {
            Ok(()) => wasmtime::bail!("the component gave no answer"),
            Err(error) => Err(error),
        },
    }
}

/// The request with an absolute address, and with what Spin tells a component in headers.
fn prepare(mut request: Request<Incoming>, client: SocketAddr) -> wasmtime::Result<Request<Incoming>> {
    let host = match request.headers().get(http::header::HOST) {
        Some(host) => std::str::from_utf8(host.as_bytes())?.to_owned(),
        None => "localhost".into(),
    };
    let target = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers() {
        // A value that is no text fails the request.
        std::str::from_utf8(value.as_bytes())?;
        headers.append(name.clone(), value.clone());
    }
    let told = [
        ("spin-path-info", request.uri().path().to_owned()),
        ("spin-full-url", format!("http://{host}{target}")),
        ("spin-matched-route", "/...".into()),
        ("spin-base-path", "/".into()),
        ("spin-raw-component-route", "/...".into()),
        ("spin-component-route", String::new()),
        ("spin-client-addr", client.to_string()),
    ];
    for (name, value) in told {
        headers.append(name, HeaderValue::try_from(value)?);
    }
    *request.headers_mut() = headers;
    let authority: Authority = host.parse()?;
    *request.uri_mut() = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(target).build()?;
    Ok(request)
}
