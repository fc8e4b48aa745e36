//! What the fake of Spin promises, and Spin keeps: with SYNCLINE_TEST_HOST=spin-up the same tests run on `spin up`.

mod http;
mod keys;
mod outbound;
mod postgres;
mod redis;
mod served;
mod sqlite;
mod table;

use std::path::Path;

use ::http::Method;
use serde_json::{Value, json};
use syncline_tests::http::request;
use syncline_tests::spin::{Kind, PROBE, Spin, SpinSettings, chosen};
use tempfile::TempDir;

fn kind() -> Kind {
    chosen().unwrap_or(Kind::Fake)
}

/// A Spin with the probe.
struct Probe {
    spin: Spin,
    folder: TempDir,
}

impl Probe {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut SpinSettings)) -> Self {
        Self::on(tempfile::tempdir().expect("folders can be made"), change).await
    }

    async fn on(folder: TempDir, change: impl FnOnce(&mut SpinSettings)) -> Self {
        let mut settings = settings(folder.path());
        change(&mut settings);
        Self { spin: Spin::start(kind(), settings).await.expect("it starts"), folder }
    }

    /// What each step gave.
    async fn run(&self, steps: Value) -> Vec<Value> {
        let answer = request(self.spin.address(), &Method::POST, "/run", &[], steps.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json().as_array().expect("results are a list").clone()
    }

    async fn stop(self) -> TempDir {
        self.spin.stop().await;
        self.folder
    }
}

fn settings(folder: &Path) -> SpinSettings {
    SpinSettings::new(std::fs::read(PROBE).expect("it was built"), folder)
}

/// The error of a step has these words.
fn fails(result: &Value, words: &str) {
    assert!(result["error"].as_str().is_some_and(|error| error.contains(words)), "{words:?} is missing in {result}");
}

#[tokio::test]
async fn what_is_no_component_for_spin_does_not_start() {
    for component in [b"no component".to_vec(), syncline::runtime::EMPTY_APP_COMPONENT.to_vec()] {
        let folder = tempfile::tempdir().expect("folders can be made");
        let settings = SpinSettings { component, ..settings(folder.path()) };
        assert!(Spin::start(kind(), settings).await.is_err());
    }
}

#[tokio::test]
async fn variables_are_those_of_the_application() {
    let config = r#"{"a": "}}", "b": ["{", "x"]}"#;
    let probe = Probe::with(|settings| _ = settings.variables.insert("config".into(), config.into())).await;
    let get = |name: &str| json!({"do": "variable", "name": name});
    let results = probe.run(json!([get("config"), get("other"), get("No-Name")])).await;
    assert_eq!(results[0], config);
    fails(&results[1], "Undefined");
    fails(&results[2], "InvalidName");
}
