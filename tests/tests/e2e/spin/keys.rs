//! Key-value.

use serde_json::{Value, json};
use syncline_tests::spin::Kind;

use super::{Probe, fails, kind};

fn step(what: &str, key: &str) -> Value {
    json!({"do": format!("key-value-{what}"), "label": "default", "key": key, "value": "v"})
}

#[tokio::test]
async fn values_are_kept_and_keys_are_all_keys() {
    let probe = Probe::start().await;
    let results = probe
        .run(json!([
            step("get", "a/1"),
            step("set", "a/1"),
            step("set", "b/1"),
            step("set", "a/2"),
            step("delete", "a/2"),
            step("delete", "never"),
            step("get", "a/1"),
            step("exists", "a/2"),
            {"do": "key-value-keys", "label": "other"},
        ]))
        .await;
    assert_eq!(results[..8], json!([null, null, null, null, null, null, "v", false]).as_array().expect("a list")[..]);
    fails(&results[8], "AccessDenied");
    let again = Probe::on(probe.stop().await, |_| {}).await;
    let keys = again.run(json!([step("keys", "")])).await;
    let mut keys: Vec<String> = serde_json::from_value(keys[0].clone()).expect("texts");
    keys.sort_unstable();
    assert_eq!(keys, ["a/1", "b/1"]);
}

#[tokio::test]
async fn values_may_be_large_unless_a_host_limits_them() {
    let set = |bytes: u32| json!({"do": "key-value-set", "label": "default", "key": "k", "bytes": bytes});
    let steps = json!([set(1 << 20), set((1 << 20) + 1), step("get", "k")]);
    let probe = Probe::start().await;
    assert_eq!(probe.run(steps.clone()).await, [Value::Null, Value::Null, json!((1 << 20) + 1)]);
    if kind() == Kind::Fake {
        let hosted = Probe::with(|settings| settings.value_bytes_max = Some(1 << 20)).await;
        let results = hosted.run(steps).await;
        fails(&results[1], "too large");
        assert_eq!(results[2], 1 << 20);
    }
}
