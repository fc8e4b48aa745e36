//! TLS in front of a listener, by rustls. Certificates come from files and can be exchanged while the server runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, InconsistentKeys, ServerConfig};
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// Time for a handshake, from the first byte to the last.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the certificate of a listener is. Both files are PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate, and what leads from it to a root, in this order.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

/// Why a certificate cannot be used. Nothing here quotes a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is no PEM, or has no certificate in it.
    #[error("{0}: has no certificate in PEM")]
    NoCertificate(PathBuf),
    /// The file is no PEM, or has no private key in it.
    #[error("{0}: has no private key in PEM (one that is encrypted cannot be used)")]
    NoKey(PathBuf),
    /// The key belongs to another certificate.
    #[error("{key}: is not the key of the certificate in {certificate}")]
    OtherKey {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate is not valid any more.
    #[error("{path}: the certificate expired at {at}")]
    Expired {
        /// The file.
        path: PathBuf,
        /// When.
        at: String,
    },
    /// The certificate is not valid yet.
    #[error("{path}: the certificate is not valid before {at}")]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// From when on.
        at: String,
    },
    /// A certificate or key is damaged, or of a kind that is not supported.
    #[error("{path}: {message}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl TlsFiles {
    /// Whether the files hold a certificate that is valid now, and its key.
    pub fn check(&self) -> Result<(), TlsError> {
        self.read().map(drop)
    }

    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let path = &self.certificate;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read_file(path)?).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| TlsError::NoCertificate(path.clone()))?;
        check_validity(path, &chain[0])?;
        // What is wrong with a key's file is not told in the words of its parser: they might quote it.
        let key = PrivateKeyDer::from_pem_slice(&read_file(&self.key)?).map_err(|_| TlsError::NoKey(self.key.clone()))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::OtherKey { certificate: path.clone(), key: self.key.clone() }
            }
            Error::InvalidCertificate(error) => TlsError::Unusable { path: path.clone(), message: format!("the certificate: {error:?}") },
            _ => TlsError::Unusable { path: self.key.clone(), message: "the key is damaged or of a kind that is not supported".into() },
        })
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

fn check_validity(path: &Path, certificate: &CertificateDer<'_>) -> Result<(), TlsError> {
    let path = path.to_owned();
    let parsed = match Certificate::from_der(certificate) {
        Ok(parsed) => parsed,
        Err(error) => return Err(TlsError::Unusable { path, message: format!("the certificate: {error}") }),
    };
    let validity = parsed.tbs_certificate().validity();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if now > validity.not_after.to_unix_duration() {
        return Err(TlsError::Expired { path, at: validity.not_after.to_string() });
    }
    if now < validity.not_before.to_unix_duration() {
        return Err(TlsError::NotYetValid { path, at: validity.not_before.to_string() });
    }
    Ok(())
}

/// The certificate of a listener.
pub(crate) struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

/// What new handshakes get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(Current(RwLock::new(Arc::new(files.read()?))));
        let provider = Arc::new(ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
        let versions = versions.map_err(|error| TlsError::Unusable { path: files.certificate.clone(), message: error.to_string() })?;
        let mut config = versions.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { files, current, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The certificate as its files have it now.
    pub(crate) fn read(&self) -> Result<CertifiedKey, TlsError> {
        self.files.read()
    }

    /// Gives new connections another certificate; those that are open go on.
    pub(crate) fn exchange(&self, certificate: CertifiedKey) {
        *self.current.0.write() = Arc::new(certificate);
    }

    /// The handshake.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await {
            Ok(accepted) => accepted,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
