//! Objects in a bucket that speaks S3, named as our own host names them: `MOUNT/KEY`, with what is not a letter, a digit or one of
//! `- _ . /` as `%XX`.

use std::rc::Rc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::signature::{Unsigned, presigned, signed, time_ms};
use crate::bindings::exports::syncline::host::storage::{Error, ObjectInfo};
use crate::ports::{Ports, Reply, Request};
use crate::settings::Bucket;

/// Time for one request, in milliseconds.
const REQUEST_MS: u64 = 60_000;
/// Characters of keys that stay as they are, beside letters and digits.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
/// What stands for nothing between two `/`.
const EMPTY: &str = "%";
/// Longest name of an object in a bucket.
const NAME_BYTES_MAX: usize = 1024;
/// Objects that a store lists at once.
const PAGE_COUNT: usize = 1000;
/// Longest answer that is no object.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// The header that holds the hash of a content.
const SHA256: &str = "x-amz-meta-sha256";

/// See the module.
pub struct BucketClient {
    ports: Rc<Ports>,
    bucket: Bucket,
}

fn segment(text: &str) -> String {
    match text {
        "" => EMPTY.to_owned(),
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => utf8_percent_encode(text, ESCAPED).to_string(),
    }
}

fn encoded(key: &str) -> String {
    key.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// The key of a name; none where it is the name of something else.
fn decoded(name: &str) -> Option<String> {
    let part = |part: &str| match part {
        EMPTY => Some(String::new()),
        _ => percent_decode_str(part).decode_utf8().ok().map(|text| text.into_owned()),
    };
    let key = name.split('/').map(part).collect::<Option<Vec<_>>>()?.join("/");
    (encoded(&key) == name).then_some(key)
}

fn name(mount: &str, key: &str) -> Result<String, Error> {
    let name = format!("{}/{}", segment(mount), encoded(key));
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::Limit("size of a key".into()));
    }
    Ok(name)
}

fn answered(reply: &Reply) -> Error {
    match reply.status {
        404 => Error::NotFound,
        status => Error::Unavailable(format!("the store of objects answered {status}")),
    }
}

impl BucketClient {
    pub(crate) fn new(ports: Rc<Ports>, bucket: Bucket) -> Self {
        Self { ports, bucket }
    }

    fn send(&self, unsigned: Unsigned<'_>, method: &'static str, body: Vec<u8>, answer_bytes_max: Option<usize>) -> Result<Reply, Error> {
        let (url, headers) = signed(&self.bucket, unsigned, &body, self.ports.clock.now_ms());
        let request = Request { method, url, headers, body, timeout_ms: REQUEST_MS, answer_bytes_max };
        self.ports.http.send(&request).map_err(Error::Unavailable)
    }

    /// What is known of an object.
    pub(crate) fn head(&self, mount: &str, key: &str) -> Result<ObjectInfo, Error> {
        let name = name(mount, key)?;
        let unsigned = Unsigned { method: "HEAD", name: Some(&name), query: Vec::new(), headers: Vec::new() };
        let reply = self.send(unsigned, "HEAD", Vec::new(), None)?;
        if reply.status != 200 {
            return Err(answered(&reply));
        }
        let size = reply.header("content-length").and_then(|length| length.parse().ok());
        Ok(ObjectInfo {
            size: size.ok_or_else(|| Error::Unavailable("the store of objects gave no length".into()))?,
            content_type: reply.header("content-type").unwrap_or_default().to_owned(),
            sha256: reply.header(SHA256).map(str::to_owned),
            created: reply.header("last-modified").and_then(time_ms).unwrap_or(0),
            etag: reply.header("etag").unwrap_or_default().trim_matches('"').to_owned(),
        })
    }

    /// A part of an object that is still the one of an `etag`. Not empty.
    pub(crate) fn read(&self, mount: &str, key: &str, etag: &str, start: u64, length: u64) -> Result<Vec<u8>, Error> {
        let name = name(mount, key)?;
        let end = start.saturating_add(length).saturating_sub(1);
        let mut headers = vec![("range".to_owned(), format!("bytes={start}-{end}"))];
        if !etag.is_empty() {
            headers.push(("if-match".to_owned(), format!("\"{etag}\"")));
        }
        let unsigned = Unsigned { method: "GET", name: Some(&name), query: Vec::new(), headers };
        let bytes_max = usize::try_from(length).map_err(|_| Error::Limit("memory".into()))?;
        let reply = self.send(unsigned, "GET", Vec::new(), Some(bytes_max))?;
        match reply.status {
            206 | 200 if reply.body.len() == bytes_max => Ok(reply.body),
            206 | 200 => Err(Error::Unavailable("the store of objects gave another length".into())),
            412 => Err(Error::Unavailable("the object was replaced while it was read".into())),
            _ => Err(answered(&reply)),
        }
    }

    /// Makes or replaces an object.
    pub(crate) fn write(&self, mount: &str, key: &str, content_type: &str, sha256: &str, content: Vec<u8>) -> Result<ObjectInfo, Error> {
        let (name, size) = (name(mount, key)?, content.len() as u64);
        let mut headers = described(content_type);
        headers.push((SHA256.to_owned(), sha256.to_owned()));
        let unsigned = Unsigned { method: "PUT", name: Some(&name), query: Vec::new(), headers };
        let reply = self.send(unsigned, "PUT", content, Some(ANSWER_BYTES_MAX))?;
        if reply.status != 200 {
            return Err(answered(&reply));
        }
        Ok(ObjectInfo {
            size,
            content_type: content_type.to_owned(),
            sha256: Some(sha256.to_owned()),
            created: self.ports.clock.now_ms(),
            etag: reply.header("etag").unwrap_or_default().trim_matches('"').to_owned(),
        })
    }

    /// Begins an object that comes in parts.
    pub(crate) fn begin_parts(&self, mount: &str, key: &str, content_type: &str, sha256: Option<&str>) -> Result<String, Error> {
        let name = name(mount, key)?;
        let mut headers = described(content_type);
        headers.extend(sha256.map(|sha256| (SHA256.to_owned(), sha256.to_owned())));
        let unsigned = Unsigned { method: "POST", name: Some(&name), query: vec![("uploads", String::new())], headers };
        let reply = self.send(unsigned, "POST", Vec::new(), Some(ANSWER_BYTES_MAX))?;
        let id = std::str::from_utf8(&reply.body).ok().and_then(|text| element(text, "UploadId"));
        id.filter(|_| reply.status == 200).ok_or_else(|| answered(&reply))
    }

    /// Sends a part: what the store calls it.
    pub(crate) fn send_part(&self, mount: &str, key: &str, upload: &str, part: usize, content: Vec<u8>) -> Result<String, Error> {
        let name = name(mount, key)?;
        let query = vec![("partNumber", part.to_string()), ("uploadId", upload.to_owned())];
        let reply =
            self.send(Unsigned { method: "PUT", name: Some(&name), query, headers: Vec::new() }, "PUT", content, Some(ANSWER_BYTES_MAX))?;
        reply.header("etag").filter(|_| reply.status == 200).map(str::to_owned).ok_or_else(|| answered(&reply))
    }

    /// Makes an object of its parts.
    pub(crate) fn end_parts(&self, mount: &str, key: &str, upload: &str, parts: &[String]) -> Result<(), Error> {
        let name = name(mount, key)?;
        let part = |(index, etag): (usize, &String)| {
            format!("<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>", index + 1, etag.replace('&', "&amp;").replace('<', "&lt;"))
        };
        let parts: String = parts.iter().enumerate().map(part).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let query = vec![("uploadId", upload.to_owned())];
        let unsigned = Unsigned { method: "POST", name: Some(&name), query, headers: Vec::new() };
        let reply = self.send(unsigned, "POST", body.into_bytes(), Some(ANSWER_BYTES_MAX))?;
        // The store may say 200 before it knows.
        let failed = String::from_utf8_lossy(&reply.body).contains("<Error>");
        if reply.status == 200 && !failed { Ok(()) } else { Err(answered(&reply)) }
    }

    /// Parts that no object becomes of.
    pub(crate) fn abort_parts(&self, mount: &str, key: &str, upload: &str) -> Result<(), Error> {
        let name = name(mount, key)?;
        let query = vec![("uploadId", upload.to_owned())];
        let unsigned = Unsigned { method: "DELETE", name: Some(&name), query, headers: Vec::new() };
        self.send(unsigned, "DELETE", Vec::new(), None).map(drop)
    }

    /// Removes an object; no error where there is none.
    pub(crate) fn delete(&self, mount: &str, key: &str) -> Result<(), Error> {
        let name = name(mount, key)?;
        let unsigned = Unsigned { method: "DELETE", name: Some(&name), query: Vec::new(), headers: Vec::new() };
        let reply = self.send(unsigned, "DELETE", Vec::new(), None)?;
        if matches!(reply.status, 200 | 202 | 204 | 404) { Ok(()) } else { Err(answered(&reply)) }
    }

    /// Objects with a beginning, after one. Content type and hash are not part of a listing.
    pub(crate) fn list(&self, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, ObjectInfo)>, Error> {
        let place = format!("{}/", segment(mount));
        // What follows the last `/` is compared here: alone it may be written otherwise than as a whole.
        let folder = prefix.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{}/", encoded(folder)));
        let (mut listed, mut after) = (Vec::new(), after.map(|after| format!("{place}{}", encoded(after))));
        while listed.len() < limit as usize {
            let page = self.page(&format!("{place}{folder}"), after.take())?;
            let (whole, last) = (page.len() < PAGE_COUNT, page.last().map(|(name, _)| name.clone()));
            let keyed = page.into_iter().filter_map(|(name, info)| {
                let key = decoded(name.strip_prefix(&place)?)?;
                key.starts_with(prefix).then_some((key, info))
            });
            listed.extend(keyed.take(limit as usize - listed.len()));
            if whole {
                break;
            }
            after = last;
        }
        Ok(listed)
    }

    fn page(&self, prefix: &str, after: Option<String>) -> Result<Vec<(String, ObjectInfo)>, Error> {
        let mut query = vec![("list-type", "2".to_owned()), ("prefix", prefix.to_owned()), ("max-keys", PAGE_COUNT.to_string())];
        query.extend(after.map(|after| ("start-after", after)));
        let reply =
            self.send(Unsigned { method: "GET", name: None, query, headers: Vec::new() }, "GET", Vec::new(), Some(ANSWER_BYTES_MAX))?;
        if reply.status != 200 {
            return Err(answered(&reply));
        }
        let text = String::from_utf8(reply.body).map_err(|_| Error::Unavailable("the store of objects gave no text".into()))?;
        Ok(text.split("<Contents>").skip(1).filter_map(listed).collect())
    }

    pub(crate) fn object_bytes(&self, mount: &str) -> Result<u64, Error> {
        let listed = self.list(mount, "", None, u32::MAX)?;
        Ok(listed.iter().map(|(_, info)| info.size).sum())
    }

    /// A URL that gives or takes an object.
    pub(crate) fn presign(&self, method: &str, mount: &str, key: &str, valid_ms: u64) -> Result<String, Error> {
        Ok(presigned(&self.bucket, method, &name(mount, key)?, valid_ms, self.ports.clock.now_ms()))
    }
}

fn described(content_type: &str) -> Vec<(String, String)> {
    let given = !content_type.is_empty() && content_type.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    given.then(|| ("content-type".to_owned(), content_type.to_owned())).into_iter().collect()
}

/// One object of a listing.
fn listed(text: &str) -> Option<(String, ObjectInfo)> {
    let info = ObjectInfo {
        size: element(text, "Size")?.parse().ok()?,
        content_type: String::new(),
        sha256: None,
        created: element(text, "LastModified").and_then(|time| time_ms(&time)).unwrap_or(0),
        etag: element(text, "ETag").unwrap_or_default().trim_matches('"').to_owned(),
    };
    Some((element(text, "Key")?, info))
}

/// The text of the first element of a name.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    let plain = content.replace("&quot;", "\"").replace("&#34;", "\"").replace("&apos;", "'").replace("&lt;", "<").replace("&gt;", ">");
    Some(plain.replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_listing_is_read() {
        let text = "<Key>m/a%20b</Key><LastModified>2013-05-24T00:00:00.000Z</LastModified><ETag>&quot;x&quot;</ETag><Size>7</Size>";
        let (name, info) = listed(text).unwrap();
        assert_eq!((name.as_str(), info.size, info.etag.as_str(), info.created), ("m/a%20b", 7, "x", 1_369_353_600_000));
        assert_eq!(listed("<Key>a</Key>"), None);
    }

    proptest! {
        #[test]
        fn every_key_has_a_name_of_its_own_that_gives_it_back(key in "(/|\\.|%|a|[^a]){0,12}") {
            prop_assert_eq!(decoded(&encoded(&key)), Some(key));
        }
    }
}
