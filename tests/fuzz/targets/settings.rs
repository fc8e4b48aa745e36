//! Settings of a mount, the policy among them: every problem is named, and what is valid can be served.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syncline_guest::secsync::plan::plan;
use syncline_guest::secsync::policy::Action;
use syncline_guest::secsync::settings::Settings;

fuzz_target!(|text: &str| {
    let settings = match Settings::parse(text) {
        Ok(settings) => settings,
        Err(problems) => {
            assert!(!problems.is_empty() && problems.iter().all(|problem| problem.contains(": ")), "{problems:?}");
            return;
        }
    };
    assert!(settings.path.is_empty() || settings.path.starts_with('/') && !settings.path.ends_with('/'), "{:?}", settings.path);
    assert!(settings.max_message_bytes > 0 && settings.max_backlog_bytes > 0);
    let plan = plan(&settings);
    assert_eq!(plan.routes.is_empty(), !settings.enabled);
    let allowed = settings.access.allows(Action::Read, "key", "document", None);
    let as_author = settings.access.allows(Action::Read, "key", "document", Some("author"));
    assert!(allowed || !as_author, "an author changes no reading");
    settings.auto_create.allows("document");
    settings.updates_limit("document");
    assert_eq!(Settings::parse(text).as_ref(), Ok(&settings));
});
