//! The front over a scripted logic, an adapter in memory and a clock that is only moved by waiting.

mod due;
mod gateway;
mod parked;
mod requests;
mod streams;
mod support;
