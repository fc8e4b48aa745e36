//! The contract (`wit/`) as Rust types, generated.
//!
//! The types serve the whole library; the imported functions work inside the component only and are reached
//! through the traits of [`crate::imports`], never called directly.
#![allow(missing_docs, unsafe_code, clippy::all, rustdoc::all)]

wit_bindgen::generate!({
    path: "../wit",
    world: "syncline:sync/guest",
    pub_export_macro: true,
    default_bindings_module: "syncline_guest::contract",
    additional_derives: [Clone, PartialEq],
    additional_derives_ignore: ["generated", "body-out", "response", "admission", "upgrade-result"],
    generate_all,
});
