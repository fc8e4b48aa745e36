//! Compaction of the change log, in steps that hold the database for a short time.

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::failure::Failure;
use crate::imports::Imports;

/// Up to where the log is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactUpTo {
    /// All but the newest so many versions (`keepVersions`).
    Keep(u64),
    /// This version, at most the current one (`upToVersion`).
    Version(u64),
    /// What was committed before this time, in milliseconds since 1970 (`tombstoneTtlMs`).
    Before(u64),
}

/// Where a compaction goes on. Plain data, for the cursor of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactionCursor {
    up_to: u64,
    tombstones_only: bool,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub struct Compaction {
    /// Entries removed by this step.
    pub removed: u64,
    /// Entries that the log has; none unless the compaction is done.
    pub kept: Option<u64>,
    /// Cookies below it get a reset.
    pub min_version: u64,
    /// Where to go on; none: done.
    pub next: Option<CompactionCursor>,
}

impl Engine {
    /// The first step.
    pub fn compact(&self, imports: Imports<'_>, up_to: CompactUpTo, tombstones_only: bool) -> Result<Compaction, Failure> {
        let _ = (imports, up_to, tombstones_only);
        todo!()
    }

    /// A later step.
    pub fn compact_on(&self, imports: Imports<'_>, cursor: CompactionCursor) -> Result<Compaction, Failure> {
        let _ = (imports, cursor);
        todo!()
    }
}
