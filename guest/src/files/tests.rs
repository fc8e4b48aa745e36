use super::*;
use crate::imports::Header;
use crate::registry::BodyOut;
use crate::test_host::HostInMemory;

/// A host with some files.
fn host() -> HostInMemory {
    let host = HostInMemory::default();
    for (path, content) in
        [("index.html", "<p>home"), ("a b.txt", "text"), ("deep/index.html", "<p>deep"), (".env", "secret"), (".well-known/x", "known")]
    {
        host.storage.objects.borrow_mut().insert(format!("files/{path}"), content.into());
    }
    host
}

fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> RequestHead {
    RequestHead {
        method: method.into(),
        path: path.into(),
        query: None,
        headers: headers.iter().map(|(name, value)| header(name, *value)).collect(),
        remote_address: "::1".into(),
        secure: false,
    }
}

fn ask(host: &HostInMemory, settings: &str, head: &RequestHead) -> Response {
    answer::answer(&Settings::parse(settings).expect("valid settings"), host.imports(), head)
}

/// Status, and the body as text.
fn got(response: &Response) -> (u16, String) {
    let body = match &response.body {
        BodyOut::Bytes(bytes) => String::from_utf8(bytes.clone()).expect("text"),
        _ => String::new(),
    };
    (response.status, body)
}

fn value<'a>(headers: &'a [Header], name: &str) -> &'a str {
    let found = headers.iter().find(|header| header.name == name);
    found.map(|header| std::str::from_utf8(&header.value).expect("text")).unwrap_or_default()
}

#[test]
fn a_path_means_the_file_below_the_folder_and_nothing_else() {
    let host = host();
    for (path, expected) in [
        ("/", (200, "<p>home")),
        ("/index.html", (200, "<p>home")),
        ("/a%20b.txt", (200, "text")),
        ("/deep/", (200, "<p>deep")),
        ("/.well-known/x", (200, "known")),
        ("/deep", (308, "")),
        ("/.env", (404, "not found\n")),
        ("/%2eenv", (404, "not found\n")),
        ("/deep/../.env", (404, "not found\n")),
        ("/deep/%2e%2e/index.html", (404, "not found\n")),
        ("/deep/.well-known/x", (404, "not found\n")),
        ("//deep", (404, "not found\n")),
        ("/deep//index.html", (404, "not found\n")),
        ("/deep/.", (404, "not found\n")),
        ("/a%20b.txt/", (404, "not found\n")),
        ("/nowhere", (404, "not found\n")),
    ] {
        let (status, body) = got(&ask(&host, r#"{"folder": "web"}"#, &head("GET", path, &[])));
        assert_eq!((status, body.as_str()), expected, "{path}");
    }
}

#[test]
fn a_folder_without_its_slash_leads_to_it() {
    let mut asked = head("GET", "/web/deep", &[]);
    asked.query = Some("q=1".into());
    let response = ask(&host(), r#"{"folder": "web", "path": "/web/"}"#, &asked);
    assert_eq!(value(&response.headers, "location"), "/web/deep/?q=1");
    let root = ask(&host(), r#"{"folder": "web", "path": "/web"}"#, &head("GET", "/web", &[]));
    assert_eq!((root.status, value(&root.headers, "location")), (308, "/web/"));
}

#[test]
fn paths_of_an_app_get_its_page_and_missing_files_do_not() {
    let host = host();
    let settings = r#"{"folder": "web", "fallback": "index.html"}"#;
    assert_eq!(got(&ask(&host, settings, &head("GET", "/lists/7", &[]))), (200, "<p>home".into()));
    assert_eq!(ask(&host, settings, &head("GET", "/lists/script.js", &[])).status, 404);
    assert_eq!(ask(&host, settings, &head("GET", "/../x", &[])).status, 404);
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let host = host();
    let settings = r#"{"folder": "web", "cacheControl": "max-age=60", "headers": {"X-Frame-Options": "DENY"}}"#;
    let response = ask(&host, settings, &head("GET", "/", &[]));
    let etag = value(&response.headers, "etag");
    assert_eq!((value(&response.headers, "cache-control"), value(&response.headers, "x-frame-options")), ("max-age=60", "DENY"));
    assert_eq!(value(&response.headers, "x-content-type-options"), "nosniff");
    for tags in [etag.to_owned(), etag.trim_start_matches("W/").to_owned(), format!("\"other\", {etag}"), "*".into()] {
        assert_eq!(got(&ask(&host, settings, &head("GET", "/", &[("if-none-match", &tags)]))), (304, String::new()), "{tags}");
    }
    assert_eq!(ask(&host, settings, &head("GET", "/", &[("if-none-match", "\"other\"")])).status, 200);
}

#[test]
fn large_files_do_not_pass_the_component() {
    let host = host();
    host.storage.objects.borrow_mut().insert("files/large".into(), vec![0; 1 + (1 << 20)]);
    let response = ask(&host, r#"{"folder": "web"}"#, &head("GET", "/large", &[]));
    assert!(matches!(response.body, BodyOut::Object((ref key, None)) if key == "files/large"));
}

#[test]
fn only_reading_is_admitted() {
    let host = host();
    let mount = Files.configure("files", r#"{"folder": "web"}"#, Vec::new()).expect("valid settings");
    let Admission::Refuse(refusal) = mount.admit(host.imports(), 1, head("POST", "/", &[])) else { panic!("it was admitted") };
    assert_eq!((refusal.status, value(&refusal.headers, "allow")), (405, "GET, HEAD"));
    assert!(matches!(mount.admit(host.imports(), 1, head("HEAD", "/", &[])), Admission::Accept(_)));
}

#[test]
fn settings_are_refused_by_key() {
    for (settings, problem) in [
        ("{}", "folder: is required"),
        (r#"{"folder": "a", "index": "../x"}"#, "index: must be"),
        (r#"{"folder": "a", "fallback": ".env"}"#, "fallback: must be"),
        (r#"{"folder": "a", "path": "x"}"#, "path: must be empty or begin with a slash"),
        (r#"{"folder": "a", "headers": {"Etag": "x"}}"#, "headers: \"etag\" is set by the server itself"),
        (r#"{"folder": "a", "headers": {"x y": "x"}}"#, "headers: \"x y\" is not a header"),
        (r#"{"folder": "a", "cacheControl": "a\nb"}"#, "cache_control: must be printable"),
        (r#"{"folder": "a", "listing": true}"#, "listing: unknown key"),
    ] {
        let problems = Settings::parse(settings).expect_err(settings);
        assert!(problems.iter().any(|said| said.starts_with(problem)), "{settings}: {problems:?}");
    }
}
