//! Fault tests: groups that are lost, delayed or refused, databases that fail, processes that are killed, and a
//! component that traps, loops and takes what it can get. Nothing that rests on lost data may leave, and whoever is not
//! concerned must not notice.
//!
//! * [`lost`], [`delayed`], [`races`], [`random`]: the shipped component over commits that fail or take their time.
//! * [`failing`]: databases that answer with errors; [`killed`] and [`plasma_killed`]: `kill -9` of the shipped
//!   binary; [`restarted`]: a PostgreSQL server that crashes; [`disk`]: disks that are full or cannot be written, and quotas; [`damaged`]: files that are not what they should be.
//! * [`component`]: a component that does what its client says, faults included.

mod commits;
mod component;
mod damaged;
mod delayed;
mod disk;
mod documents;
mod failing;
mod killed;
mod lost;
mod plasma_killed;
mod races;
mod random;
mod restarted;
