//! Objects in a bucket (docs/configuration.md, `storage.objects`).

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use syncline::storage::s3::{S3Address, S3Objects};
use syncline::storage::{Objects, StorageError};
use syncline_tests::http::request;
use syncline_tests::plasma::{alice, bob, fixture_with, mutation, plasma_mount};
use syncline_tests::process::{command, data_folder};
use syncline_tests::s3::{ACCESS_KEY, S3Store};
use syncline_tests::server::{Setup, TestServer};
use syncline_tests::{eventually, sha256};

async fn open(store: &S3Store, parameters: &str) -> Arc<S3Objects> {
    let address = S3Address::parse(&format!("{}{parameters}", store.url("place"))).expect("it is an address");
    Arc::new(S3Objects::open(address.with_keys(ACCESS_KEY, "secret")).await.expect("the store answers"))
}

async fn keys(objects: &S3Objects, mount: &str, prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    let listed = objects.list(mount, prefix, after, limit).await.expect("it can be listed");
    listed.into_iter().map(|(key, _)| key).collect()
}

#[tokio::test]
async fn objects_are_what_they_are_elsewhere() {
    let store = S3Store::start().await;
    let objects = open(&store, "").await;
    let written = objects.write("m", "a/b c", "text/plain", Bytes::from_static(b"0123456789")).await.expect("it is written");
    assert_eq!((written.size, written.sha256.as_deref()), (10, Some(sha256(b"0123456789").as_str())));
    let known = objects.head("m", "a/b c").await.expect("it is there");
    assert_eq!((known.size, known.content_type.as_str(), &known.sha256, &known.etag), (10, "text/plain", &written.sha256, &written.etag));
    assert_eq!(known.created_ms, 981_173_106_000);
    for (range, expected) in [(None, "0123456789"), (Some((3, 4)), "3456"), (Some((8, 100)), "89"), (Some((10, 1)), ""), (Some((2, 0)), "")]
    {
        assert_eq!(objects.read("m", "a/b c", range).await.expect("it can be read"), expected, "{range:?}");
        let open = objects.open("m", "a/b c", range).await.expect("it can be opened");
        assert_eq!((open.length, open.info.size), (expected.len() as u64, 10));
    }
    objects.write("m", "a/b c", "", Bytes::from_static(b"other")).await.expect("it is replaced");
    assert_eq!(objects.read("m", "a/b c", None).await, Ok(Bytes::from_static(b"other")));
    assert_eq!(objects.head("other", "a/b c").await, Err(StorageError::NotFound), "mounts never meet");
    objects.delete("m", "a/b c").await.expect("it goes");
    objects.delete("m", "a/b c").await.expect("it is gone");
    assert_eq!(objects.read("m", "a/b c", None).await, Err(StorageError::NotFound));
    assert!(matches!(objects.write("m", &"k".repeat(1100), "", Bytes::new()).await, Err(StorageError::Limit(_))));
    assert_eq!(store.names(), Vec::<String>::new());
}

#[tokio::test]
async fn listings_go_on_and_know_any_key() {
    let store = S3Store::start().await;
    let objects = open(&store, "").await;
    let odd = ["", "/", "a//b", "a/./b", "a/%2F", "a/ü b", "b/1", "b/2", "b/20", "b/3"];
    for key in odd {
        objects.write("m", key, "", Bytes::new()).await.expect("it is written");
    }
    objects.write("mm", "b/2", "", Bytes::new()).await.expect("it is written");
    let mut all = keys(&objects, "m", "", None, 100).await;
    all.sort_unstable();
    let mut expected: Vec<_> = odd.iter().map(ToString::to_string).collect();
    expected.sort_unstable();
    assert_eq!(all, expected);
    assert_eq!(keys(&objects, "m", "b/", None, 2).await, ["b/1", "b/2"]);
    assert_eq!(keys(&objects, "m", "b/", Some("b/2"), 9).await, ["b/20", "b/3"]);
    assert_eq!(keys(&objects, "m", "b/2", None, 9).await, ["b/2", "b/20"]);
    assert_eq!(keys(&objects, "m", "c", None, 9).await, Vec::<String>::new());
}

#[tokio::test]
async fn large_objects_go_in_parts_and_what_is_given_up_leaves_nothing() {
    let store = S3Store::start().await;
    let objects = open(&store, "").await;
    let content: Bytes = (0..(17 << 20) + 5_u32).map(|position| (position / 7) as u8).collect::<Vec<_>>().into();
    let mut writer = objects.create("m", "large", "image/png").await.expect("it begins");
    for piece in content.chunks(100_000) {
        writer.write(Bytes::copy_from_slice(piece)).await.expect("it goes on");
    }
    assert_eq!(objects.head("m", "large").await, Err(StorageError::NotFound), "it is not whole");
    let info = writer.finish(&sha256(&content)).await.expect("it is whole");
    assert_eq!(info.size, content.len() as u64);
    assert!(objects.read("m", "large", None).await.expect("it can be read") == content);
    let known = objects.head("m", "large").await.expect("it is there");
    assert_eq!((known.etag, known.content_type.as_str()), (info.etag, "image/png"));
    let mut writer = objects.create("m", "given up", "").await.expect("it begins");
    writer.write(content.clone()).await.expect("it goes on");
    assert_eq!(store.open_uploads(), 1);
    drop(writer);
    eventually("its parts are gone", || async { (store.open_uploads() == 0).then_some(()) }).await;
    assert_eq!(store.names(), ["place/m/large"]);
}

#[tokio::test]
async fn attachments_go_straight_to_the_store_and_are_compared_with_their_hash() {
    let store = S3Store::start().await;
    let objects = open(&store, "").await;
    let mounts = || vec![plasma_mount(fixture_with(json!({})))];
    let server = TestServer::with(Setup { mounts: mounts(), objects: Some(objects), ..Setup::default() }).await;
    let user = alice(server.address);
    let hash = sha256(b"straight");
    user.push("g1", &[mutation("c1", 1, "saveDoc", json!({"id": "d1", "cover": {"hash": hash}}))]).await;
    let offer = async || user.post(&format!("/blob/{hash}/upload-url"), &json!({"size": 8, "contentType": "image/png"})).await.json();
    let target = |url: &serde_json::Value| {
        let url = url.as_str().expect("a URL").to_owned();
        url.strip_prefix(&format!("http://{}", store.address)).expect("it is one of the store").to_owned()
    };
    let upload = target(&offer().await["url"]);
    assert_eq!(request(store.address, &Method::PUT, &upload, &[("content-type", "image/png")], "something else").await.status, 200);
    let path = format!("/sync/blob/{hash}");
    let credentials = [("authorization", user.token)];
    assert_eq!(request(server.address, &Method::GET, &path, &credentials, "").await.status, 404, "it is not what it says");
    assert_eq!(store.names(), Vec::<String>::new());
    request(store.address, &Method::PUT, &upload, &[("content-type", "image/png")], "straight").await;
    let read = request(server.address, &Method::GET, &path, &[credentials[0], ("range", "bytes=0-2")], "").await;
    assert_eq!((read.status, read.body.as_ref(), read.header("content-type")), (206, &b"str"[..], "image/png"));
    assert_eq!(offer().await["alreadyUploaded"], true);
    let offer = user.post(&format!("/blob/{hash}/download-url"), &json!({})).await.json();
    assert_eq!(request(store.address, &Method::GET, &target(&offer["url"]), &[], "").await.body, "straight");
    let refused = bob(server.address).post(&format!("/blob/{hash}/download-url"), &json!({})).await;
    assert_eq!(refused.json()["reason"], "blob-not-readable");

    let closed = open(&store, "&presign=off").await;
    let server = TestServer::with(Setup { mounts: mounts(), objects: Some(closed), ..Setup::default() }).await;
    let offer = alice(server.address).post(&format!("/blob/{hash}/upload-url"), &json!({"size": 8})).await.json();
    assert!(offer["url"].as_str().is_some_and(|url| url.starts_with(&format!("http://{}/sync/", server.address))), "{offer}");
}

#[tokio::test]
async fn a_store_that_is_away_is_said_to_be_and_comes_back() {
    let store = S3Store::start().await;
    let objects = open(&store, "").await;
    let mounts = vec![plasma_mount(fixture_with(json!({})))];
    let server = TestServer::with(Setup { mounts, objects: Some(objects.clone()), ..Setup::default() }).await;
    let put = async || {
        let path = format!("/sync/blob/{}", sha256(b"bytes"));
        request(server.address, &Method::PUT, &path, &[("authorization", alice(server.address).token)], "bytes").await
    };
    store.set_away(true);
    assert!(matches!(objects.ready().await, Err(StorageError::Unavailable(_))));
    let refused = put().await;
    assert_eq!((refused.status, &refused.json()["error"]), (502, &json!("blob-upload-failed-server")));
    store.set_away(false);
    assert_eq!(objects.ready().await, Ok(()));
    assert_eq!(put().await.status, 201);
}

#[tokio::test]
async fn a_start_with_keys_that_the_store_does_not_know_is_refused_without_showing_them() {
    let (store, data) = (S3Store::start().await, data_folder());
    let config = data.path().join("syncline.toml");
    let text = format!("listen = \"127.0.0.1:0\"\ndata = {:?}\n[storage]\nobjects = {:?}\n", data.path(), store.url("place"));
    std::fs::write(&config, text).expect("files can be written");
    let started = |key: &str| {
        let mut command = command(&["doctor", "--config", config.to_str().expect("UTF-8")]);
        command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", "a-secret-key").output()
    };
    let refused = started("somebody-else").await.expect("it runs");
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(!refused.status.success() && said.contains("storage.objects") && said.contains("s3://bucket/place?…"), "{said}");
    assert!(!said.contains("a-secret-key"), "{said}");
    let accepted = started(ACCESS_KEY).await.expect("it runs");
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stdout));
}
