//! What the built components ask their host for.

use syncline::compose::{self, Spin};
use syncline::runtime::{EMPTY_APP_COMPONENT, GUEST_COMPONENT, SERVICES_COMPONENT};
use wasmparser::{Parser, Payload, Validator};

/// Packages and interfaces that a host without network and files can give.
const ALLOWED: &[&str] = &["syncline:host/", "syncline:app/", "wasi:clocks/", "wasi:random/", "wasi:io/", "wasi:cli/"];

/// What every Spin has from 2.7 on.
const SPIN_PORTABLE: &[&str] = &[
    "fermyon:spin/sqlite@2.0.0",
    "fermyon:spin/key-value@2.0.0",
    "fermyon:spin/postgres@2.0.0",
    "fermyon:spin/rdbms-types@2.0.0",
    "fermyon:spin/redis@2.0.0",
    "fermyon:spin/variables@2.0.0",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/outgoing-handler@0.2.",
    "wasi:http/types@0.2.",
    "wasi:io/",
    "wasi:random/",
];
/// What Spin has besides from 4.1 on.
const SPIN_SERVICE: &[&str] = &["wasi:http/types@0.3.0"];
/// Names of WASI 0.3, which older ones do not know.
const WASI_3: &str = "@0.3.";

/// The imports of the outermost component.
fn imports(component: &[u8]) -> Vec<String> {
    outer_names(component).0
}

/// The imports and the exports of the outermost component.
fn outer_names(component: &[u8]) -> (Vec<String>, Vec<String>) {
    Validator::new().validate_all(component).expect("the component is valid");
    let (mut depth, mut imports, mut exports) = (0_u32, Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(component) {
        match payload.expect("the component can be parsed") {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().map(|import| import.expect("imports can be parsed").name.name.to_owned()));
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(section.into_iter().map(|export| export.expect("exports can be parsed").name.name.to_owned()));
            }
            _ => {}
        }
    }
    (imports, exports)
}

fn assert_modest(name: &str, imports: &[String]) {
    for import in imports {
        assert!(ALLOWED.iter().any(|allowed| import.starts_with(allowed)), "{name} imports {import}");
    }
}

#[test]
fn the_component_asks_for_nothing_but_its_host_and_a_clock() {
    let imports = imports(GUEST_COMPONENT);
    assert_modest("the component", &imports);
    for interface in ["executor", "storage", "pubsub"] {
        assert!(imports.iter().any(|import| import.starts_with(&format!("syncline:host/{interface}@"))), "{interface} in {imports:?}");
    }
}

#[test]
fn services_ask_for_no_app() {
    let imports = imports(SERVICES_COMPONENT);
    assert_modest("services", &imports);
    assert!(!imports.iter().any(|import| import.starts_with("syncline:app/")), "{imports:?}");
}

#[test]
fn what_is_composed_asks_for_nothing_but_a_host() {
    let app = std::fs::read(env!("SYNCLINE_SECSYNC_APP")).expect("the tests' app was built");
    for (what, composed) in [
        ("the app", compose::with_services(&app).expect("it fits").into_owned()),
        ("the whole", compose::whole(Some(&app)).expect("it fits")),
    ] {
        let imports = imports(&composed);
        assert_modest(what, &imports);
        assert!(!imports.iter().any(|import| import.starts_with("syncline:app/")), "{what} imports {imports:?}");
    }
}

#[test]
fn the_empty_app_asks_for_no_more_than_the_component() {
    assert_modest("the empty app", &imports(EMPTY_APP_COMPONENT));
}

#[test]
fn what_is_composed_for_spin_asks_for_what_spin_has_and_is_one_handler() {
    let app = std::fs::read(env!("SYNCLINE_SECSYNC_APP")).expect("the tests' app was built");
    for spin in [Spin::Portable, Spin::Service] {
        for app in [None, Some(app.as_slice())] {
            let (imports, exports) = outer_names(&compose::for_spin(app, spin).expect("it fits"));
            assert_eq!(exports, [spin.handler()]);
            for import in &imports {
                let allowed = |names: &[&str]| names.iter().any(|name| import.starts_with(name));
                let is_new = import.contains(WASI_3) && spin == Spin::Service;
                assert!(allowed(SPIN_PORTABLE) || allowed(SPIN_SERVICE) && is_new, "{spin:?} imports {import}");
                assert!(is_new || !import.contains(WASI_3), "{spin:?} imports {import}");
            }
            assert!(imports.iter().any(|import| import == "fermyon:spin/sqlite@2.0.0"), "{imports:?}");
        }
    }
}

#[test]
fn an_app_that_is_none_is_not_composed_for_spin_either() {
    for (component, problem) in [(GUEST_COMPONENT, "does not export"), (b"nonsense".as_slice(), "not a WebAssembly component")] {
        let error = compose::for_spin(Some(component), Spin::Portable).expect_err("it is no app");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn what_is_composed_for_spin_knows_with_what() {
    let app = std::fs::read(env!("SYNCLINE_SECSYNC_APP")).expect("the tests' app was built");
    let of = |app| compose::for_spin(app, Spin::Portable).expect("it fits");
    assert_eq!(of(None), of(None), "nothing of it is by chance");
    let placeholder = b"composed-parts-is-written-here";
    assert!(!of(Some(&app)).windows(placeholder.len()).any(|window| window == placeholder));
}
