//! Whatever comes, the server answers it, ignores it or closes that one connection, and goes on.
//!
//! `frames` holds messages that are none, `fields` messages of the wrong shape, `refusals` messages of the right shape in
//! the wrong place, `connecting` upgrades, `wire` what RFC 6455 forbids.

mod connecting;
mod fields;
mod frames;
mod refusals;
mod wire;
