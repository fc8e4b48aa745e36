//! Keeps the files of a folder as they were at one moment, while they go on to be added, replaced and removed.
//!
//! While nothing is frozen, [`Freezer::replace`] and [`Freezer::remove`] are those of the file system. Afterwards a file
//! of that moment is put aside before it goes, and files that came later are remembered, so that they are not taken for
//! files of that moment.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Freezer {
    frozen: Mutex<Option<Frozen>>,
}

#[derive(Debug)]
struct Frozen {
    /// Where files are put aside: swept when the storage is opened.
    aside: PathBuf,
    aside_next: u64,
    /// Files of the moment that are gone or replaced: where they are now.
    kept: HashMap<PathBuf, PathBuf>,
    /// Files that came later.
    later: HashSet<PathBuf>,
}

impl Frozen {
    fn place_aside(&mut self) -> PathBuf {
        self.aside_next += 1;
        self.aside.join(format!("kept-{}", self.aside_next))
    }

    fn knows(&self, path: &Path) -> bool {
        self.kept.contains_key(path) || self.later.contains(path)
    }
}

impl Freezer {
    /// Renames a file, over another one where there is one.
    pub(super) fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut frozen = self.frozen.lock();
        if let Some(frozen) = &mut *frozen
            && !frozen.knows(to)
        {
            if to.try_exists()? {
                let aside = frozen.place_aside();
                if fs::hard_link(to, &aside).is_err() {
                    // A file system without hard links.
                    fs::copy(to, &aside)?;
                }
                frozen.kept.insert(to.to_owned(), aside);
            } else {
                frozen.later.insert(to.to_owned());
            }
        }
        fs::rename(from, to)
    }

    /// Removes a file.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut frozen = self.frozen.lock();
        match &mut *frozen {
            Some(frozen) if !frozen.knows(path) => {
                let aside = frozen.place_aside();
                fs::rename(path, &aside)?;
                frozen.kept.insert(path.to_owned(), aside);
                Ok(())
            }
            _ => fs::remove_file(path),
        }
    }

    /// Fixes this moment; none where another one is fixed. `aside` is on the same file system.
    pub(super) fn freeze(self: &Arc<Self>, aside: PathBuf) -> Option<FrozenView> {
        let mut frozen = self.frozen.lock();
        if frozen.is_some() {
            return None;
        }
        *frozen = Some(Frozen { aside, aside_next: 0, kept: HashMap::new(), later: HashSet::new() });
        drop(frozen);
        Some(FrozenView { freezer: Arc::clone(self) })
    }
}

/// The files of a moment, until it is dropped.
#[derive(Debug)]
pub(super) struct FrozenView {
    freezer: Arc<Freezer>,
}

impl FrozenView {
    /// Opens a file as it was; none where it was not there.
    pub(super) fn open(&self, path: &Path) -> io::Result<Option<File>> {
        let frozen = self.freezer.frozen.lock();
        let Some(frozen) = &*frozen else { return Ok(None) };
        if let Some(aside) = frozen.kept.get(path) {
            return File::open(aside).map(Some);
        }
        if frozen.later.contains(path) {
            return Ok(None);
        }
        // An open file stays what it is, also when its name goes.
        match File::open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a file as it was another name too; whether that could be done.
    pub(super) fn link(&self, path: &Path, link: &Path) -> bool {
        let frozen = self.freezer.frozen.lock();
        let Some(frozen) = &*frozen else { return false };
        let current = frozen.kept.get(path).map_or(path, PathBuf::as_path);
        !frozen.later.contains(path) && fs::hard_link(current, link).is_ok()
    }

    /// Files that have gone or were replaced since.
    pub(super) fn kept(&self) -> Vec<PathBuf> {
        self.freezer.frozen.lock().as_ref().map(|frozen| frozen.kept.keys().cloned().collect()).unwrap_or_default()
    }
}

impl Drop for FrozenView {
    fn drop(&mut self) {
        let Some(frozen) = self.freezer.frozen.lock().take() else { return };
        for aside in frozen.kept.into_values() {
            if let Err(error) = fs::remove_file(&aside) {
                tracing::warn!(%error, file = %aside.display(), "a file that was kept for a backup could not be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Write(u8, u8),
        Remove(u8),
        Freeze,
        Look,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0..4_u8, any::<u8>()).prop_map(|(name, content)| Act::Write(name, content)),
            3 => (0..4_u8).prop_map(Act::Remove),
            1 => Just(Act::Freeze),
            2 => Just(Act::Look),
        ]
    }

    fn read(mut file: File) -> Vec<u8> {
        let mut content = Vec::new();
        io::Read::read_to_end(&mut file, &mut content).unwrap();
        content
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_view_shows_its_moment_whatever_happens_since(acts in prop::collection::vec(act(), 1..60)) {
            let folder = tempfile::tempdir().unwrap();
            let (aside, new) = (folder.path().join("aside"), folder.path().join("new"));
            fs::create_dir(&aside).unwrap();
            let path = |name: u8| folder.path().join(format!("file-{name}"));
            let freezer = Arc::new(Freezer::default());
            let mut now = BTreeMap::<u8, u8>::new();
            let mut view: Option<(FrozenView, BTreeMap<u8, u8>)> = None;
            for act in acts {
                match act {
                    Act::Write(name, content) => {
                        fs::write(&new, [content]).unwrap();
                        freezer.replace(&new, &path(name)).unwrap();
                        now.insert(name, content);
                    }
                    Act::Remove(name) => {
                        let removed = freezer.remove(&path(name));
                        prop_assert_eq!(removed.is_ok(), now.remove(&name).is_some());
                    }
                    Act::Freeze => {
                        drop(view.take());
                        view = Some((freezer.freeze(aside.clone()).unwrap(), now.clone()));
                        prop_assert!(freezer.freeze(aside.clone()).is_none(), "one at a time");
                    }
                    Act::Look => {}
                }
                for name in 0..4 {
                    prop_assert_eq!(fs::read(path(name)).ok(), now.get(&name).map(|content| vec![*content]));
                    if let Some((view, then)) = &view {
                        prop_assert_eq!(view.open(&path(name)).unwrap().map(read), then.get(&name).map(|content| vec![*content]));
                    }
                }
            }
            drop(view);
            prop_assert_eq!(fs::read_dir(&aside).unwrap().count(), 0, "nothing is left aside");
        }
    }
}
