//! What the built components ask their host for.

use syncline::compose;
use syncline::runtime::{EMPTY_APP_COMPONENT, GUEST_COMPONENT, SERVICES_COMPONENT};
use wasmparser::{Parser, Payload, Validator};

/// Packages and interfaces that a host without network and files can give.
const ALLOWED: &[&str] = &["syncline:host/", "syncline:app/", "wasi:clocks/", "wasi:random/", "wasi:io/", "wasi:cli/"];

/// The imports of the outermost component.
fn imports(component: &[u8]) -> Vec<String> {
    Validator::new().validate_all(component).expect("the component is valid");
    let (mut depth, mut imports) = (0_u32, Vec::new());
    for payload in Parser::new(0).parse_all(component) {
        match payload.expect("the component can be parsed") {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(section.into_iter().map(|import| import.expect("imports can be parsed").name.name.to_owned()));
            }
            _ => {}
        }
    }
    imports
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
