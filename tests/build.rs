//! Compiles the test components, beside those of the host.

include!("../host/build_components.rs");

fn main() {
    let built = build_components(
        &["syncline-test-faulty", "syncline-test-bad-app", "syncline-test-secsync-app"],
        &["tests/components", "tests/build.rs", "host/build_components.rs"],
    );
    for (variable, file) in [
        ("SYNCLINE_FAULTY_COMPONENT", "syncline_test_faulty.wasm"),
        ("SYNCLINE_BAD_APP", "syncline_test_bad_app.wasm"),
        ("SYNCLINE_SECSYNC_APP", "syncline_test_secsync_app.wasm"),
    ] {
        println!("cargo::rustc-env={variable}={}", built.join(file).display());
    }
}
