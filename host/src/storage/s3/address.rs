//! Where a bucket is: a URL, and the environment for what must not stand in one.

use std::fmt;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, RetryConfig};

use super::http::Connector;

/// What is asked again is asked at most so often, and for so long.
const RETRIES_MAX: usize = 4;
const RETRY_MAX: Duration = Duration::from_secs(20);

/// What is wrong with an address. Nothing here quotes it: it may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum S3AddressError {
    /// Not `s3://BUCKET` or `s3://BUCKET/PREFIX`.
    #[error("is not s3://BUCKET or s3://BUCKET/PREFIX, in letters, digits and - _ . /")]
    Place,
    /// Credentials would be shown and logged with the address.
    #[error("credentials belong into the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")]
    Credentials,
    /// Not a parameter.
    #[error("knows the parameters region, endpoint and presign, and not {0:?}")]
    Parameter(String),
    /// Not `on` or `off`.
    #[error("presign is not one of on, off")]
    Presign,
    /// Not an http or https URL without a path.
    #[error("endpoint is not http://HOST:PORT or https://HOST:PORT")]
    Endpoint,
    /// No client can be made of it.
    #[error("{0}")]
    Client(#[from] object_store::Error),
}

/// A bucket, and where in it objects are.
#[derive(Clone)]
pub struct S3Address {
    pub(super) bucket: String,
    /// Empty, or ends with `/`.
    pub(super) prefix: String,
    region: Option<String>,
    endpoint: Option<String>,
    /// Whether clients may be given URLs of the store.
    pub(super) presigns: bool,
    /// Id and secret.
    keys: Option<(String, String)>,
}

impl fmt::Debug for S3Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, prefix, region, endpoint, presigns, keys: _ } = self;
        let mut address = formatter.debug_struct("S3Address");
        address.field("bucket", bucket).field("prefix", prefix).field("region", region);
        address.field("endpoint", endpoint).field("presigns", presigns).finish_non_exhaustive()
    }
}

impl S3Address {
    /// Parses `s3://BUCKET/PREFIX?region=…&endpoint=…&presign=on|off`. What is left out is taken from the environment (`AWS_REGION`,
    /// `AWS_ENDPOINT_URL`) or is what AWS has.
    pub fn parse(url: &str) -> Result<Self, S3AddressError> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let place = place.strip_prefix("s3://").ok_or(S3AddressError::Place)?;
        if place.contains('@') {
            return Err(S3AddressError::Credentials);
        }
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_end_matches('/');
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let is_place = plain(bucket) && (prefix.is_empty() || prefix.split('/').all(|part| plain(part) && part != "." && part != ".."));
        if !is_place {
            return Err(S3AddressError::Place);
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let mut address = Self { bucket: bucket.to_owned(), prefix, region: None, endpoint: None, presigns: true, keys: None };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("region", region) => address.region = Some(region.to_owned()),
                ("endpoint", endpoint) => address.endpoint = Some(checked_endpoint(endpoint)?),
                ("presign", "on") => address.presigns = true,
                ("presign", "off") => address.presigns = false,
                ("presign", _) => return Err(S3AddressError::Presign),
                (other, _) => return Err(S3AddressError::Parameter(other.to_owned())),
            }
        }
        Ok(address)
    }

    /// The same with keys that are not those of the environment.
    pub fn with_keys(self, access_key_id: &str, secret_access_key: &str) -> Self {
        Self { keys: Some((access_key_id.to_owned(), secret_access_key.to_owned())), ..self }
    }

    /// A client of the store, with its own credentials or those of the environment: keys, a web identity, or the role of the machine.
    pub(super) fn client(&self) -> Result<AmazonS3, S3AddressError> {
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&self.bucket);
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            // Who writes http means it.
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some((id, secret)) = &self.keys {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_MAX, backoff: BackoffConfig::default() };
        // Some stores cannot remove many at once, and here it is one at a time.
        Ok(builder.with_retry(retry).with_disable_bulk_delete(true).with_http_connector(Connector).build()?)
    }
}

fn checked_endpoint(endpoint: &str) -> Result<String, S3AddressError> {
    let endpoint = endpoint.trim_end_matches('/');
    let uri: hyper::Uri = endpoint.parse().map_err(|_| S3AddressError::Endpoint)?;
    let plain = uri.path() == "/" && uri.query().is_none() && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    if plain && web { Ok(endpoint.to_owned()) } else { Err(S3AddressError::Endpoint) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_bucket_prefix_and_store() {
        let address = S3Address::parse("s3://notes/a/b/?region=eu-1&endpoint=http://127.0.0.1:9000/&presign=off").unwrap();
        assert_eq!((address.bucket.as_str(), address.prefix.as_str(), address.presigns), ("notes", "a/b/", false));
        assert_eq!((address.region.as_deref(), address.endpoint.as_deref()), (Some("eu-1"), Some("http://127.0.0.1:9000")));
        let plain = S3Address::parse("s3://notes").unwrap();
        assert_eq!((plain.prefix.as_str(), plain.presigns), ("", true));
    }

    #[test]
    fn what_is_wrong_is_said_without_quoting_secrets() {
        let said = |url: &str| S3Address::parse(url).unwrap_err().to_string();
        for url in ["s3://", "s3:notes", "s3:///a", "s3://a/..", "s3://a//b", "s3://a b", "file:a"] {
            assert!(said(url).starts_with("is not s3://BUCKET"), "{url}");
        }
        let credentials = said("s3://key:secret@notes");
        assert!(credentials.contains("AWS_ACCESS_KEY_ID") && !credentials.contains(":secret"), "{credentials}");
        assert!(said("s3://a?presign=yes").contains("presign"));
        assert!(said("s3://a?colour=red").contains("\"colour\""));
        for endpoint in ["127.0.0.1:9000", "ftp://a", "http://a/b", "http://key:secret@a"] {
            assert!(said(&format!("s3://a?endpoint={endpoint}")).starts_with("endpoint is not"), "{endpoint}");
        }
    }
}
