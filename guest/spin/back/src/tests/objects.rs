//! Objects: rows, files, and a bucket.

use super::*;
use crate::bindings::exports::syncline::host::storage::Error as StorageError;
use crate::bindings::exports::syncline::spin::adapter::{self, UploadFailure};
use crate::objects::{Download, Upload};

const MIB: usize = 1 << 20;

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
}

fn upload(back: &Back, key: &str, max_bytes: u64) -> Upload {
    Upload::new(back, "m".into(), key.into(), "text/plain".into(), None, max_bytes).unwrap()
}

fn downloaded(back: &Back, key: &str, range: Option<(u64, u64)>) -> Vec<u8> {
    let mut download = Download::open(back, "m".into(), key.into(), range).unwrap().unwrap();
    let mut content = Vec::new();
    while let Some(piece) = download.read().unwrap() {
        assert!(!piece.is_empty() && piece.len() <= MIB);
        content.extend_from_slice(&piece);
    }
    assert_eq!(download.length(), content.len() as u64);
    content
}

fn pieces(world: &World) -> i64 {
    world.other_connection().query_row("SELECT count(*) FROM syncline_spin_pieces", [], |row| row.get(0)).unwrap()
}

#[test]
fn objects_are_written_read_replaced_listed_and_removed() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    let whole = content(2 * MIB + 10);
    let info = back.write_object("a/1", "text/plain", whole.clone()).unwrap();
    assert_eq!((info.size, info.sha256.as_deref()), (whole.len() as u64, Some(info.etag.as_str())));
    assert_eq!(back.head_object("a/1"), Ok(info));
    assert_eq!(back.read_object("a/1", None).unwrap(), whole);
    let middle = (MIB - 3) as u64;
    assert_eq!(back.read_object("a/1", Some((middle, 6))).unwrap(), whole[MIB - 3..MIB + 3]);
    assert_eq!(back.read_object("a/1", Some((2 * MIB as u64 + 8, 99))).unwrap(), whole[2 * MIB + 8..]);
    assert_eq!(back.read_object("a/1", Some((u64::MAX, u64::MAX))).unwrap(), b"");
    back.write_object("a/1", "text/html", b"new".to_vec()).unwrap();
    back.write_object("empty", "", Vec::new()).unwrap();
    assert_eq!((back.read_object("a/1", None).unwrap(), back.read_object("empty", None).unwrap()), (b"new".to_vec(), Vec::new()));
    assert_eq!(pieces(&world), 1);
    let listed = back.list_objects("a", None, 10).unwrap();
    assert_eq!((listed.len(), listed[0].0.as_str(), listed[0].1.content_type.as_str()), (1, "a/1", "text/html"));
    assert_eq!(back.head_object("none"), Err(StorageError::NotFound));
    assert_eq!(back.presign_download("a/1", 1000), Ok(None));
    back.delete_object("a/1".into()).unwrap();
    assert!(back.head_object("a/1").is_ok(), "only when the effects are released");
    back.end(false).unwrap();
    back.begin("m", false);
    assert_eq!(back.read_object("a/1", None), Err(StorageError::NotFound));
    assert_eq!(pieces(&world), 0);
    back.delete_object("none".into()).unwrap();
    back.end(false).unwrap();
}

#[test]
fn a_body_becomes_visible_as_a_whole() {
    let world = World::new();
    let back = world.instance();
    for size in [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + 5] {
        let whole = content(size);
        let mut body = upload(&back, "blob", 1 << 30);
        for piece in whole.chunks(300_001) {
            body.write(&back, piece).unwrap();
        }
        let stored = body.finish(&back).unwrap();
        assert_eq!((stored.size, stored.existed), (size as u64, size > 0), "{size}");
        assert_eq!(downloaded(&back, "blob", None), whole);
        let (start, length) = (size as u64 / 2, 5);
        assert_eq!(downloaded(&back, "blob", Some((start, length))), whole[size / 2..(size / 2 + 5).min(size)]);
    }
    assert_eq!(pieces(&world), 4);
    assert!(Download::open(&back, "m".into(), "none".into(), None).unwrap().is_none());
}

#[test]
fn a_body_that_ends_early_or_is_another_leaves_nothing() {
    let world = World::new();
    let back = world.instance();
    let mut body = upload(&back, "a", 1 << 30);
    body.write(&back, &content(3 * MIB)).unwrap();
    assert_eq!(pieces(&world), 2);
    drop(body);
    assert_eq!(pieces(&world), 0);
    let mut body = upload(&back, "a", 2 * MIB as u64);
    body.write(&back, &content(2 * MIB)).unwrap();
    assert_eq!(body.write(&back, b"x"), Err(UploadFailure::TooLarge));
    assert_eq!(body.finish(&back).map(drop), Err(UploadFailure::TooLarge));
    let sha256 = Some(crate::objects::sha256(b"expected"));
    let mut body = Upload::new(&back, "m".into(), "a".into(), String::new(), sha256, 100).unwrap();
    body.write(&back, b"another").unwrap();
    assert_eq!(body.finish(&back).map(drop), Err(UploadFailure::WrongHash));
    assert_eq!(pieces(&world), 0);
    // An instance that dies leaves pieces, which go later.
    let mut body = upload(&back, "a", 1 << 30);
    body.write(&back, &content(3 * MIB)).unwrap();
    std::mem::forget(body);
    back.clean(&back.opened().unwrap(), "m");
    assert_eq!(pieces(&world), 2);
    world.pass_ms(2 * 60 * 60 * 1000);
    back.clean(&back.opened().unwrap(), "m");
    assert_eq!(pieces(&world), 0);
}

#[test]
fn an_object_that_is_replaced_while_it_is_read_breaks_off() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    back.write_object("a", "", content(2 * MIB)).unwrap();
    let mut download = Download::open(&back, "m".into(), "a".into(), None).unwrap().unwrap();
    assert_eq!(download.read().unwrap().unwrap().len(), MIB);
    back.write_object("a", "", content(5)).unwrap();
    assert!(matches!(download.read(), Err(StorageError::Unavailable(_))));
}

#[test]
fn a_quota_holds_for_what_is_new() {
    let world = World::new();
    let back = world.instance_with(|settings| {
        settings.limits.quota_bytes = Some(100);
        settings.limits.object_bytes = 80;
    });
    back.begin("m", false);
    back.write_object("a", "", content(60)).unwrap();
    assert_eq!(back.write_object("b", "", content(41)).map(drop), Err(StorageError::Limit("quota of the mount".into())));
    assert_eq!(back.write_object("a", "", content(81)).map(drop), Err(StorageError::Limit("size of an object".into())));
    back.write_object("a", "", content(80)).unwrap();
    back.end(false).unwrap();
    let mut body = upload(&back, "b", 1000);
    assert_eq!(body.write(&back, &content(21)), Err(UploadFailure::TooLarge));
    let mut body = upload(&back, "b", 1000);
    body.write(&back, &content(20)).unwrap();
    body.finish(&back).unwrap();
}

#[test]
fn files_of_a_folder_are_read_only_objects() {
    let world = World::new();
    let web = world.folder.path().join("web");
    std::fs::create_dir(&web).unwrap();
    std::fs::write(web.join("b.html"), "<p>").unwrap();
    let back = world.instance();
    let mut mount = doubles::mount("m");
    mount.folders = vec![adapter::Folder { prefix: "web/".into(), path: web.to_str().unwrap().into() }];
    back.know(mount);
    back.begin("m", false);
    back.write_object("web", "", b"own".to_vec()).unwrap();
    back.write_object("x", "", b"own".to_vec()).unwrap();
    assert_eq!(back.read_object("web/b.html", None), Ok(b"<p>".to_vec()));
    assert_eq!(back.head_object("web/b.html").unwrap().content_type, "text/html; charset=utf-8");
    let keys = |prefix: &str| back.list_objects(prefix, None, 10).unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!((keys(""), keys("web/")), (vec!["web".into(), "web/b.html".into(), "x".into()], vec!["web/b.html".to_owned()]));
    for refused in [back.write_object("web/a", "", Vec::new()).map(drop), back.delete_object("web/b.html".into())] {
        assert!(matches!(refused, Err(StorageError::Limit(_))));
    }
    assert!(Upload::new(&back, "m".into(), "web/a".into(), String::new(), None, 1).is_err());
    assert_eq!(downloaded(&back, "web/b.html", Some((1, 9))), b"p>");
}

fn in_bucket(world: &World) -> Back {
    world.instance_with(|settings| {
        settings.objects = adapter::Objects::Bucket(adapter::Bucket {
            endpoint: "http://127.0.0.1:9000".into(),
            region: "eu-1".into(),
            name: "notes".into(),
            access_key: "id".into(),
            secret_key: "hush".into(),
        });
    })
}

#[test]
fn a_bucket_is_asked_with_signatures() {
    let world = World::new();
    let back = in_bucket(&world);
    back.begin("m", false);
    world.reply(200, &[("etag", "\"e1\"")], b"");
    let info = back.write_object("a b", "text/plain", b"content".to_vec()).unwrap();
    assert_eq!((info.etag.as_str(), info.size), ("e1", 7));
    let sent = world.requests.borrow().last().cloned().unwrap();
    assert_eq!((sent.method, sent.url.as_str()), ("PUT", "http://127.0.0.1:9000/notes/m/a%2520b"));
    let header =
        |name: &str| sent.headers.iter().find(|(known, _)| known == name).map(|(_, value)| String::from_utf8(value.clone()).unwrap());
    assert!(header("authorization").unwrap().starts_with("AWS4-HMAC-SHA256 Credential=id/20231114/eu-1/s3/aws4_request, SignedHeaders="));
    assert_eq!(header("x-amz-meta-sha256"), info.sha256);
    let head =
        [("content-length", "7"), ("content-type", "text/plain"), ("last-modified", "Fri, 24 May 2013 00:00:00 GMT"), ("etag", "\"e1\"")];
    world.reply(200, &head, b"");
    world.reply(206, &[], b"ten");
    assert_eq!(back.read_object("a b", Some((3, 3))), Ok(b"ten".to_vec()));
    world.reply(404, &[], b"");
    assert_eq!(back.head_object("none"), Err(StorageError::NotFound));
    world.reply(503, &[], b"");
    assert!(matches!(back.head_object("a"), Err(StorageError::Unavailable(_))));
    let url = back.presign_upload("a", 60_000).unwrap().unwrap();
    assert!(url.contains("X-Amz-Expires=60&") && !url.contains("hush"), "{url}");
    world.reply(204, &[], b"");
    back.delete_object("a b".into()).unwrap();
    back.end(false).unwrap();
    assert_eq!(world.requests.borrow().last().unwrap().method, "DELETE");
}

#[test]
fn large_bodies_go_to_a_bucket_in_parts() {
    let world = World::new();
    let back = in_bucket(&world);
    let mut body = upload(&back, "big", 1 << 30);
    world.reply(200, &[], b"<UploadId>u1</UploadId>");
    world.reply(200, &[("etag", "\"p1\"")], b"");
    for _ in 0..3 {
        body.write(&back, &content(4 * MIB)).unwrap();
    }
    world.reply(404, &[], b"");
    world.reply(200, &[("etag", "\"p2\"")], b"");
    world.reply(200, &[], b"<CompleteMultipartUploadResult/>");
    let stored = body.finish(&back).unwrap();
    assert_eq!((stored.size, stored.existed), (12 * MIB as u64, false));
    let urls: Vec<String> = world.requests.borrow().iter().map(|request| format!("{} {}", request.method, request.url)).collect();
    let place = "http://127.0.0.1:9000/notes/m/big";
    let expected = ["POST ?uploads=", "PUT ?partNumber=1&uploadId=u1", "HEAD ", "PUT ?partNumber=2&uploadId=u1", "POST ?uploadId=u1"];
    let expected: Vec<String> = expected.iter().map(|line| line.replacen(' ', &format!(" {place}"), 1)).collect();
    assert_eq!(urls, expected);
    let last = world.requests.borrow().last().cloned().unwrap();
    assert!(String::from_utf8(last.body).unwrap().contains("<PartNumber>2</PartNumber><ETag>\"p2\"</ETag>"));
}
