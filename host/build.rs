//! Compiles the component and the empty app, to be built into the host.

include!("build_components.rs");

fn main() {
    let built = build_components(
        &["syncline-component", "syncline-app-empty"],
        &["guest/src", "guest/component", "guest/app", "guest/Cargo.toml", "host/build_components.rs"],
    );
    for (variable, file) in
        [("SYNCLINE_GUEST_COMPONENT", "syncline_component.wasm"), ("SYNCLINE_EMPTY_APP_COMPONENT", "syncline_app_empty.wasm")]
    {
        println!("cargo::rustc-env={variable}={}", built.join(file).display());
    }
}
