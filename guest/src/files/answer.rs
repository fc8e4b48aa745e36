//! Which file a path means, and how it goes out.

use super::plan::PREFIX;
use super::settings::{Settings, is_name};
use crate::encoding::percent_decode_or_raw;
use crate::http::{compress, header, header_list, text_response};
use crate::imports::{Imports, Level, ObjectInfo, RequestHead, StorageError};
use crate::registry::{BodyOut, Response, empty_response};

/// Larger files are streamed by the host, and not compressed.
const INLINE_BYTES_MAX: u64 = 1 << 20;
/// The one name with a dot that is meant for others (RFC 8615), at the root.
const WELL_KNOWN: &str = ".well-known";

/// What is found at a path.
enum Found {
    File(String, ObjectInfo),
    /// A folder, asked for without its slash: relative links of its page would lead elsewhere.
    Folder,
    Nothing,
}

/// Answers a GET or HEAD.
pub fn answer(settings: &Settings, imports: Imports<'_>, head: &RequestHead) -> Response {
    let answered = find(settings, imports, &head.path).and_then(|found| match found {
        Found::File(key, info) => file(settings, imports, head, key, &info),
        Found::Folder => Ok(redirect(head)),
        Found::Nothing => Ok(text_response(404, "not found")),
    });
    let mut response = match answered {
        Ok(response) => response,
        // It was there a moment ago.
        Err(StorageError::NotFound) => text_response(404, "not found"),
        Err(error) => {
            imports.effects.log(
                Level::Warn,
                "files: a file cannot be read",
                &serde_json::json!({"error": format!("{error:?}")}).to_string(),
            );
            let mut response = text_response(503, "unavailable");
            response.headers.push(header("retry-after", "1"));
            response
        }
    };
    response.headers.push(header("x-content-type-options", "nosniff"));
    response.headers.extend(settings.headers.iter().map(|(name, value)| header(name, value.as_str())));
    response
}

/// The path of a file below the folder, empty or with a slash at its end where a folder is asked for; none where no file has
/// such a path.
fn relative(settings: &Settings, raw_path: &str) -> Option<String> {
    let path = percent_decode_or_raw(raw_path);
    let below = path.strip_prefix(&settings.path)?;
    let below = below.strip_prefix('/').unwrap_or(below);
    let names = below.strip_suffix('/').unwrap_or(below);
    let fits = |(index, name): (usize, &str)| is_name(name) || index == 0 && name == WELL_KNOWN;
    (names.is_empty() && below.is_empty() || names.split('/').enumerate().all(fits)).then(|| below.to_owned())
}

fn find(settings: &Settings, imports: Imports<'_>, raw_path: &str) -> Result<Found, StorageError> {
    let Some(relative) = relative(settings, raw_path) else { return Ok(Found::Nothing) };
    if relative.is_empty() && !raw_path.ends_with('/') {
        return Ok(Found::Folder);
    }
    let is_folder = relative.is_empty() || relative.ends_with('/');
    let look = |relative: &str| {
        let key = format!("{PREFIX}{relative}");
        match imports.storage.head_object(&key) {
            Ok(info) => Ok(Some(Found::File(key, info))),
            Err(StorageError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let named = if is_folder { format!("{relative}{}", settings.index) } else { relative.clone() };
    if let Some(found) = look(&named)? {
        return Ok(found);
    }
    if !is_folder && look(&format!("{relative}/{}", settings.index))?.is_some() {
        return Ok(Found::Folder);
    }
    let is_page = !relative.rsplit('/').next().is_some_and(|last| last.contains('.'));
    match settings.fallback.as_ref().filter(|_| is_page) {
        Some(fallback) => Ok(look(fallback)?.unwrap_or(Found::Nothing)),
        None => Ok(Found::Nothing),
    }
}

/// To the same path with a slash. It has no empty segments, so it names no other host.
fn redirect(head: &RequestHead) -> Response {
    let query = head.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = empty_response(308);
    response.headers.push(header("location", format!("{}/{query}", head.path)));
    response
}

fn file(settings: &Settings, imports: Imports<'_>, head: &RequestHead, key: String, info: &ObjectInfo) -> Result<Response, StorageError> {
    // Weak: it goes out in gzip, too.
    let etag = format!("W/\"{}\"", info.etag);
    let headers = vec![header("cache-control", settings.cache_control.as_str()), header("etag", etag.as_str())];
    let known = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag.strip_prefix("W/").unwrap_or(&etag);
    if header_list(head, "if-none-match").any(known) {
        return Ok(Response { headers, ..empty_response(304) });
    }
    let mut response = Response { headers, ..empty_response(200) };
    response.headers.push(header("content-type", info.content_type.as_str()));
    if info.size > INLINE_BYTES_MAX {
        response.body = BodyOut::Object((key, None));
        return Ok(response);
    }
    response.body = BodyOut::Bytes(imports.storage.read_object(&key, None)?);
    if is_text(&info.content_type) {
        compress(head, &mut response);
    }
    Ok(response)
}

/// Whether it becomes smaller by compression.
fn is_text(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default();
    let others = ["application/json", "application/manifest+json", "application/wasm", "application/xml", "image/svg+xml"];
    kind.starts_with("text/") || others.contains(&kind)
}
