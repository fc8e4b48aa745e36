//! Requests of the component's own, over plain HTTP to anywhere.

use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// Sends them.
pub struct Outbound;

/// What goes on with a connection after the head of its answer.
type Rest = Box<dyn Future<Output = Result<(), Error>> + Send>;

async fn send(request: http::Request<WasiBody>) -> Result<(http::Response<WasiBody>, Rest), Error> {
    let authority = request.uri().authority().ok_or(Error::HttpRequestUriInvalid)?;
    if request.uri().scheme() == Some(&http::uri::Scheme::HTTPS) {
        return Err(Error::HttpRequestDenied);
    }
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.map_err(Error::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driven = tokio::spawn(connection);
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let (mut head, body) = request.into_parts();
    head.uri = target.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let answer = sender.send_request(http::Request::from_parts(head, body)).await?;
    let rest = async move { driven.await.map_err(|_| Error::ConnectionTerminated)?.map_err(Error::from) };
    Ok((answer.map(|body| body.map_err(Error::from).boxed_unsync()), Box::new(rest)))
}

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _failed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Rest), Error>> + Send> {
        Box::new(send(request))
    }
}
