//! The contract (`wit/`) as wasmtime sees it, generated.
#![allow(missing_docs, unsafe_code, clippy::all, rustdoc::all)]

/// The component that holds the logic.
pub mod guest {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "syncline:sync/guest",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "syncline:host/executor.snapshot": crate::runtime::imports::executor::OpenSnapshot,
            "syncline:host/executor.transaction": crate::runtime::imports::executor::OpenTransaction,
        },
    });
}

/// A user's app component.
pub mod app {
    wasmtime::component::bindgen!({
        path: "../wit/deps/app",
        inline: "
            package syncline:bridge;
            world component { export syncline:app/app@0.1.0; }
        ",
        world: "syncline:bridge/component",
        exports: { default: async },
    });
}
