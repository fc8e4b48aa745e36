//! Compiles the component, the empty app, the services and the adapters for Spin, to be built into the host.

include!("build_components.rs");

fn main() {
    let built = build_components(
        &[
            "syncline-component",
            "syncline-app-empty",
            "syncline-services",
            "syncline-spin-back",
            "syncline-spin-portable",
            "syncline-spin-service",
        ],
        &["guest/src", "guest/component", "guest/app", "guest/services", "guest/spin", "guest/Cargo.toml", "host/build_components.rs"],
    );
    for (variable, file) in [
        ("SYNCLINE_GUEST_COMPONENT", "syncline_component.wasm"),
        ("SYNCLINE_EMPTY_APP_COMPONENT", "syncline_app_empty.wasm"),
        ("SYNCLINE_SERVICES_COMPONENT", "syncline_services.wasm"),
        ("SYNCLINE_SPIN_BACK", "syncline_spin_back.wasm"),
        ("SYNCLINE_SPIN_PORTABLE", "syncline_spin_portable.wasm"),
        ("SYNCLINE_SPIN_SERVICE", "syncline_spin_service.wasm"),
    ] {
        println!("cargo::rustc-env={variable}={}", built.join(file).display());
    }
}
