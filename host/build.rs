//! Compiles the component, the empty app and the services, to be built into the host.

include!("build_components.rs");

fn main() {
    let built = build_components(
        &["syncline-component", "syncline-app-empty", "syncline-services"],
        &["guest/src", "guest/component", "guest/app", "guest/services", "guest/Cargo.toml", "host/build_components.rs"],
    );
    for (variable, file) in [
        ("SYNCLINE_GUEST_COMPONENT", "syncline_component.wasm"),
        ("SYNCLINE_EMPTY_APP_COMPONENT", "syncline_app_empty.wasm"),
        ("SYNCLINE_SERVICES_COMPONENT", "syncline_services.wasm"),
    ] {
        println!("cargo::rustc-env={variable}={}", built.join(file).display());
    }
}
