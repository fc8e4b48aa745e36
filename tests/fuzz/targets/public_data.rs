//! Additional fields of `publicData`: a schema, as in the settings, on the first line, the object on the others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use syncline_guest::secsync::frames::Kind;
use syncline_guest::secsync::settings::Settings;

const BASE: [&str; 3] = ["docId", "pubKey", "clock"];

fuzz_target!(|input: &str| {
    let Some((schema, object)) = input.split_once('\n') else { return };
    let Ok(schema) = serde_json::from_str::<Value>(schema) else { return };
    let Ok(object) = serde_json::from_str::<Map<String, Value>>(object) else { return };
    let Ok(settings) = Settings::parse(&json!({"additional_public_data": {"update": schema}}).to_string()) else { return };
    let (mut once, of) = (object.clone(), settings.schemas.of(Kind::Update));
    if !of.apply(&BASE, &mut once) {
        return;
    }
    let mut twice = once.clone();
    assert!(of.apply(&BASE, &mut twice) && twice == once, "what fits still fits");
    let fields = schema.as_object();
    for (name, value) in &once {
        assert_eq!(object.get(name), Some(value), "fields are cut off, never changed");
        let known = schema == "any" || BASE.contains(&name.as_str()) || fields.is_some_and(|fields| fields.contains_key(name));
        assert!(known, "{name} is in no schema");
    }
    let canonical = serde_json_canonicalizer::to_string(&once).expect("JSON");
    let read: Value = serde_json::from_str(&canonical).expect("canonical JSON is JSON");
    assert_eq!(serde_json_canonicalizer::to_string(&read).expect("JSON"), canonical, "canonical JSON stays as it is");
});
