//! Folders and file names: safe on any file system, durable, and never shared by two processes.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// For [`encode_name`] where SQLite opens the path: it takes about 500 bytes, and a path holds two names and the data
/// folder.
pub(crate) const NAME_BYTES_MAX: usize = 100;

/// Of a hashed name so many bytes stay readable.
const NAME_BYTES_READABLE: usize = 30;

/// What lies beside the mounts' folders in a data folder. A mount of that name gets another spelling.
const NAMES_TAKEN: [&str; 3] = ["lock", "objects", "cache"];

/// Folders beside the mounts' that hold no databases.
pub(crate) const NOT_DATABASES: [&str; 2] = ["objects", "cache"];

/// Says of which format a data folder is, as a whole: which files it has, and how they are named.
pub(crate) const FORMAT_FILE: &str = "format.json";

/// Grows with every change of a data folder that older programs do not understand.
const FOLDER_FORMAT: u64 = 1;

/// A name for a file or folder that stands for any text, and for that text alone, also where the file system does not
/// tell upper from lower case. The result has no dot, so a suffix after a dot never meets another name.
///
/// `a`-`z`, `0`-`9`, `-` and `_` stand for themselves, any other byte becomes `%XX`; a long name ends in `~` and its
/// SHA-256; no text at all is `%`. `bytes_max` is of the result, at least 100.
pub(crate) fn encode_name(name: &str, bytes_max: usize) -> String {
    if name.is_empty() {
        return "%".to_owned();
    }
    let mut encoded = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if plain && !(index == 0 && NAMES_TAKEN.contains(&name)) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    if encoded.len() > bytes_max {
        encoded.truncate(NAME_BYTES_READABLE);
        encoded.push('~');
        encoded.push_str(&hex(&Sha256::digest(name.as_bytes())));
    }
    encoded
}

/// The text that [`encode_name`] was given; none where the name is hashed, or not one of its own.
pub(crate) fn decode_name(encoded: &str, bytes_max: usize) -> Option<String> {
    if encoded == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    // Hashed names and what others put here do not come back to themselves.
    (encode_name(&name, bytes_max) == encoded).then_some(name)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a folder, and those above it, so that they are there after a power cut. Only the owner may enter it.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = match folder.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    create_folder(above)?;
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        Err(error) => return Err(error),
    }
    sync_folder(above)
}

/// Bytes of the files in a folder; none where there is no folder. Files may come and go meanwhile.
pub(crate) fn size_bytes(folder: &Path) -> io::Result<u64> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut size_bytes = 0;
    for entry in entries {
        match entry?.metadata() {
            Ok(metadata) if metadata.is_file() => size_bytes += metadata.len(),
            Ok(_) => {}
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(size_bytes)
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Why a folder was not locked.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process (or another executor in this one) works in it.
    #[error("the folder {} is in use by another process", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// It cannot be made or written.
    #[error("the folder {} cannot be used: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is of a format that this program does not know.
    #[error("the folder {} has format {found}, written by a newer version of this program, which knows {FOLDER_FORMAT}", folder.display())]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        found: u64,
    },
    /// What says of which format it is cannot be understood.
    #[error("{} is damaged: restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// Checks that a data folder is of a format that this program knows; notes it where the folder is new.
pub(crate) fn check_format(folder: &Path) -> Result<(), FolderError> {
    if is_of_known_format(folder)? {
        return Ok(());
    }
    let text = format!("{{\"format\":{FOLDER_FORMAT},\"program\":\"syncline\"}}\n");
    write_whole(&folder.join(FORMAT_FILE), text.as_bytes()).map_err(|source| FolderError::Io { folder: folder.to_owned(), source })
}

/// Whether a data folder says of which format it is; an error where this program does not know that format.
pub(crate) fn is_of_known_format(folder: &Path) -> Result<bool, FolderError> {
    let path = folder.join(FORMAT_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(FolderError::Damaged { path }),
        Err(source) => return Err(FolderError::Io { folder: folder.to_owned(), source }),
    };
    let format = serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|value| value["format"].as_u64());
    match format {
        Some(found) if found > FOLDER_FORMAT => Err(FolderError::Newer { folder: folder.to_owned(), found }),
        Some(FOLDER_FORMAT) => Ok(true),
        _ => Err(FolderError::Damaged { path }),
    }
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// A folder that this process has for itself, until the lock is released or dropped.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: Mutex<Option<File>>,
}

impl FolderLock {
    /// Locks the file `name` in a folder. The system releases it when the process dies, however it dies.
    pub(crate) fn take(folder: &Path, name: &str) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io { folder: folder.to_owned(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(name)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file: Mutex::new(Some(file)) }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Gives the folder back.
    pub(crate) fn release(&self) {
        self.file.lock().take();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(name: &str) -> String {
        encode_name(name, NAME_BYTES_MAX)
    }

    #[test]
    fn names_that_file_systems_treat_oddly() {
        assert_eq!(encode("todos-1_a"), "todos-1_a");
        assert_eq!(encode(""), "%");
        assert_eq!(encode("."), "%2E");
        assert_eq!(encode(".."), "%2E%2E");
        assert_eq!(encode("A/b"), "%41%2Fb");
        assert_eq!(encode("%"), "%25");
        assert_eq!(encode("lock"), "%6Cock");
        assert_eq!(encode("objects"), "%6Fbjects");
        assert_eq!(encode("cache"), "%63ache");
        assert_eq!(encode("lock2"), "lock2");
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[a-cA-C./%~]{0,6}", "a{95,105}", Just("lock".to_owned()), Just("objects".to_owned())]
    }

    proptest! {
        #[test]
        fn names_are_safe_and_apart(a in name(), b in name()) {
            let (encoded_a, encoded_b) = (encode(&a), encode(&b));
            prop_assert!(encoded_a.len() <= NAME_BYTES_MAX);
            prop_assert!(encoded_a.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'.'));
            prop_assert_eq!(a == b, encoded_a.eq_ignore_ascii_case(&encoded_b));
            match decode_name(&encoded_a, NAME_BYTES_MAX) {
                Some(decoded) => prop_assert_eq!(decoded, a),
                None => prop_assert!(encoded_a.contains('~')),
            }
        }
    }

    #[test]
    fn a_folder_says_its_format_and_a_newer_or_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FORMAT_FILE);
        check_format(folder.path()).unwrap();
        check_format(folder.path()).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        fs::write(&path, written.replace(":1,", ":2,")).unwrap();
        assert!(matches!(check_format(folder.path()), Err(FolderError::Newer { found: 2, .. })));
        for damaged in [&b""[..], b"{", b"{}", b"{\"format\":0}", &[0xff; 9]] {
            fs::write(&path, damaged).unwrap();
            assert!(matches!(check_format(folder.path()), Err(FolderError::Damaged { path: named }) if named == path));
            assert_eq!(fs::read(&path).unwrap(), damaged, "it is left as it is");
        }
    }

    #[test]
    fn a_folder_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path(), "lock").unwrap();
        assert!(matches!(FolderLock::take(folder.path(), "lock"), Err(FolderError::InUse { folder: path }) if path == folder.path()));
        lock.release();
        FolderLock::take(folder.path(), "lock").unwrap();
    }
}
