//! Section 10: uploads, reads, who may read, signed URLs, collection and reconciliation.

use serde_json::{Value as Json, json};

use super::support::*;
use crate::plasma::Plasma;
use crate::plasma::blobs::SWEEP_GRACE_MS;
use crate::registry::Protocol as _;
use crate::test_host::sha256;

const ADMIN: &str = "admin-secret";

fn path(hash: &str) -> String {
    format!("/sync/blob/{hash}")
}

fn put(bytes: &[u8], content_type: &str) -> Ask {
    let ask = Ask { method: "PUT", body: bytes.to_vec(), ..Ask::get(&path(&sha256(bytes))) };
    ask.token("tok-alice").header("content-type", content_type)
}

fn read(hash: &str, token: &str) -> Ask {
    Ask::get(&path(hash)).token(token)
}

/// Uploads; gives the hash.
fn upload(server: &Server, bytes: &[u8]) -> String {
    let reply = server.ask(&put(bytes, "text/plain"));
    assert_eq!(reply.status, 201, "{reply:?}");
    sha256(bytes)
}

/// Documents with covers, as the server writes them: id, owner and hash.
fn save(server: &Server, documents: &[(&str, &str, &str)]) {
    for (id, owner, hash) in documents {
        let row = json!({"id": id, "owner": owner, "cover": {"hash": hash}});
        let reply = server.post("/admin/db", ADMIN, &json!({"as": null, "ops": [{"upsert": {"table": "docs", "row": row}}]}));
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

fn error_kinds(server: &Server) -> Vec<String> {
    let errors = server.get("/admin/errors", ADMIN).json();
    errors["errors"].as_array().unwrap().iter().map(|error| error["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_blob_is_kept_once_with_its_first_content_type() {
    let server = Server::new();
    let hash = sha256(b"hello");
    let reply = server.ask(&put(b"hello", "image/png"));
    assert_eq!((reply.status, reply.json()), (201, json!({"ok": true, "hash": hash, "size": 5})));
    let again = server.ask(&put(b"hello", "text/html"));
    assert_eq!((again.status, again.json()), (200, json!({"ok": true, "hash": hash, "size": 5})));
    assert_eq!(server.host.storage.objects.borrow().len(), 1, "the second object is gone");
    save(&server, &[("d", "alice", &hash)]);
    let reply = server.ask(&read(&hash, "tok-alice"));
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"hello"[..]));
    for (name, value) in [
        ("content-type", "image/png"),
        ("etag", &*format!("\"{hash}\"")),
        ("cache-control", "private, max-age=31536000, immutable"),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("content-disposition", ""),
    ] {
        assert_eq!(reply.header(name), value, "{name}");
    }
    let empty = server.ask(&put(b"", "").header("x", "y"));
    assert_eq!((empty.status, &empty.json()["size"]), (201, &json!(0)));
}

#[test]
fn types_that_could_run_as_pages_are_downloads() {
    let server = Server::new();
    for (content_type, shown) in [
        ("image/png", true),
        ("video/mp4", true),
        ("audio/ogg", true),
        ("text/plain; charset=utf-8", true),
        ("Application/PDF", true),
        ("image/svg+xml", false),
        ("text/html", false),
        ("application/octet-stream", false),
        ("", false),
    ] {
        let bytes = format!("as {content_type}").into_bytes();
        assert_eq!(server.ask(&put(&bytes, content_type)).status, 201);
        save(&server, &[("d", "alice", &sha256(&bytes))]);
        let reply = server.ask(&read(&sha256(&bytes), "tok-alice"));
        assert_eq!(reply.header("content-disposition"), if shown { "" } else { "attachment" }, "{content_type}");
        let kept = if content_type.is_empty() { "application/octet-stream" } else { content_type };
        assert_eq!(reply.header("content-type"), kept);
    }
}

#[test]
fn uploads_that_are_not_right_are_refused_by_kind() {
    let server = Server::with(json!({"blobs": {"maxBytes": 10}}));
    let wrong = Ask { body: b"other".to_vec(), ..put(b"hello", "") };
    let reply = server.ask(&wrong);
    assert_eq!(
        (reply.status, &reply.json()["error"], &reply.json()["hash"]),
        (422, &json!("blob-hash-mismatch"), &json!(sha256(b"hello")))
    );
    let large = server.ask(&put(b"hello hello", ""));
    assert_eq!((large.status, large.json()), (413, json!({"error": "payload-too-large", "limit": 10, "got": 11})));
    assert!(!server.body_was_read.get());
    let chunked = server.ask(&Ask { sized: false, ..put(b"hello hello", "") });
    assert_eq!((chunked.status, chunked.json()), (413, json!({"error": "payload-too-large", "limit": 10, "got": 11})));
    let reply = server.ask(&put(b"hello", &"x".repeat(256)));
    assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("blob-invalid-request")));
    for hash in ["x", &"A".repeat(64), &"a".repeat(63)] {
        let reply = server.ask(&Ask { method: "PUT", ..Ask::get(&path(hash)) }.token("tok-alice"));
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("blob-invalid-request")), "{hash}");
    }
    server.store_is_away.set(true);
    let reply = server.ask(&put(b"hello", ""));
    assert_eq!((reply.status, reply.json()), (502, json!({"error": "blob-upload-failed-server", "hash": sha256(b"hello")})));
    assert!(server.host.storage.objects.borrow().is_empty());
    let mut kinds = error_kinds(&server);
    kinds.dedup();
    let expected = ["blob-hash-mismatch", "invalid-request", "blob-invalid-request", "blob-upload-failed-server"];
    assert_eq!(kinds, expected);
    let schema = json!({"tables": {"t": {"columns": {"id": {"type": "text"}}, "primaryKey": ["id"]}}});
    let none = Server::with(json!({"blobs": null, "schema": schema, "mutators": null, "seed": null, "namedQueries": null}));
    assert_eq!(none.ask(&put(b"hello", "")).json(), json!({"error": "not-found"}));
}

#[test]
fn parts_and_conditions_are_honoured_after_the_permission() {
    let server = Server::new();
    let hash = upload(&server, b"0123456789");
    let tag = format!("\"{hash}\"");
    save(&server, &[("d", "alice", &hash)]);
    let ask = |name: &str, value: &str| server.ask(&read(&hash, "tok-alice").header(name, value));
    let part = ask("range", "bytes=2-4");
    assert_eq!((part.status, part.body.as_slice(), part.header("content-range")), (206, &b"234"[..], "bytes 2-4/10"));
    assert_eq!(ask("range", "bytes=-3").body, b"789");
    let beyond = ask("range", "bytes=10-");
    assert_eq!((beyond.status, beyond.body.as_slice(), beyond.header("content-range")), (416, &b""[..], "bytes */10"));
    assert_eq!(ask("range", "bytes=0-1,3-4").status, 200);
    let unchanged = ask("if-none-match", &tag);
    assert_eq!((unchanged.status, unchanged.body.as_slice(), unchanged.header("etag")), (304, &b""[..], &*tag));
    assert_eq!(server.ask(&read(&hash, "tok-alice").header("range", "bytes=0-1").header("if-range", "\"old\"")).status, 200);
    assert_eq!(server.ask(&read(&hash, "tok-alice").header("range", "bytes=0-1").header("if-range", &tag)).status, 206);
    assert_eq!(server.ask(&read(&hash, "tok-bob").header("if-none-match", &tag)).status, 403);
    let head = server.ask(&Ask { method: "HEAD", ..read(&hash, "tok-alice").header("range", "bytes=0-1") });
    assert_eq!((head.status, head.header("content-range")), (200, ""));
    assert_eq!(server.ask(&Ask::get(&format!("{}?auth=tok-alice", path(&hash)))).status, 200);
    let preflight = server.ask(&Ask { method: "OPTIONS", ..Ask::get(&path(&hash)).header("origin", "https://page") });
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, "https://page"));
}

#[test]
fn whoever_sees_a_row_that_refers_to_a_blob_may_read_it() {
    let server = Server::new();
    let hash = upload(&server, b"secret");
    let status = |token: &str| (server.ask(&read(&hash, token)).status, server.ask(&read(&hash, token)).json());
    assert_eq!(server.ask(&read(&sha256(b"none"), "tok-alice")).json(), json!({"error": "blob-not-found", "hash": sha256(b"none")}));
    let forbidden = (403, json!({"error": "forbidden", "reason": "blob-not-readable"}));
    assert_eq!(status("tok-alice"), forbidden, "not even who uploaded it, as long as no row refers to it");
    save(&server, &[("d", "alice", &hash)]);
    assert_eq!(server.ask(&read(&hash, "tok-alice")).body, b"secret");
    assert_eq!(status("tok-bob"), forbidden);
    // Of bob's reference four newer ones hide everything: the fixture looks at four.
    save(&server, &[("b", "bob", &hash)]);
    assert_eq!(server.ask(&read(&hash, "tok-bob")).status, 200);
    save(&server, &[("c1", "carol", &hash), ("c2", "carol", &hash), ("c3", "carol", &hash)]);
    assert_eq!(server.ask(&read(&hash, "tok-bob")).status, 200);
    save(&server, &[("c4", "carol", &hash)]);
    assert_eq!(status("tok-bob"), (403, json!({"error": "blob-read-auth-cap-hit", "hash": hash, "cap": 4})));
    assert!(error_kinds(&server).contains(&"blob-read-auth-cap-hit".to_owned()));
    // A reference that goes takes the right with it.
    for id in ["c1", "c2", "c3", "c4"] {
        server.post("/admin/db", ADMIN, &json!({"as": null, "ops": [{"delete": {"table": "docs", "pk": [id]}}]}));
    }
    assert_eq!(server.ask(&read(&hash, "tok-bob")).status, 200);
    assert_eq!(server.ask(&read(&hash, "tok-carol")).status, 403);
}

#[test]
fn all_references_are_looked_at_where_the_settings_say_so() {
    let server = Server::with(json!({"readAuthMode": "exact"}));
    let hash = upload(&server, b"viral");
    save(&server, &[("b", "bob", &hash)]);
    for id in 0..20 {
        save(&server, &[(&format!("c{id}"), "carol", &hash)]);
    }
    assert_eq!(server.ask(&read(&hash, "tok-bob")).status, 200);
    assert_eq!(server.ask(&read(&hash, "tok-alice")).json()["reason"], "blob-not-readable");
}

#[test]
fn rows_may_have_to_wait_for_their_blobs() {
    let server = Server::with(json!({"blobs": {"requireUploaded": true}}));
    let hash = sha256(b"cover");
    let document = |id: u64| {
        let arguments = json!({"id": format!("d{id}"), "cover": {"hash": hash}});
        server.push("tok-alice", "g", "c", id, &[("saveDoc", arguments)]).json()["results"][0].clone()
    };
    assert_eq!(document(1)["error"]["message"], format!("blob not uploaded: {hash}"));
    upload(&server, b"cover");
    assert_eq!(document(2)["status"], "applied");
    assert_eq!(server.ask(&read(&hash, "tok-alice")).status, 200);
}

#[test]
fn the_server_signs_urls_of_its_own() {
    for blobs in [json!({}), json!({"presign": {"secret": "s3cret"}})] {
        let server = Server::with(json!({ "blobs": blobs }));
        let hash = sha256(b"hello");
        let signed = |what: &str, body: &Json| {
            let ask = Ask::post(&format!("{}/{what}", path(&hash)), body).token("tok-alice").header("host", "example.org");
            server.ask(&ask)
        };
        let offer = signed("upload-url", &json!({"size": 5, "contentType": "text/plain"}));
        let answer = offer.json();
        assert_eq!((offer.status, &answer["method"], &answer["alreadyUploaded"]), (200, &json!("PUT"), &json!(false)));
        assert_eq!((&answer["headers"], &answer["expiresAt"]), (&json!({"content-type": "text/plain"}), &json!(1_900_000)));
        let url = answer["url"].as_str().unwrap().strip_prefix("http://example.org").unwrap().to_owned();
        let put = |url: &str, bytes: &[u8], content_type: &str| {
            server.ask(&Ask { method: "PUT", body: bytes.to_vec(), ..Ask::get(url).header("content-type", content_type) })
        };
        let refused = |reply: Reply| (reply.status, reply.json()["reason"].as_str().unwrap_or_default().to_owned());
        let bad = (403, "bad-signature".to_owned());
        assert_eq!(refused(put(&url, b"hello!", "text/plain")), bad, "another size");
        assert_eq!(refused(put(&url, b"hello", "text/html")), bad, "another type");
        assert_eq!(refused(put(&url.replace("exp=19", "exp=29"), b"hello", "text/plain")), bad);
        assert_eq!(refused(put(&url.replace(&hash, &"a".repeat(64)), b"hello", "text/plain")), bad);
        assert_eq!(refused(server.ask(&Ask::get(&url))), bad, "a URL to put is none to get");
        assert_eq!(refused(put(&format!("{}?sig=AA&op=put&exp=9999999", path(&hash)), b"hello", "text/plain")), bad);
        for other in ["exp=01900000", "exp=%2B1900000", "exp=1900000.0", "exp=%201900000", "exp="] {
            assert_eq!(refused(put(&url.replace("exp=1900000", other), b"hello", "text/plain")), bad, "{other}");
        }
        assert_eq!(put(&url, b"hello", "text/plain").status, 201);
        assert_eq!(signed("upload-url", &json!({"size": 5})).json()["alreadyUploaded"], true);
        assert_eq!(signed("download-url", &json!({})).json()["reason"], "blob-not-readable");
        save(&server, &[("d", "alice", &hash)]);
        let url_of = |body: &Json| {
            let answer = signed("download-url", body).json();
            answer["url"].as_str().unwrap_or_else(|| panic!("{answer}")).strip_prefix("http://example.org").unwrap().to_owned()
        };
        let url = url_of(&json!({"expiresInSec": 1}));
        assert_eq!(server.ask(&Ask::get(&url)).body, b"hello");
        assert_eq!(server.ask(&Ask { method: "HEAD", ..Ask::get(&url) }).status, 200);
        let part = url_of(&json!({"range": {"start": 1, "end": 3}}));
        assert_eq!((server.ask(&Ask::get(&part)).status, server.ask(&Ask::get(&part)).body), (206, b"ell".to_vec()));
        assert_eq!(refused(server.ask(&Ask::get(&part.replace("range=1-3", "range=0-4")))), bad);
        server.host.now_ms.set(1_001_000);
        assert_eq!(refused(server.ask(&Ask::get(&url))), (403, "expired".to_owned()));
    }
}

#[test]
fn requests_for_signed_urls_are_checked() {
    let server = Server::with(json!({"blobs": {"maxBytes": 10}}));
    let hash = "a".repeat(64);
    let ask = |what: &str, body: &Json| server.ask(&Ask::post(&format!("{}/{what}", path(&hash)), body).token("tok-alice"));
    for body in [
        json!({}),
        json!({"size": -1}),
        json!({"size": "1"}),
        json!({"size": 1, "expiresInSec": 0}),
        json!({"size": 1, "expiresInSec": 86_401}),
        json!({"size": 1, "contentType": 7}),
        json!([]),
    ] {
        let reply = ask("upload-url", &body);
        assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("blob-invalid-request")), "{body}");
    }
    assert_eq!(ask("upload-url", &json!({"size": 11})).status, 413);
    assert_eq!(ask("upload-url", &json!({"size": 1, "expiresInSec": 86_400})).status, 200);
    assert_eq!(ask("download-url", &json!({"range": {"start": 3, "end": 1}})).json()["error"], "blob-invalid-request");
    assert_eq!(ask("download-url", &json!({})).json(), json!({"error": "blob-not-found", "hash": hash}));
    let other = Ask { method: "GET", ..Ask::get(&format!("{}/upload-url", path(&hash))).token("tok-alice") };
    assert_eq!((server.ask(&other).status, server.ask(&other).header("allow")), (405, "POST, OPTIONS"));
}

#[test]
fn what_a_client_put_straight_into_the_store_is_verified_first() {
    let server = Server::new();
    server.host.storage.signs.set(true);
    let hash = sha256(b"direct");
    let offer = server.post(&format!("/blob/{hash}/upload-url"), "tok-alice", &json!({"size": 6}));
    let key = format!("plasma/blobs/{hash}");
    assert_eq!(offer.json()["url"], format!("https://store/{key}?put=900000"));
    save(&server, &[("d", "alice", &hash)]);
    let arrives = |content: &[u8]| {
        server.host.storage.direct.borrow_mut().insert(key.clone());
        server.host.storage.objects.borrow_mut().insert(key.clone(), content.to_vec());
    };
    arrives(b"something else");
    assert_eq!(server.ask(&read(&hash, "tok-alice")).status, 404);
    assert!(server.host.storage.objects.borrow().is_empty(), "what is not right is gone");
    arrives(b"direct");
    let reply = server.ask(&read(&hash, "tok-alice"));
    assert_eq!((reply.status, reply.body.as_slice(), reply.header("content-type")), (200, &b"direct"[..], "application/octet-stream"));
    assert_eq!(server.get("/admin/stats", ADMIN).json()["blobs"], 1);
    let url = server.post(&format!("/blob/{hash}/download-url"), "tok-alice", &json!({})).json()["url"].clone();
    assert_eq!(url, format!("https://store/{key}?get=900000"));
}

#[test]
fn blobs_that_no_row_refers_to_are_collected_when_they_are_old_enough() {
    let server = Server::new();
    let (used, old) = (upload(&server, b"used"), upload(&server, b"old"));
    server.host.now_ms.set(1_000_000 + 5_000);
    let fresh = upload(&server, b"fresh");
    save(&server, &[("d", "alice", &used)]);
    server.host.now_ms.set(1_000_000 + 10_000);
    let collect = |body: &Json| server.post("/admin/gc", ADMIN, body).json();
    let expected = |deleted: u64, hashes: &[&String], dry_run: bool, scanned: u64| json!({"ok": true, "scanned": scanned, "deleted": deleted, "bytesFreed": 3 * deleted, "kept": scanned - deleted, "dryRun": dry_run, "hashes": hashes});
    assert_eq!(collect(&json!({})), expected(0, &[], false, 3), "a day is what they have");
    assert_eq!(collect(&json!({"graceMs": 7_000, "dryRun": true})), expected(1, &[&old], true, 3));
    assert_eq!(server.host.storage.objects.borrow().len(), 3);
    assert_eq!(collect(&json!({"graceMs": 7_000})), expected(1, &[&old], false, 3));
    assert_eq!(collect(&json!({"graceMs": 7_000})), expected(0, &[], false, 2));
    assert_eq!(server.host.storage.objects.borrow().len(), 2);
    assert_eq!(server.ask(&read(&old, "tok-alice")).status, 404);
    // Whoever uploads again is about to refer to it.
    assert_eq!(server.ask(&put(b"fresh", "")).status, 200);
    assert_eq!(collect(&json!({"graceMs": 1_000}))["deleted"], 0);
    assert_eq!(collect(&json!({"graceMs": 0, "limit": 1}))["hashes"], json!([fresh]));
    for body in [json!({"graceMs": -1}), json!({"limit": 0}), json!({"dryrun": true})] {
        assert_eq!(server.post("/admin/gc", ADMIN, &body).status, 400, "{body}");
    }
    assert_eq!(server.post("/admin/gc", "tok-alice", &json!({})).status, 401);
}

#[test]
fn the_job_rebuilds_references_before_it_collects() {
    let server = Server::with(json!({"blobs": {"gcEveryMs": 60_000}}));
    let (used, old) = (upload(&server, b"used"), upload(&server, b"old"));
    for id in 0..3 {
        save(&server, &[(&format!("d{id}"), "alice", &used)]);
    }
    server.host.sql("DELETE FROM t__plasma_blob_refs");
    server.host.sql(&format!("INSERT INTO t__plasma_blob_refs VALUES ('{old}', 'docs', '[\"gone\"]', 'cover', 1)"));
    server.host.now_ms.set(server.host.now_ms.get() + 25 * 3_600_000);
    server.host.pubsub.jobs.borrow_mut().clear();
    let mut cursor = server.mount().fire(server.imports(), "blobs", Vec::new(), None);
    while cursor.is_some() {
        cursor = server.mount().fire(server.imports(), "blobs", Vec::new(), cursor);
    }
    assert_eq!(server.ask(&read(&used, "tok-alice")).body, b"used");
    assert_eq!(server.ask(&read(&old, "tok-alice")).status, 404);
    assert_eq!(server.host.pubsub.jobs.borrow().get("blobs"), Some(&(server.host.now_ms.get() + 60_000)));
}

#[test]
fn objects_that_an_upload_left_behind_are_swept() {
    let server = Server::new();
    let hash = upload(&server, b"used");
    save(&server, &[("d", "alice", &hash)]);
    let left = format!("plasma/blobs/{}/00ff", sha256(b"left"));
    let others = [format!("plasma/blobs/{hash}/other"), format!("plasma/blobs/{}", sha256(b"direct")), "elsewhere".to_owned()];
    for key in others.iter().chain([&left]) {
        server.host.storage.objects.borrow_mut().insert(key.clone(), Vec::new());
    }
    server.host.storage.created_ms.set(server.host.now_ms.get() - SWEEP_GRACE_MS.min(900_000));
    let fire = || assert_eq!(server.mount().fire(server.imports(), "blobs", Vec::new(), None), None);
    fire();
    assert_eq!(server.host.storage.objects.borrow().len(), 5, "they may belong to an upload that is under way");
    server.host.now_ms.set(server.host.now_ms.get() + SWEEP_GRACE_MS);
    fire();
    let kept: Vec<_> = server.host.storage.objects.borrow().keys().cloned().collect();
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(!kept.contains(&left) && !kept.contains(&others[0]));
    assert_eq!(server.ask(&read(&hash, "tok-alice")).body, b"used");
    assert!(server.host.pubsub.jobs.borrow().contains_key("blobs"));
}

#[test]
fn references_are_rebuilt_from_the_rows() {
    let server = Server::new();
    let hash = upload(&server, b"cover");
    let missing = sha256(b"never uploaded");
    for id in 0..5 {
        save(&server, &[(&format!("d{id}"), "alice", &hash)]);
    }
    save(&server, &[("m", "alice", &missing), ("n", "bob", &hash)]);
    server.post("/admin/db", ADMIN, &json!({"as": null, "ops": [{"update": {"table": "docs", "pk": ["n"], "set": {"cover": null}}}]}));
    let reconcile = |body: &Json| server.post("/admin/reconcile", ADMIN, body).json();
    let result = |added: u64, removed: u64, dry_run: bool| json!({"ok": true, "scannedRows": 7, "added": added, "removed": removed, "missingBlobs": [missing], "dryRun": dry_run});
    assert_eq!(reconcile(&json!({})), result(0, 0, false));
    server.host.sql("DELETE FROM t__plasma_blob_refs WHERE tbl = 'docs' AND pk <> '[\"m\"]'");
    server.host.sql(&format!(
        "INSERT INTO t__plasma_blob_refs VALUES ('{hash}', 'docs', '[\"n\"]', 'cover', 1), ('{hash}', 'gone', '[1]', 'x', 1)"
    ));
    assert_eq!(server.ask(&read(&hash, "tok-alice")).status, 403);
    assert_eq!(reconcile(&json!({"dryRun": true, "batchSize": 2})), result(5, 2, true));
    assert_eq!(server.ask(&read(&hash, "tok-alice")).status, 403);
    assert_eq!(reconcile(&json!({"batchSize": 2, "tables": ["counters"]}))["scannedRows"], 0);
    assert_eq!(reconcile(&json!({"batchSize": 2})), result(5, 2, false));
    assert_eq!(reconcile(&json!({"tables": ["docs"]})), result(0, 0, false));
    assert_eq!(server.ask(&read(&hash, "tok-alice")).status, 200);
    assert_eq!(server.post("/admin/reconcile", ADMIN, &json!({"tables": ["nope"]})).json()["reason"], "unknown table nope");
    assert_eq!(server.post("/admin/reconcile", ADMIN, &json!({"batchSize": 0})).status, 400);
    // An object that is lost is missing, and its bytes may come again.
    server.host.storage.objects.borrow_mut().clear();
    assert_eq!(server.ask(&read(&hash, "tok-alice")).json()["error"], "blob-not-found");
    let mut both = vec![missing, hash.clone()];
    both.sort();
    assert_eq!(reconcile(&json!({}))["missingBlobs"], json!(both));
    assert_eq!(server.ask(&put(b"cover", "")).status, 201);
    assert_eq!(server.ask(&read(&hash, "tok-alice")).body, b"cover");
}

/// The key of the object of a blob.
fn object_of(server: &Server, hash: &str) -> String {
    let objects = server.host.storage.objects.borrow();
    objects.keys().find(|key| key.contains(hash)).unwrap_or_else(|| panic!("{objects:?}")).clone()
}

#[test]
fn an_upload_of_the_right_bytes_mends_a_damaged_blob() {
    let server = Server::new();
    let hash = upload(&server, b"cover");
    save(&server, &[("d", "alice", &hash)]);
    let storage = &server.host.storage;
    let unreadable = |key: String| assert!(storage.damaged.borrow_mut().insert(key));
    // The store knows the hash of what it was given; of these bytes it knows nothing, and their number is right.
    let flipped = |key: String| {
        storage.direct.borrow_mut().insert(key.clone());
        storage.objects.borrow_mut().insert(key, b"c0ver".to_vec());
    };
    let cut = |key: String| drop(storage.objects.borrow_mut().insert(key, b"cov".to_vec()));
    let lost = |key: String| drop(storage.objects.borrow_mut().remove(&key));
    let damages: [(&str, &dyn Fn(String)); 4] = [("unreadable", &unreadable), ("flipped", &flipped), ("cut", &cut), ("lost", &lost)];
    for (name, damage) in damages {
        damage(object_of(&server, &hash));
        let mended = server.ask(&put(b"cover", "image/png"));
        assert_eq!((mended.status, mended.json()["ok"].clone()), (201, json!(true)), "{name}");
        assert_eq!(server.ask(&read(&hash, "tok-alice")).body, b"cover", "{name}");
        assert_eq!(storage.objects.borrow().len(), 1, "{name}: the damaged object is gone");
        assert_eq!(server.ask(&put(b"cover", "")).status, 200, "{name}: it is whole again");
    }
    let log = server.host.effects.lines.borrow();
    assert_eq!(log.iter().filter(|(_, line)| line.contains("mended") && line.contains(&hash)).count(), 4);
}

#[test]
fn damaged_blobs_are_named_beside_those_that_are_missing() {
    let server = Server::new();
    let (damaged, whole) = (upload(&server, b"damaged"), upload(&server, b"whole"));
    let missing = sha256(b"missing");
    save(&server, &[("a", "alice", &damaged), ("b", "alice", &whole), ("c", "alice", &missing)]);
    let storage = &server.host.storage;
    storage.damaged.borrow_mut().insert(object_of(&server, &damaged));
    let mut both = [damaged.clone(), missing];
    both.sort();
    for dry_run in [true, false] {
        let reply = server.post("/admin/reconcile", ADMIN, &json!({"dryRun": dry_run}));
        assert_eq!(reply.status, 200, "{reply:?}");
        let result = reply.json();
        assert_eq!((&result["missingBlobs"], &result["damagedBlobs"]), (&json!(both), &json!([damaged])));
    }
    assert_eq!(server.ask(&read(&damaged, "tok-alice")).status, 503, "it is not told to be none");
    let offer = Ask::post(&format!("{}/upload-url", path(&damaged)), &json!({"size": 7})).token("tok-alice");
    assert_eq!(server.ask(&offer).json()["alreadyUploaded"], false);
    // A store that answers nobody says nothing about any blob.
    storage.is_away.set(true);
    assert_eq!(server.post("/admin/reconcile", ADMIN, &json!({})).status, 503);
    storage.is_away.set(false);
    assert_eq!(server.ask(&put(b"damaged", "")).status, 201);
    let result = server.post("/admin/reconcile", ADMIN, &json!({})).json();
    assert_eq!((&result["missingBlobs"], &result["damagedBlobs"]), (&json!([sha256(b"missing")]), &Json::Null));
}

#[test]
fn a_blob_in_a_coding_is_refused_unread() {
    let server = Server::new();
    for coding in ["gzip", "br", "identity, gzip", "x"] {
        let reply = server.ask(&put(b"hello", "text/plain").header("content-encoding", coding));
        assert_eq!((reply.status, &reply.json()["error"]), (415, &json!("unsupported-content-encoding")), "{coding}");
        assert_eq!(reply.header("accept-encoding"), "identity");
        assert!(!server.body_was_read.get());
    }
    assert!(error_kinds(&server).iter().all(|kind| kind == "blob-invalid-request"));
    assert_eq!(server.ask(&put(b"hello", "text/plain").header("content-encoding", "Identity")).status, 201);
}

#[test]
fn blobs_are_counted() {
    let server = Server::new();
    let hash = upload(&server, b"0123456789");
    save(&server, &[("d", "alice", &hash)]);
    server.ask(&read(&hash, "tok-alice").header("range", "bytes=0-3"));
    server.ask(&read(&hash, "tok-bob"));
    let text = server.get("/admin/metrics", ADMIN).text();
    for line in [
        "plasma_blob_bytes_total{kind=\"blob-put\"} 10",
        "plasma_blob_bytes_total{kind=\"blob-get\"} 4",
        "plasma_requests_total{kind=\"blob-put\",ok=\"true\"} 1",
        "plasma_requests_total{kind=\"blob-get\",ok=\"true\"} 1",
        "plasma_requests_total{kind=\"blob-get\",ok=\"false\"} 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn tables_from_before_there_were_blobs_take_them() {
    let server = Server::new();
    server.host.sql("ALTER TABLE t__plasma_blobs DROP COLUMN object");
    server.host.sql("UPDATE t__plasma_meta SET value = '1' WHERE key = 'format'");
    let settings = fixture(json!({})).to_string();
    for _ in 0..2 {
        let restarted = Plasma.configure("m", &settings, Vec::new()).unwrap();
        assert_eq!(restarted.start(server.imports(), None), Ok(None));
    }
    let hash = upload(&server, b"late");
    save(&server, &[("d", "alice", &hash)]);
    assert_eq!(server.ask(&read(&hash, "tok-alice")).body, b"late");
}
