//! The world of the front adapter (`wit/deps/spin/front.wit`) as Rust types, generated.
//!
//! The types serve the whole library; the imported functions work inside the component only and are reached through
//! [`crate::logic`] and [`crate::adapter`], never called directly.
#![allow(missing_docs, unsafe_code, clippy::all, rustdoc::all)]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "syncline:spin/front",
    additional_derives: [Clone, PartialEq],
    additional_derives_ignore: ["generated", "body-out", "response", "admission", "upgrade-result"],
    generate_all,
});
