//! Asking a running server.

use std::io::ErrorKind;
use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{Answer, Command, LINE_BYTES_MAX, socket_path};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No server runs on the data folder.
    #[error("no server runs on this data folder")]
    NotRunning,
    /// The socket cannot be used.
    #[error("the control socket: {0}")]
    Io(std::io::Error),
    /// The answer is none.
    #[error("the server gave no answer that can be understood: {0}")]
    Answer(String),
}

/// Asks the server that runs on a data folder.
pub async fn ask(folder: &Path, command: &Command) -> Result<Answer, ControlError> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => ControlError::NotRunning,
        _ => ControlError::Io(error),
    };
    let (path, _folder) = socket_path(folder).map_err(failed)?;
    let mut stream = UnixStream::connect(path).await.map_err(failed)?;
    let mut line = serde_json::to_vec(command).map_err(|error| ControlError::Answer(error.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(ControlError::Io)?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut answer).await.map_err(ControlError::Io)?;
    if answer.is_empty() {
        return Err(ControlError::Answer("it ended before".into()));
    }
    serde_json::from_str(&answer).map_err(|error| ControlError::Answer(error.to_string()))
}
