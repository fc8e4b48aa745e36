//! Where a PostgreSQL server is: a URL, with the words of libpq for TLS.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// What is wrong with an address. Nothing here quotes it: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Neither `postgres://` nor `postgresql://`, or not what can stand behind it.
    #[error("is not an address of PostgreSQL: {0}")]
    Address(String),
    /// Not a word of libpq.
    #[error("sslmode is not one of disable, prefer, require, verify-ca, verify-full")]
    SslMode,
    /// The file of root certificates.
    #[error("sslrootcert {path}: {message}")]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Not what names of schemas can begin with.
    #[error("schema_prefix is not of one to twenty lower-case letters and digits")]
    SchemaPrefix,
    /// There are no roots to check the server's certificate with.
    #[error("this machine has no root certificates to check the server's with: give sslrootcert, or sslmode=require")]
    NoRoots,
}

/// A server, whom to speak to it as, and how it is known.
#[derive(Clone)]
pub struct PostgresAddress {
    /// For tokio-postgres.
    pub(super) config: Config,
    /// How TLS is spoken, where it is.
    pub(super) tls: Arc<ClientConfig>,
    /// What names of schemas begin with.
    pub(super) schema_prefix: Option<String>,
}

/// Longer ones would leave too little of a name for mounts and databases.
const SCHEMA_PREFIX_BYTES_MAX: usize = 20;

impl PostgresAddress {
    /// Parses `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…&sslrootcert=…&schema_prefix=…`. As with libpq `prefer` (the default)
    /// and `require` encrypt without asking who the server is, unless roots are given. `verify-ca` checks the name too.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(AddressError::Address("it begins with postgres://".into()));
        }
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut roots, mut schema_prefix) = (String::from("prefer"), None, None);
        let mut others = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "sslmode" => mode = value.into_owned(),
                "schema_prefix" => schema_prefix = Some(value.into_owned()),
                "sslrootcert" => roots = Some(PathBuf::from(&*value)),
                _ => drop(others.append_pair(&name, &value)),
            }
        }
        let is_prefix = |prefix: &String| {
            (1..=SCHEMA_PREFIX_BYTES_MAX).contains(&prefix.len()) && prefix.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'))
        };
        if !schema_prefix.as_ref().is_none_or(is_prefix) {
            return Err(AddressError::SchemaPrefix);
        }
        let address = format!("{place}?{}", others.finish());
        // The parser's message names what it does not know and quotes no value.
        let mut config: Config = address.parse().map_err(|error: tokio_postgres::Error| AddressError::Address(said(&error)))?;
        config.ssl_mode(match mode.as_str() {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            "require" | "verify-ca" | "verify-full" => SslMode::Require,
            _ => return Err(AddressError::SslMode),
        });
        let verified = mode.starts_with("verify-") || roots.is_some();
        let tls = if verified { verifying(roots)? } else { trusting() };
        Ok(Self { config, tls: Arc::new(tls), schema_prefix })
    }
}

fn said(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn verifying(roots: Option<PathBuf>) -> Result<ClientConfig, AddressError> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            let failed = |message: String| AddressError::Roots { path: path.clone(), message };
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
            for certificate in certificates.map_err(|error| failed(error.to_string()))? {
                store.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
            if store.is_empty() {
                return Err(failed("has no certificate in PEM".into()));
            }
        }
        None => {
            // Some of a system's certificates may be odd; the others do.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(AddressError::NoRoots);
            }
        }
    }
    Ok(builder().with_root_certificates(store).with_no_client_auth())
}

fn trusting() -> ClientConfig {
    builder().dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider()))).with_no_client_auth()
}

fn builder() -> tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider());
    builder.with_protocol_versions(&[&tokio_rustls::rustls::version::TLS13, &tokio_rustls::rustls::version::TLS12]).unwrap_or_else(
        |error| {
            // The provider has both; it is linked in.
            unreachable!("ring speaks TLS 1.2 and 1.3: {error}")
        },
    )
}

/// Encrypts to whoever is there: what `sslmode=prefer` and `require` mean.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_words_of_libpq() {
        for (query, mode) in [("", SslMode::Prefer), ("?sslmode=disable", SslMode::Disable), ("?sslmode=require", SslMode::Require)] {
            let address = PostgresAddress::parse(&format!("postgres://someone:secret@db.example:5433/notes{query}")).unwrap();
            assert_eq!((address.config.get_ssl_mode(), address.config.get_dbname()), (mode, Some("notes")));
            assert_eq!((address.config.get_ports(), address.config.get_user()), (&[5433][..], Some("someone")));
        }
        assert!(PostgresAddress::parse("postgresql://localhost/notes?connect_timeout=3").is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_is_quoted() {
        for (url, needle) in [
            ("mysql://me:secret@x/y", "postgres://"),
            ("postgres://me:secret@x/y?sslmode=maybe", "sslmode"),
            ("postgres://me:secret@x/y?sslmode=verify-full&sslrootcert=/no/such/file", "/no/such/file"),
            ("postgres://me:secret@x:port/y", "port"),
            ("postgres://me:secret@x/y?schema_prefix=a.b", "schema_prefix"),
            ("postgres://me:secret@x/y?no_such_option=1", "no_such_option"),
        ] {
            let message = PostgresAddress::parse(url).err().expect(url).to_string();
            assert!(message.contains(needle) && !message.contains("secret"), "{url}: {message}");
        }
    }
}
