//! A component for Spin that does what a request says. `POST /run` takes a list of steps (`steps` knows them) and gives the
//! list of their results; `/head` tells what the request looked like; `/stream`, `/hold` and `/trap` answer in parts or not at all.
#![allow(unsafe_code, reason = "the export macro of the bindings defines the component's entry points")]

/// Generated from `wit/deps/fermyon-spin/`.
#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit/deps/fermyon-spin",
        inline: "
            package syncline:spin-probe;
            world probe {
                import fermyon:spin/sqlite@2.0.0;
                import fermyon:spin/key-value@2.0.0;
                import fermyon:spin/variables@2.0.0;
                import fermyon:spin/redis@2.0.0;
                import fermyon:spin/postgres@2.0.0;
            }
        ",
        world: "syncline:spin-probe/probe",
        generate_all,
    });
}

mod fetch;
mod rows;
mod steps;

use serde_json::{Value, json};
use wasi::clocks::monotonic_clock::subscribe_duration;
use wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasi::io::streams::{InputStream, OutputStream, StreamError};

struct Probe;

wasi::http::proxy::export!(Probe);

/// How long `/hold` waits between two comments.
const PAUSE_NS: u64 = 20_000_000;

impl wasi::exports::http::incoming_handler::Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match path.split('?').next().unwrap_or_default() {
            "/run" => {
                let body = request.consume().expect("a body is taken once");
                let stream = body.stream().expect("a stream is taken once");
                let steps: Value = serde_json::from_slice(&read(&stream)).unwrap_or_default();
                answer(out, 200, steps::run(steps.as_array().map_or(&[], Vec::as_slice)));
            }
            "/head" => answer(out, 200, head(&request)),
            "/stream" => {
                let mut text = begin(out);
                write(&mut text.1, b"first\n").expect("the client listens");
                assert!(!path.contains("trap"), "as asked");
                write(&mut text.1, b"second\n").expect("the client listens");
                drop(text.1);
                OutgoingBody::finish(text.0, None).expect("nothing was promised");
            }
            "/hold" => {
                let (_body, mut stream) = begin(out);
                while write(&mut stream, b": here\n\n").is_ok() {
                    subscribe_duration(PAUSE_NS).block();
                }
            }
            "/trap" => panic!("as asked"),
            _ => answer(out, 404, Value::Null),
        }
    }
}

/// The whole of a body.
fn read(stream: &InputStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(piece) = stream.blocking_read(1 << 16) {
        bytes.extend(piece);
    }
    bytes
}

fn head(request: &IncomingRequest) -> Value {
    let headers = request.headers().entries();
    let headers: Vec<_> = headers.iter().map(|(name, value)| json!([name, String::from_utf8_lossy(value)])).collect();
    json!({
        "method": format!("{:?}", request.method()),
        "path": request.path_with_query(),
        "authority": request.authority(),
        "scheme": request.scheme().map(|scheme| format!("{scheme:?}")),
        "headers": headers,
    })
}

/// An answer whose body comes bit by bit.
fn begin(out: ResponseOutparam) -> (OutgoingBody, OutputStream) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("a body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("a stream is taken once");
    (body, stream)
}

fn write(stream: &mut OutputStream, bytes: &[u8]) -> Result<(), StreamError> {
    stream.blocking_write_and_flush(bytes)
}

fn answer(out: ResponseOutparam, status: u16, value: Value) {
    let text = value.to_string();
    let headers = Fields::from_list(&[("content-length".into(), text.len().to_string().into())]).expect("a header as in HTTP");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("a status as in HTTP");
    let body = response.body().expect("a body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("a stream is taken once");
    for piece in text.as_bytes().chunks(4096) {
        if stream.blocking_write_and_flush(piece).is_err() {
            return;
        }
    }
    drop(stream);
    OutgoingBody::finish(body, None).expect("as long as its header said");
}
