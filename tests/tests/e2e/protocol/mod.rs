//! What must work, by the sections of the protocol.
//!
//! `document` is the first frame (2.3), `joining` what follows it (2.4), `saving` the conversations of 4.3 and 5, `access`
//! the rules (6), `places` ids, mounts and restarts, `sizes` large things and what is dropped, `model` all of it at random.

mod access;
mod document;
mod joining;
mod model;
mod places;
mod saving;
mod sizes;
