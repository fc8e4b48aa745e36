//! The server's side of the control socket.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{Answer, Command, LINE_BYTES_MAX, SOCKET, Status, last_backup, note_backup, socket_path};
use crate::backup::{BackupError, CallOff, back_up};
use crate::config::DataFolder;
use crate::server::ServerHandle;

/// Time for a client to say what it wants.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Clients served at once.
const CLIENTS_MAX: usize = 16;

/// Takes over a changed configuration: what it did, or what is wrong; one line each.
pub type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Vec<String>, Vec<String>>> + Send>> + Send + Sync>;

/// What is controlled.
pub struct Controlled {
    /// The server.
    pub server: ServerHandle,
    /// For [`Command::Reload`].
    pub reload: Reload,
}

struct Shared {
    controlled: Controlled,
    folder: PathBuf,
    started: Instant,
    /// One backup at a time.
    backups: Semaphore,
    running: Mutex<Running>,
    owner: u32,
}

/// The backup that is under way.
#[derive(Default)]
struct Running {
    call_off: CallOff,
    stopping: bool,
}

/// The control socket of a server.
pub struct ControlServer {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl ControlServer {
    /// Listens in a data folder. A socket that is there is that of a process that has gone: the folder is ours.
    pub fn start(folder: &DataFolder, controlled: Controlled) -> std::io::Result<Self> {
        let path = folder.path().join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (reached, _folder) = socket_path(folder.path())?;
        let listener = UnixListener::bind(reached)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let owner = std::fs::metadata(&path)?.uid();
        if let Some(created_ms) = last_backup(folder.path()) {
            controlled.server.runtime().metrics().last_backup(created_ms);
        }
        let shared = Arc::new(Shared {
            controlled,
            folder: folder.path().to_owned(),
            started: Instant::now(),
            backups: Semaphore::new(1),
            running: Mutex::default(),
            owner,
        });
        let accepting = tokio::spawn(accept_all(listener, Arc::clone(&shared)));
        Ok(Self { shared, accepting })
    }

    /// Takes no more commands, and calls a backup off.
    pub async fn stop(self) {
        {
            let mut running = self.shared.running.lock();
            running.stopping = true;
            running.call_off.now();
        }
        // Until the backup has ended, and what is left of it is removed.
        drop(self.shared.backups.acquire().await);
        self.accepting.abort();
        if let Err(error) = std::fs::remove_file(self.shared.folder.join(SOCKET)) {
            tracing::debug!(%error, "the control socket could not be removed");
        }
    }
}

async fn accept_all(listener: UnixListener, shared: Arc<Shared>) {
    let mut clients = JoinSet::new();
    loop {
        if clients.len() >= CLIENTS_MAX {
            clients.join_next().await;
            continue;
        }
        tokio::select! {
            Some(_) = clients.join_next(), if !clients.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    clients.spawn(serve(stream, Arc::clone(&shared)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket accepts nobody right now");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve(stream: UnixStream, shared: Arc<Shared>) {
    // The permissions say the same; a folder that was made by somebody else may have others for a moment.
    let user = stream.peer_cred().map(|credentials| credentials.uid());
    if !user.as_ref().is_ok_and(|user| *user == shared.owner || *user == 0) {
        tracing::warn!(?user, "a command of another user was refused");
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read.take(LINE_BYTES_MAX));
    let mut line = Vec::new();
    let received = match timeout(COMMAND_TIMEOUT, read.read_until(b'\n', &mut line)).await {
        Ok(Ok(length)) => length > 0,
        Ok(Err(_)) | Err(_) => false,
    };
    if !received {
        return;
    }
    let answer = match serde_json::from_slice(&line) {
        Ok(command) => {
            let gone = async {
                let mut rest = [0; 64];
                while read.read(&mut rest).await.is_ok_and(|length| length > 0) {}
            };
            shared.carry_out(command, gone).await
        }
        Err(_) => Answer::refused(vec!["the command is not one that this server knows".into()]),
    };
    let written = serde_json::to_string(&answer).map(|answer| format!("{answer}\n"));
    if let Ok(answer) = written
        && let Err(error) = write.write_all(answer.as_bytes()).await
    {
        tracing::debug!(%error, "whoever gave a command did not wait for the answer");
    }
}

impl Shared {
    async fn carry_out(&self, command: Command, gone: impl Future<Output = ()>) -> Answer {
        match command {
            Command::Status => Answer { ok: true, status: Some(self.status().await), ..Answer::default() },
            Command::Reload => match (self.controlled.reload)().await {
                Ok(report) => Answer::done(report),
                Err(problems) => Answer::refused(problems),
            },
            Command::Backup { to } => self.backup(&to, gone).await,
        }
    }

    async fn status(&self) -> Status {
        let server = &self.controlled.server;
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            process_id: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            listeners: server.listeners(),
            mounts: server.runtime().status(),
            not_ready: server.runtime().ready().await.into_iter().map(|(backend, problem)| format!("{backend}: {problem}")).collect(),
            last_backup_ms: last_backup(&self.folder),
            backup_runs: self.backups.available_permits() == 0,
        }
    }

    async fn backup(&self, to: &Path, gone: impl Future<Output = ()>) -> Answer {
        let Ok(_permit) = self.backups.try_acquire() else {
            return Answer::refused(vec!["another backup is under way".into()]);
        };
        if !to.is_absolute() {
            return Answer::refused(vec!["the path of the folder must be whole".into()]);
        }
        if lies_within(to, &self.folder) {
            return Answer::refused(vec![format!("{} lies within the data folder: name another place", to.display())]);
        }
        let call_off = CallOff::default();
        {
            let mut running = self.running.lock();
            if running.stopping {
                return Answer::refused(vec!["the server is stopping".into()]);
            }
            running.call_off = call_off.clone();
        }
        let runtime = self.controlled.server.runtime();
        let backing_up = back_up(runtime.backends(), to, call_off.clone());
        tokio::pin!(backing_up, gone);
        let ended = tokio::select! {
            ended = &mut backing_up => ended,
            () = gone => {
                call_off.now();
                backing_up.await
            }
        };
        runtime.metrics().backup_ended(ended.as_ref().ok().map(|manifest| manifest.created_ms));
        match ended {
            Ok(manifest) => {
                note_backup(&self.folder, manifest.created_ms);
                tracing::info!(folder = %to.display(), files = manifest.files.len(), size_bytes = manifest.size_bytes(), "backup made");
                Answer::done(manifest.report(to))
            }
            Err(error) => {
                tracing::warn!(folder = %to.display(), %error, "a backup failed");
                Answer::refused(vec![said(&error)])
            }
        }
    }
}

/// Whether a path, which need not be there yet, leads into a folder.
fn lies_within(path: &Path, folder: &Path) -> bool {
    let existing = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    existing.is_some_and(|existing| folder.canonicalize().is_ok_and(|folder| existing.starts_with(folder)))
}

fn said(error: &BackupError) -> String {
    format!("no backup was made: {error}")
}
