//! The component: exports `syncline-guest` to the host and gives it the host's imports. Nothing is decided here.
#![allow(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]

mod exports;

use exports::Component;

syncline_guest::contract::export!(Component with_types_in syncline_guest::contract);
