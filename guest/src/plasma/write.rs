//! The layer that every write passes.
