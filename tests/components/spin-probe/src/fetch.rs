//! Requests of the component's own.

use serde_json::{Value, json};
use wasi::http::outgoing_handler::handle;
use wasi::http::types::{Fields, OutgoingRequest, Scheme};

/// A GET over plain HTTP: status and body.
pub fn get(authority: &str, path: &str) -> Result<Value, String> {
    let request = OutgoingRequest::new(Fields::new());
    let set = request.set_scheme(Some(&Scheme::Http)).and_then(|()| request.set_authority(Some(authority)));
    set.and_then(|()| request.set_path_with_query(Some(path))).map_err(|()| "no such address".to_owned())?;
    let answer = handle(request, None).map_err(|error| format!("{error:?}"))?;
    answer.subscribe().block();
    let answer = answer.get().expect("it is there").expect("it was not taken").map_err(|error| format!("{error:?}"))?;
    let body = answer.consume().expect("a body is taken once");
    let stream = body.stream().expect("a stream is taken once");
    Ok(json!({"status": answer.status(), "body": String::from_utf8_lossy(&crate::read(&stream))}))
}
