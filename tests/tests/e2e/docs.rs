//! What the documentation shows must work as it stands there.

use std::path::{Path, PathBuf};

use syncline_tests::process::command;
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
    let mut checked = 0;
    for path in pages() {
        let page = std::fs::read_to_string(&path).expect("it can be read");
        for block in blocks(&page, "toml") {
            let file = folder.path().join("syncline.toml");
            std::fs::write(&file, &block).expect("it can be written");
            let output = command(&["check-config", "--config"]).arg(&file).output().await.expect("the binary is built");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}:\n{block}\n{said}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} configurations were found");
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
