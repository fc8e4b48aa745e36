//! Certificates of a test, and clients that trust them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd};
use syncline::server::tls::TlsFiles;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::Error;

use crate::DEADLINE;
use crate::socket::Socket;

/// A certificate that vouches for itself, with its key.
pub struct Certificate {
    made: CertifiedKey<KeyPair>,
}

impl Certificate {
    /// For a name, valid now.
    pub fn new(name: &str) -> Self {
        Self::valid(name, 2020, 4000)
    }

    /// For a name, valid from the first day of a year to the first day of another.
    pub fn valid(name: &str, from_year: i32, until_year: i32) -> Self {
        let signing_key = KeyPair::generate().expect("keys can be made");
        let mut parameters = CertificateParams::new([name.to_owned()]).expect("a name of a certificate");
        parameters.not_before = date_time_ymd(from_year, 1, 1);
        parameters.not_after = date_time_ymd(until_year, 1, 1);
        let cert = parameters.self_signed(&signing_key).expect("certificates can be made");
        Self { made: CertifiedKey { cert, signing_key } }
    }

    /// Writes both as PEM.
    pub fn write(&self, certificate: &Path, key: &Path) {
        std::fs::write(certificate, self.made.cert.pem()).expect("files can be written");
        std::fs::write(key, self.key_pem()).expect("files can be written");
    }

    /// Writes both into a folder.
    pub fn write_into(&self, folder: &Path) -> TlsFiles {
        let files = TlsFiles { certificate: folder.join("fullchain.pem"), key: folder.join("key.pem") };
        self.write(&files.certificate, &files.key);
        files
    }

    /// The key as PEM.
    pub fn key_pem(&self) -> String {
        self.made.signing_key.serialize_pem()
    }

    /// What a server of a test accepts handshakes with.
    pub fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.made.signing_key.serialize_der()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
        let config = builder.expect("versions that there are").with_no_client_auth().with_single_cert(vec![self.der().clone()], key);
        TlsAcceptor::from(Arc::new(config.expect("the key fits")))
    }

    /// The certificate as it is sent.
    pub fn der(&self) -> &CertificateDer<'static> {
        self.made.cert.der()
    }
}

/// A client that trusts one certificate.
pub struct TlsClient {
    connector: TlsConnector,
}

impl TlsClient {
    /// Trusts a certificate.
    pub fn trusting(certificate: &Certificate) -> Self {
        Self::with(certificate, &[&TLS13, &TLS12], &[])
    }

    /// Trusts a certificate, and offers these versions of TLS and these protocols above it.
    pub fn with(certificate: &Certificate, versions: &[&'static SupportedProtocolVersion], protocols: &[&[u8]]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_protocol_versions(versions);
        let mut config = builder.expect("versions that there are").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Self { connector: TlsConnector::from(Arc::new(config)) }
    }

    /// Connects to `localhost` at an address.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        tokio::time::timeout(DEADLINE, self.connector.connect(name, stream)).await.expect("the handshake ends within the deadline")
    }

    /// Opens a WebSocket.
    pub async fn socket(&self, address: SocketAddr, path_and_query: &str) -> Result<Socket<TlsStream<TcpStream>>, Error> {
        let stream = self.connect(address).await.map_err(Error::Io)?;
        Socket::over(stream, &format!("wss://localhost:{}{path_and_query}", address.port())).await
    }

    /// Asks for a path; the whole answer.
    pub async fn get(&self, address: SocketAddr, path: &str) -> std::io::Result<String> {
        let mut stream = self.connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("it is answered within the deadline")?;
        Ok(answer)
    }
}
