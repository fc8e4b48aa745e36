//! What the documentation shows must work as it stands there.

use std::path::{Path, PathBuf};

use syncline::config::Config;
use syncline::runtime::{Checker, GUEST_COMPONENT};
use syncline_tests::server::Setup;
use syncline_tests::tls::Certificate;

/// Every Markdown file of the user guide.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    for folder in [root.join("docs"), root.join("docs/protocols")] {
        let entries = std::fs::read_dir(&folder).expect("the folder is there");
        let files = entries.map(|entry| entry.expect("it can be listed").path());
        pages.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    pages
}

/// The code blocks of a language in a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    page.split(start.as_str()).skip(1).filter_map(|rest| rest.split("\n```").next()).map(|block| format!("{block}\n")).collect()
}

#[tokio::test]
async fn every_configuration_in_the_documentation_is_valid() {
    let folder = tempfile::tempdir().expect("a folder");
    Certificate::new("localhost").write(&folder.path().join("fullchain.pem"), &folder.path().join("key.pem"));
    // As `check-config`, with one compiled component for all.
    let checker = Checker::new(GUEST_COMPONENT, Setup::default().runtime).expect("it is a component");
    let mut checked = 0;
    for path in pages() {
        let page = std::fs::read_to_string(&path).expect("it can be read");
        for block in blocks(&page, "toml") {
            let file = folder.path().join("syncline.toml");
            std::fs::write(&file, &block).expect("it can be written");
            let wrong = |error: &dyn std::error::Error| format!("{}:\n{block}\n{error}", path.display());
            let config = Config::read(&file).unwrap_or_else(|error| panic!("{}", wrong(&error)));
            config.check().unwrap_or_else(|error| panic!("{}", wrong(&error)));
            let server = config.server_settings().unwrap_or_else(|error| panic!("{}", wrong(&error)));
            server.check().unwrap_or_else(|error| panic!("{}", wrong(&error)));
            let mounts = config.mount_settings().unwrap_or_else(|error| panic!("{}", wrong(&error)));
            checker.describe_all(&mounts).await.unwrap_or_else(|error| panic!("{}", wrong(&error)));
            checked += 1;
        }
    }
    assert!(checked >= 10, "only {checked} configurations were found");
}

/// What follows is of a file that a test runs (`tests/clients/example.test.mjs`, `apps/new_app.rs`).
const EXCERPT: &str = "// From ";

#[test]
fn every_excerpt_of_a_file_is_what_the_file_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = 0;
    for path in pages() {
        let page = std::fs::read_to_string(&path).expect("it can be read");
        let blocks = [blocks(&page, "js"), blocks(&page, "rust"), blocks(&page, "ts")].concat();
        for block in blocks.iter().filter_map(|block| block.strip_prefix(EXCERPT)) {
            let (name, excerpt) = block.split_once('\n').expect("the name of the file has a line of its own");
            let file = std::fs::read_to_string(root.join(name)).expect("the file is there");
            assert!(file.contains(excerpt), "{} shows what {name} does not say:\n{excerpt}", path.display());
            found += 1;
        }
    }
    assert!(found >= 3, "only {found} excerpts were found");
}

#[test]
fn every_page_that_the_documentation_links_to_is_there() {
    for path in pages() {
        let page = std::fs::read_to_string(&path).expect("it can be read");
        let folder = path.parent().expect("a file is in a folder");
        let links = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.map(|link| link.split('#').next().unwrap_or_default()).filter(|link| !link.is_empty() && !link.contains("://")) {
            assert!(folder.join(link).exists(), "{} links to {link}", path.display());
        }
    }
}
