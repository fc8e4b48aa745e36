//! The rows of docs/protocols/secsync.md, told as stories.

mod access;
mod app;
mod bad_input;
mod connecting;
mod failures;
mod model;
mod properties;
mod retention;
mod saving;
mod settings;
mod worked_example;
