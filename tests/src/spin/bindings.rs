//! Spin's interfaces (`wit/deps/fermyon-spin/`) as wasmtime sees them, generated.
#![allow(missing_docs, unsafe_code, clippy::all, rustdoc::all)]

wasmtime::component::bindgen!({
    path: "../wit/deps/fermyon-spin",
    inline: "
        package syncline:tests;
        world spin {
            import fermyon:spin/sqlite@2.0.0;
            import fermyon:spin/key-value@2.0.0;
            import fermyon:spin/variables@2.0.0;
            import fermyon:spin/redis@2.0.0;
            import fermyon:spin/postgres@2.0.0;
        }
    ",
    world: "syncline:tests/spin",
    imports: { default: async | trappable },
    with: {
        "fermyon:spin/sqlite.connection": crate::spin::sqlite::Connection,
        "fermyon:spin/key-value.store": crate::spin::key_value::Store,
        "fermyon:spin/redis.connection": crate::spin::redis::Connection,
        "fermyon:spin/postgres.connection": crate::spin::postgres::Connection,
    },
});
