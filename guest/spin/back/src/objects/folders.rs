//! Files of the component that a mount reads as objects. They are never written.
//!
//! Links are followed by hand, for what leads out of the folder must not be found, and WASI cannot say where a path ends.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::clamp;
use crate::bindings::exports::syncline::host::storage::{Error, ObjectInfo};

/// Links on the way to one file.
const LINKS_MAX: usize = 40;

/// A folder whose files are objects.
#[derive(Clone, Debug)]
pub struct Folder {
    prefix: String,
    path: PathBuf,
}

impl Folder {
    /// A folder whose files have keys that begin so. It need not be there.
    pub fn new(prefix: &str, path: &str) -> Self {
        Self { prefix: prefix.to_owned(), path: path.into() }
    }

    /// What is known of a file.
    pub fn head(&self, relative: &str) -> Result<ObjectInfo, Error> {
        self.find(relative).map(|(_, info)| info)
    }

    /// The file of a path, if it is one and lies in the folder.
    fn find(&self, relative: &str) -> Result<(PathBuf, ObjectInfo), Error> {
        let is_name = |name: &str| !name.is_empty() && name != "." && name != "..";
        if relative.contains(['\0', '\\']) || !relative.split('/').all(is_name) {
            return Err(Error::NotFound);
        }
        let path = self.path.join(self.followed(relative)?);
        let metadata = fs::symlink_metadata(&path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::NotFound);
        }
        let info = info_of(relative, &metadata);
        Ok((path, info))
    }

    /// The path below the folder with all links followed.
    fn followed(&self, relative: &str) -> Result<PathBuf, Error> {
        let mut waiting: Vec<String> = relative.split('/').rev().map(str::to_owned).collect();
        let (mut found, mut links) = (PathBuf::new(), 0);
        while let Some(name) = waiting.pop() {
            match name.as_str() {
                "." => continue,
                ".." => {
                    if !found.pop() {
                        return Err(Error::NotFound);
                    }
                    continue;
                }
                name => found.push(name),
            }
            let path = self.path.join(&found);
            if !fs::symlink_metadata(&path).map_err(failed)?.is_symlink() {
                continue;
            }
            links += 1;
            let target = fs::read_link(&path).map_err(failed)?;
            if links > LINKS_MAX {
                return Err(Error::NotFound);
            }
            found.pop();
            let mut parts = Vec::new();
            for part in target.components() {
                match part {
                    Component::CurDir => {}
                    Component::ParentDir => parts.push("..".to_owned()),
                    Component::Normal(name) => parts.push(name.to_str().ok_or(Error::NotFound)?.to_owned()),
                    Component::RootDir | Component::Prefix(_) => return Err(Error::NotFound),
                }
            }
            waiting.extend(parts.into_iter().rev());
        }
        Ok(found)
    }

    /// Opens a file where a range begins: what it is, and how many bytes are meant.
    pub fn open(&self, relative: &str, range: Option<(u64, u64)>) -> Result<(File, ObjectInfo, u64), Error> {
        let (path, info) = self.find(relative)?;
        let mut file = File::open(path).map_err(failed)?;
        let (start, length) = clamp(info.size, range);
        file.seek(SeekFrom::Start(start)).map_err(failed)?;
        Ok((file, info, length))
    }

    /// The bytes of a file, or of a part of it.
    pub fn read(&self, relative: &str, range: Option<(u64, u64)>, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let (file, _, length) = self.open(relative, range)?;
        if length > bytes_max {
            return Err(Error::Limit(format!("more than {bytes_max} bytes at once")));
        }
        let mut content = Vec::new();
        file.take(length).read_to_end(&mut content).map_err(failed)?;
        Ok(content)
    }

    /// All its files, in no order. Links to folders are passed over, so there are no circles.
    pub fn list(&self) -> Result<Vec<(String, ObjectInfo)>, Error> {
        let (mut listed, mut waiting) = (Vec::new(), vec![String::new()]);
        while let Some(below) = waiting.pop() {
            let entries = match fs::read_dir(self.path.join(&below)).map_err(failed) {
                Ok(entries) => entries,
                Err(Error::NotFound) => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let relative = format!("{below}{name}");
                if entry.file_type().map_err(failed)?.is_dir() {
                    waiting.push(format!("{relative}/"));
                } else if let Ok(info) = self.head(&relative) {
                    listed.push((format!("{}{relative}", self.prefix), info));
                }
            }
        }
        Ok(listed)
    }
}

pub(super) fn failed(error: io::Error) -> Error {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied};
    match error.kind() {
        // WASI says that what leads out of all folders is not permitted.
        InvalidFilename | InvalidInput | NotADirectory | NotFound | PermissionDenied => Error::NotFound,
        _ => Error::Unavailable(error.to_string()),
    }
}

fn info_of(relative: &str, metadata: &Metadata) -> ObjectInfo {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    ObjectInfo {
        size: metadata.len(),
        content_type: content_type(relative).into(),
        sha256: None,
        created: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
        etag: format!("{:x}-{:x}", modified.as_nanos(), metadata.len()),
    }
}

/// By the extension of a name.
fn content_type(relative: &str) -> &'static str {
    let extension = Path::new(relative).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/vnd.microsoft.icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("web");
        fs::create_dir_all(root.join("deep")).unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        fs::write(root.join("page.HTML"), "0123456789").unwrap();
        fs::write(root.join("deep/script.js"), "x").unwrap();
        let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        link(Path::new("deep/script.js"), "inside");
        link(Path::new("../web/deep"), "around");
        link(Path::new("../secret"), "outside");
        link(outside.path(), "up");
        link(Path::new("circle"), "circle");
        let folder = Folder { prefix: "web/".into(), path: root };
        (outside, folder)
    }

    #[test]
    fn files_are_objects_below_their_prefix() {
        let (_outside, folder) = folder();
        let info = folder.head("page.HTML").unwrap();
        assert_eq!((info.size, info.content_type.as_str(), info.sha256), (10, "text/html; charset=utf-8", None));
        assert_eq!(folder.read("page.HTML", Some((8, 5)), 100).unwrap(), b"89");
        assert_eq!(folder.read("inside", None, 100).unwrap(), b"x");
        assert!(matches!(folder.read("page.HTML", None, 9), Err(Error::Limit(_))));
        let mut keys: Vec<String> = folder.list().unwrap().into_iter().map(|(key, _)| key).collect();
        keys.sort();
        assert_eq!(keys, ["web/deep/script.js", "web/inside", "web/page.HTML"]);
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let (_outside, folder) = folder();
        let paths = [
            "outside",
            "up/secret",
            "around/script.js",
            "circle",
            "../secret",
            "deep/../../secret",
            "deep",
            "",
            "/",
            "deep//script.js",
            "page.HTML/",
            "a\0b",
        ];
        for path in paths {
            assert_eq!(folder.head(path), Err(Error::NotFound), "{path:?}");
        }
    }

    #[test]
    fn a_folder_that_is_missing_has_no_files() {
        let missing = Folder { prefix: "web/".into(), path: "/nowhere/at/all".into() };
        assert_eq!(missing.head("a"), Err(Error::NotFound));
        assert_eq!(missing.list(), Ok(Vec::new()));
    }
}
