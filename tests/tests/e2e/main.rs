//! End to end: a client on one side of a socket, the shipped component in the real host on the other.
//!
//! `bad_input` holds what must be refused or ignored, `protocol` what must work, `server` what is around the protocols,
//! `plasma` that protocol, `tls` what is encrypted on the way, `hostile` clients that mean harm, `apps` what users write
//! themselves, `cli` the command, `files` folders that are served,
//! `operations` what whoever runs the server does, `sequencer` who may give out which version, `executors` and `postgres` databases,
//! `several` servers that share one, `spin` what the fake of Spin promises, `component` what the component may ask its host for.

mod apps;
mod bad_input;
mod cli;
mod component;
mod docs;
mod examples;
mod executors;
mod files;
mod hostile;
mod operations;
mod plasma;
mod plasma_language;
mod postgres;
mod protocol;
mod raw;
mod reload;
mod s3;
mod sequencer;
mod server;
mod several;
mod spin;
mod support;
mod tls;
