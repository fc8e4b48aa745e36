//! Messages of the wrong shape: each field missing, mistyped, of the wrong length or not strict base64.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use syncline_tests::secsync::{Author, FIRST_PROOF, fresh_id};
use syncline_tests::server::TestServer;

use crate::support::*;

/// Something that is wrong, and its name.
type Wrong = (String, Value);

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The same text with bits set that strict decoders want to be zero.
fn with_stray_bits(text: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = text.chars().last().and_then(|last| ALPHABET.find(last)).expect("it is base64");
    format!("{}{}", &text[..text.len() - 1], &ALPHABET[last + 1..last + 2])
}

/// Texts that are no strict base64 of as many bytes.
fn bad_base64(good: &str) -> Vec<Value> {
    let mut bad = vec![
        json!(""),
        json!(format!("{good}=")),
        json!(format!("{good}==")),
        json!(format!(" {good}")),
        json!(format!("{good}\n")),
        json!(&good[1..]),
        json!(&good[4..]),
        json!(format!("AAAA{good}")),
        json!(format!("+{}", &good[1..])),
        json!(format!("/{}", &good[1..])),
        json!(format!("é{}", &good[1..])),
        json!(format!("\0{}", &good[1..])),
    ];
    if !good.len().is_multiple_of(4) {
        bad.push(json!(with_stray_bits(good)));
    }
    bad
}

const MISTYPED: &[&str] = &["null", "3", "true", "[]", "{}", "[\"x\"]"];

/// Each way in which envelope and common public data can be wrong.
fn spoilt(frame: &Value) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    for field in ["/ciphertext", "/nonce", "/signature", "/publicData/docId", "/publicData/pubKey"] {
        wrong.push((format!("without {field}"), without(frame, field)));
        for value in MISTYPED {
            wrong.push((format!("{field} is {value}"), changed(frame, field, serde_json::from_str(value).expect("JSON"))));
        }
        let good = frame.pointer(field).and_then(Value::as_str).expect("a text").to_owned();
        if field != "/publicData/docId" {
            wrong.extend(bad_base64(&good).into_iter().map(|bad| (format!("{field} is {bad}"), changed(frame, field, bad))));
        }
    }
    wrong.push(("another document".into(), changed(frame, "/publicData/docId", json!("other"))));
    wrong.push(("another author".into(), changed(frame, "/publicData/pubKey", json!(Author::new(99).public_key()))));
    let signature = frame["signature"].as_str().expect("a text");
    let flipped = format!("{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    wrong.push(("a changed signature".into(), changed(frame, "/signature", json!(flipped))));
    wrong
}

/// Wrong fields under a signature that is right for them: only the shape can refuse them.
fn signed_but_wrong(author: &Author, context: &str, public_data: &Value) -> Vec<Wrong> {
    let (ciphertext, nonce) = (base64url(&[7; 49]), base64url(&[3; 24]));
    let sign = |public_data: &Value, ciphertext: &str, nonce: &str| author.sign_fields(context, public_data.clone(), ciphertext, nonce);
    let mut wrong = Vec::new();
    for (name, bad) in [
        ("empty", String::new()),
        ("47 bytes", base64url(&[7; 47])),
        ("padded", format!("{ciphertext}==")),
        ("stray bits", with_stray_bits(&ciphertext)),
        ("other alphabet", format!("+/{}", &ciphertext[2..])),
        ("white space", format!("{ciphertext} ")),
    ] {
        wrong.push((format!("signed ciphertext: {name}"), sign(public_data, &bad, &nonce)));
    }
    for bytes in [0, 23, 25, 48] {
        wrong.push((format!("signed nonce of {bytes} bytes"), sign(public_data, &ciphertext, &base64url(&vec![3; bytes]))));
    }
    wrong.push(("signed padded nonce".into(), sign(public_data, &ciphertext, &format!("{nonce}="))));
    wrong.push(("signed unknown field".into(), sign(&changed(public_data, "/extra", json!(1)), &ciphertext, &nonce)));
    wrong.push(("signed other document".into(), sign(&changed(public_data, "/docId", json!("other")), &ciphertext, &nonce)));
    wrong.push(("signed without document".into(), sign(&without(public_data, "/docId"), &ciphertext, &nonce)));
    wrong.push((
        "signed for another author".into(),
        sign(&changed(public_data, "/pubKey", json!(Author::new(9).public_key())), &ciphertext, &nonce),
    ));
    for key in [
        [0_u8; 32],
        {
            let mut one = [0; 32];
            one[0] = 1;
            one
        },
        [0xff; 32],
    ] {
        let weak = changed(public_data, "/pubKey", json!(base64url(&key)));
        wrong.push((format!("a weak key {key:?}"), sign(&weak, &ciphertext, &nonce)));
    }
    for other in ["secsync_snapshot", "secsync_update", "secsync_ephemeral_message", ""] {
        if other != context {
            wrong.push((format!("signed as {other:?}"), author.sign_fields(other, public_data.clone(), &ciphertext, &nonce)));
        }
    }
    wrong
}

#[tokio::test]
async fn a_spoilt_snapshot_gets_a_bare_failure_and_the_right_one_is_saved() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let mut socket = join(&server, "doc").await;
    let mut other = join(&server, "doc").await;
    let good = author.first_snapshot("doc", b"s");
    let public_data = &good.frame["publicData"];
    let mut wrong = spoilt(&good.frame);
    wrong.extend(signed_but_wrong(&author, "secsync_snapshot", public_data));
    let mut sign = |name: &str, public_data: Value| wrong.push((name.into(), author.sign("secsync_snapshot", public_data, b"x")));
    for field in ["/parentSnapshotId", "/parentSnapshotProof", "/parentSnapshotUpdateClocks"] {
        sign(&format!("without {field}"), without(public_data, field));
        for value in ["null", "3", "true", "[]"] {
            sign(&format!("{field} is {value}"), changed(public_data, field, serde_json::from_str(value).expect("JSON")));
        }
    }
    for clocks in [json!({"a": "0"}), json!({"a": null}), json!({"a": {}}), json!([0]), json!("{}")] {
        sign(&format!("clocks {clocks}"), changed(public_data, "/parentSnapshotUpdateClocks", clocks));
    }
    for proof in bad_base64(FIRST_PROOF) {
        sign(&format!("proof {proof}"), changed(public_data, "/parentSnapshotProof", proof));
    }
    for id in [json!(3), json!(true), json!(["x"]), json!({"a": 1})] {
        sign(&format!("id {id}"), changed(public_data, "/snapshotId", id));
    }
    for (name, frame) in wrong {
        println!("{name}");
        assert_eq!(ask(&mut socket, &frame).await, bare_failure(), "{name}: {frame}");
    }
    assert_eq!(ask(&mut socket, &good.frame).await, snapshot_saved(&good));
    assert_eq!(other.json().await, relayed_snapshot(&good), "nothing of the others was relayed");
}

#[tokio::test]
async fn a_spoilt_update_gets_back_what_was_sent_of_it() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut other = join(&server, "doc").await;
    let good = author.update("doc", &snapshot.id, 0, b"u");
    let mut wrong = spoilt(&good);
    wrong.extend(signed_but_wrong(&author, "secsync_update", &good["publicData"]));
    for (name, frame) in wrong {
        println!("{name}");
        assert_eq!(ask(&mut socket, &frame).await, update_refused(&snapshot.id, 0), "{name}: {frame}");
    }
    for id in [json!(3), json!(true), json!(["x"]), json!({"a": 1}), json!("unknown")] {
        let public_data = changed(&good["publicData"], "/refSnapshotId", id.clone());
        let expected = json!({"type": "update-save-failed", "snapshotId": id, "clock": 0, "requiresNewSnapshot": false});
        assert_eq!(ask(&mut socket, &author.sign("secsync_update", public_data, b"u")).await, expected);
    }
    save(&mut socket, &good).await;
    assert_eq!(other.json().await, relayed("update", &good), "nothing of the others was relayed");
}

#[tokio::test]
async fn a_wrong_clock_is_refused_and_comes_back_as_it_was_sent() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    let good = author.update("doc", &snapshot.id, 0, b"u");
    for clock in ["-1", "0.5", "1", "3", "1e300", "9007199254740991", "9007199254740992", "\"0\"", "null", "true", "[0]", "{\"a\":1}"] {
        let clock: Value = serde_json::from_str(clock).expect("JSON");
        let frame = author.sign("secsync_update", changed(&good["publicData"], "/clock", clock.clone()), b"u");
        let expected = json!({"type": "update-save-failed", "snapshotId": snapshot.id, "clock": clock, "requiresNewSnapshot": false});
        assert_eq!(ask(&mut socket, &frame).await, expected);
        // Another refusal breaks the row of clocks, so that none is taken for a pipelined one.
        nothing_waits(&mut socket).await;
    }
    let unclocked = author.sign("secsync_update", without(&good["publicData"], "/clock"), b"u");
    let expected = json!({"type": "update-save-failed", "snapshotId": snapshot.id, "requiresNewSnapshot": false});
    assert_eq!(ask(&mut socket, &unclocked).await, expected);
    save(&mut socket, &good).await;
    // Another way to write the number 1.
    let exponent = author.update("doc", &snapshot.id, 1, b"u").to_string().replace(r#""clock":1"#, r#""clock":10e-1"#);
    socket.send_message(text(&exponent)).await;
    let saved = socket.json().await;
    assert_eq!((&saved["type"], saved["clock"].as_f64()), (&json!("update-saved"), Some(1.0)));
}

#[tokio::test]
async fn an_unknown_field_that_was_not_signed_is_cut_off() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    let mut other = join(&server, "doc").await;
    let update = author.update("doc", &snapshot.id, 0, b"u");
    let more = changed(&changed(&update, "/publicData/extra", json!("x")), "/publicData/__proto__", json!({"a": 1}));
    save(&mut socket, &more).await;
    assert_eq!(other.json().await, relayed("update", &update));
}

#[tokio::test]
async fn a_number_that_no_double_holds_harms_nobody() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let (mut socket, snapshot) = with_snapshot(&server, "doc", &author).await;
    let update = author.update("doc", &snapshot.id, 0, b"u");
    let huge = update.to_string().replace(r#""clock":0"#, r#""clock":1e999"#);
    socket.send_message(text(&huge)).await;
    socket.send(&update).await;
    let mut answer = socket.json().await;
    if answer["type"] == "update-save-failed" {
        answer = socket.json().await;
    }
    assert_eq!(answer, update_saved(&snapshot.id, 0));
}

#[tokio::test]
async fn a_spoilt_ephemeral_message_reaches_nobody() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let mut socket = join(&server, "doc").await;
    let mut other = join(&server, "doc").await;
    let good = author.ephemeral("doc", b"hello");
    let mut wrong = spoilt(&good);
    wrong.extend(signed_but_wrong(&author, "secsync_ephemeral_message", &good["publicData"]));
    wrong.push(("nothing at all".into(), json!({"publicData": {}})));
    wrong.push((
        "empty ids of other kinds".into(),
        changed(&changed(&good, "/publicData/snapshotId", json!("")), "/publicData/refSnapshotId", json!("")),
    ));
    for (name, frame) in wrong {
        println!("{name}");
        socket.send(&frame).await;
    }
    socket.send(&good).await;
    assert_eq!(other.json().await, relayed("ephemeral-message", &good));
    nothing_waits(&mut socket).await;
}

#[tokio::test]
async fn keys_that_hold_no_database_are_refused_and_long_ones_work() {
    let server = TestServer::start().await;
    let author = Author::new(1);
    let mut socket = join(&server, "doc").await;
    let first = author.first_snapshot("doc", b"s");
    for id in ["with\0nul".to_owned(), "x".repeat(2001)] {
        let public_data = changed(&first.frame["publicData"], "/snapshotId", json!(id));
        assert_eq!(ask(&mut socket, &author.sign("secsync_snapshot", public_data, b"s")).await, bare_failure());
    }
    let id = format!("{}{}", fresh_id(), "ü".repeat(900));
    let public_data = changed(&first.frame["publicData"], "/snapshotId", json!(id));
    let saved = ask(&mut socket, &author.sign("secsync_snapshot", public_data, b"s")).await;
    assert_eq!(saved, json!({"type": "snapshot-saved", "snapshotId": id}));
}
