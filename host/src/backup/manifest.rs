//! The manifest of a backup: what belongs to it, and how to see that it is whole.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

/// Name of the manifest in a backup.
pub const MANIFEST: &str = "manifest.json";
/// Says that the file is a manifest.
const KIND: &str = "syncline-backup";
/// Grows with every change that older programs do not understand.
pub const FORMAT_VERSION: u32 = 1;

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Below the backup's `data`, with slashes.
    pub path: String,
    /// Its length.
    pub size_bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

/// What belongs to a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `syncline-backup`.
    kind: String,
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// Version of that program.
    pub syncline_version: String,
    /// When it was complete, milliseconds since 1970.
    pub created_ms: u64,
    /// All files, by path.
    pub files: Vec<FileEntry>,
}

/// What is read before anything else, so that a newer manifest is refused by its number.
#[derive(Deserialize)]
struct Heading {
    kind: String,
    format_version: u32,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// It is something else, or broken.
    #[error("it is not a manifest of a backup: {0}")]
    NotOne(String),
    /// A newer program wrote it.
    #[error("it has backup format {found}, written by a newer version of this program, which knows up to {FORMAT_VERSION}")]
    Newer {
        /// Its format.
        found: u32,
    },
}

impl Manifest {
    /// The manifest of files that are complete.
    pub(super) fn new(mut files: Vec<FileEntry>, created_ms: u64) -> Self {
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Self { kind: KIND.into(), format_version: FORMAT_VERSION, syncline_version: env!("CARGO_PKG_VERSION").into(), created_ms, files }
    }

    /// Reads a manifest; its paths stay below the folder.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let not_one = |error: serde_json::Error| ManifestError::NotOne(error.to_string());
        let heading: Heading = serde_json::from_str(text).map_err(not_one)?;
        if heading.kind != KIND {
            return Err(ManifestError::NotOne(format!("it is of the kind {:?}", heading.kind)));
        }
        if heading.format_version > FORMAT_VERSION {
            return Err(ManifestError::Newer { found: heading.format_version });
        }
        let manifest: Self = serde_json::from_str(text).map_err(not_one)?;
        match manifest.files.iter().find(|file| !stays_below(Path::new(&file.path))) {
            Some(file) => Err(ManifestError::NotOne(format!("the path {:?} leads elsewhere", file.path))),
            None => Ok(manifest),
        }
    }

    /// What is said of a backup in a folder, one line each.
    pub fn report(&self, folder: &Path) -> Vec<String> {
        vec![format!("backup of {} files, {} bytes, in {}", self.files.len(), self.size_bytes(), folder.display())]
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

fn stays_below(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(path: &str) -> String {
        let file = FileEntry { path: path.into(), size_bytes: 3, sha256: "00".into() };
        serde_json::to_string(&Manifest::new(vec![file], 7)).unwrap()
    }

    #[test]
    fn a_manifest_comes_back_as_it_was() {
        let read = Manifest::parse(&manifest("a/b.sqlite")).unwrap();
        assert_eq!((read.files[0].path.as_str(), read.created_ms, read.size_bytes()), ("a/b.sqlite", 7, 3));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["../x", "/etc/passwd", "a/../../x", "", "./.."] {
            assert!(matches!(Manifest::parse(&manifest(path)), Err(ManifestError::NotOne(_))), "{path:?}");
        }
    }

    #[test]
    fn a_newer_manifest_is_refused_by_its_number_whatever_else_it_has() {
        let text = r#"{"kind": "syncline-backup", "format_version": 9, "parts": []}"#;
        assert_eq!(Manifest::parse(text), Err(ManifestError::Newer { found: 9 }));
        assert!(matches!(Manifest::parse(r#"{"kind": "other", "format_version": 1}"#), Err(ManifestError::NotOne(_))));
        assert!(matches!(Manifest::parse("{"), Err(ManifestError::NotOne(_))));
    }
}
