//! The world `syncline:spin/back` as Rust types, generated.
//!
//! The types serve the whole crate; the imported functions work inside the component only and are reached through the
//! traits of [`crate::ports`].
#![allow(missing_docs, unsafe_code, clippy::all, rustdoc::all, reason = "generated")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "syncline:spin/back",
    pub_export_macro: true,
    default_bindings_module: "crate::bindings",
    additional_derives: [Clone, PartialEq],
    generate_all,
});
