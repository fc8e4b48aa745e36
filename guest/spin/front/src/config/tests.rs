use proptest::prelude::*;

use super::*;

fn said(text: &str) -> String {
    Config::parse(text).unwrap_err().to_string()
}

#[test]
fn an_empty_configuration_has_the_defaults_of_spin() {
    let config = Config::parse("{}").unwrap();
    assert!(matches!(&config.settings.database, adapter::Database::Sqlite(label) if label == "default"));
    assert!(matches!(config.settings.objects, adapter::Objects::Database));
    assert_eq!((config.settings.key_value.as_str(), config.settings.redis), ("default", None));
    assert_eq!(config.limits, Limits { max_body_bytes: 10_485_760, stream_ms: 0, streams: 100, object_bytes: 1_073_741_824 });
    assert!(config.mounts.is_empty() && config.gateway_secret.is_none());
}

#[test]
fn mounts_have_a_name_and_their_path_among_the_settings() {
    let text = r#"{"mount": [{"name": "notes", "protocol": "plasma", "path": "/sync", "settings": {"a": 1}}, {"protocol": "secsync", "quota_bytes": 0}]}"#;
    let mounts = Config::parse(text).unwrap().mounts;
    assert_eq!(mounts[0].settings, r#"{"a":1,"path":"/sync"}"#);
    assert_eq!((mounts[0].name.as_str(), mounts[1].name.as_str(), mounts[1].settings.as_str()), ("notes", "secsync", "{}"));
    assert!(said(r#"{"mount": [{"protocol": "a", "path": "/a", "settings": {"path": "/b"}}]}"#).contains("mount[0].path: "));
    assert!(said(r#"{"mount": [{"protocol": "a"}, {"protocol": "a"}]}"#).contains("mount[1].name: "));
    assert!(said(r#"{"mount": [{"protocol": "a", "name": "syncline"}]}"#).contains("mount[0].name: "));
    assert!(said(r#"{"mount": [{"protocol": "a", "name": ""}]}"#).contains("mount[0].name: "));
    assert!(said(r#"{"mount": [{"protocol": "a", "quota_bytes": 9}, {"protocol": "b"}]}"#).contains("mount[1].quota_bytes: "));
}

#[test]
fn settings_may_stand_in_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"depth": 3}"#).unwrap();
    let config = |beside: &str| {
        let file = serde_json::to_string(file.path()).unwrap();
        Config::parse(&format!(r#"{{"mount": [{{"protocol": "a", "settings_file": {file}{beside}}}]}}"#))
    };
    assert_eq!(config("").unwrap().mounts[0].settings, r#"{"depth":3}"#);
    assert!(config(r#", "settings": {}"#).unwrap_err().to_string().contains("mount[0].settings_file: "));
    assert!(said(r#"{"mount": [{"protocol": "a", "settings_file": "missing.json"}]}"#).contains("missing.json"));
}

#[test]
fn places_are_read_and_wrong_ones_are_named() {
    let settings = |text: &str| Config::parse(text).unwrap().settings;
    assert!(
        matches!(settings(r#"{"executor": "postgres://me:pw@db/x"}"#).database, adapter::Database::Postgres(url) if url == "postgres://me:pw@db/x")
    );
    assert_eq!(settings(r#"{"pubsub": "redis://h:1"}"#).redis.as_deref(), Some("redis://h:1"));
    let bucket = r#"{"storage": {"objects": "s3://pages?endpoint=http://h:9/&region=r", "s3_access_key": "a", "s3_secret_key": "s"}}"#;
    let adapter::Objects::Bucket(bucket) = settings(bucket).objects else { panic!("no bucket") };
    assert_eq!((bucket.endpoint.as_str(), bucket.region.as_str(), bucket.name.as_str()), ("http://h:9", "r", "pages"));
    for (text, key) in [
        (r#"{"executor": "mysql://x"}"#, "executor"),
        (r#"{"executor": "sqlite:"}"#, "executor"),
        (r#"{"storage": {"keyvalue": "a b"}}"#, "storage.keyvalue"),
        (r#"{"storage": {"objects": "file:x"}}"#, "storage.objects"),
        (r#"{"storage": {"objects": "s3://b"}}"#, "storage.s3_access_key"),
        (r#"{"storage": {"objects": "s3://b?x=1"}}"#, "storage.objects"),
        (r#"{"pubsub": "postgres:"}"#, "pubsub"),
        (r#"{"trusted_proxies": ["proxy"]}"#, "trusted_proxies"),
        (r#"{"tick_token": ""}"#, "tick_token"),
        (r#"{"gateway": {"secret": ""}}"#, "gateway.secret"),
        (r#"{"limits": {"max_body_bytes": 0}}"#, "limits.max_body_bytes"),
    ] {
        assert!(said(text).starts_with(&format!("config: {key}: ")), "{}", said(text));
    }
}

#[test]
fn an_unknown_key_is_named_and_no_value_is_quoted() {
    for (text, key) in [
        (r#"{"exector": 1}"#, "exector"),
        (r#"{"limits": {"stream": 1}}"#, "stream"),
        (r#"{"mount": [{"protocol": "a", "app": 1}]}"#, "app"),
    ] {
        assert!(said(text).contains(&format!("unknown field `{key}`")), "{}", said(text));
    }
    for text in
        [r#"{"admin_token": ["secret-token"]}"#, r#"{"mount": "secret-token"}"#, r#"{"executor": secret-token}"#, r#"{"secret-token": 1}"#]
    {
        assert!(!said(text).contains("secret-token"), "{}", said(text));
    }
    let config = Config::parse(r#"{"admin_token": "secret-token"}"#).unwrap();
    assert!(!format!("{:?}", config.admin_token).contains("secret-token"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_on_one_line(text in any::<String>()) {
        if let Err(error) = Config::parse(&text) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}

#[test]
fn what_the_page_shows_and_what_is_shipped_can_be_read() {
    let page = include_str!("../../../../../docs/spin.md");
    let example = page.split_once("```json\n").and_then(|(_, rest)| rest.split_once("```")).expect("the page has an example").0;
    let names = |text: &str| Config::parse(text).expect("it is valid").mounts.into_iter().map(|mount| mount.name).collect::<Vec<_>>();
    assert_eq!(names(example), ["plasma", "secsync"]);
    let conformance = include_str!("../../../../../tests/conformance/spin-config.json");
    assert_eq!(names(conformance), ["plasma", "secsync", "secsync-policy"]);
    for manifest in [include_str!("../../../../../spin.toml"), include_str!("../../../../../spin.portable.toml")] {
        let config = manifest.split_once("default = '''").and_then(|(_, rest)| rest.split_once("'''")).expect("it has a default").0;
        assert_eq!(names(config), ["secsync", "plasma"]);
    }
}

#[test]
fn the_conformance_configuration_has_the_settings_of_the_fixtures() {
    let read = |text: &str| serde_json::from_str::<Value>(text).expect("it is JSON");
    let config = read(include_str!("../../../../../tests/conformance/spin-config.json"));
    assert_eq!(config["mount"][0]["settings"], read(include_str!("../../../../../tests/conformance/plasma.fixture.json")));
    assert_eq!(config["mount"][2]["settings"], read(include_str!("../../../../../tests/conformance/secsync-policy.json")));
}
