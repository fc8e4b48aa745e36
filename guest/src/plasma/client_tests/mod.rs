//! The rows of docs/protocols/plasma.md as clients and whoever runs the server see them, told as stories.

mod bad_input;
mod blobs;
mod conversations;
mod edges;
mod hooks;
mod operating;
mod realtime;
mod requests;
mod settings;
mod support;
