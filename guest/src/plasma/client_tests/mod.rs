//! The rows of docs/protocols/plasma.md as clients and whoever runs the server see them, told as stories.

mod bad_input;
mod blobs;
mod conversations;
mod edges;
mod hooks;
mod live;
mod operating;
mod partial;
mod realtime;
mod regions;
mod requests;
mod sequencing;
mod settings;
mod simulated_writers;
mod support;
mod waiting;
