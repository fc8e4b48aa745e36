//! Stories about the engine, on a host in memory.

mod app;
mod compacting;
mod migrating;
mod model;
mod plans;
mod pulling;
mod pushing;
mod support;
mod visibility;
mod writing;
