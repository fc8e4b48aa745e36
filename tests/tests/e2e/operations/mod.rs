//! What whoever runs the server does: look, back up, restore, stop.

mod address_space;
mod backup;
mod configuration;
mod control;
mod doctor;
mod frozen;
mod metrics;
mod postgres;
mod readiness;
