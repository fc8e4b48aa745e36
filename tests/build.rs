//! Compiles the test components, beside those of the host.

include!("../host/build_components.rs");

fn main() {
    let built = build_components(
        &[
            "syncline-test-faulty",
            "syncline-test-bad-app",
            "syncline-test-plasma-app",
            "syncline-test-secsync-app",
            "syncline-test-spin-probe",
        ],
        &["tests/components", "tests/build.rs", "host/build_components.rs"],
    );
    for (variable, file) in [
        ("SYNCLINE_FAULTY_COMPONENT", "syncline_test_faulty.wasm"),
        ("SYNCLINE_BAD_APP", "syncline_test_bad_app.wasm"),
        ("SYNCLINE_PLASMA_APP", "syncline_test_plasma_app.wasm"),
        ("SYNCLINE_SECSYNC_APP", "syncline_test_secsync_app.wasm"),
        ("SYNCLINE_SPIN_PROBE", "syncline_test_spin_probe.wasm"),
    ] {
        println!("cargo::rustc-env={variable}={}", built.join(file).display());
    }
}
