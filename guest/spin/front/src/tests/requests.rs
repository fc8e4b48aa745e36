use super::support::*;
use crate::bindings::syncline::sync::http::{Accept, Admission, BodyFailure, BodyIn, BodyOut, BodyPlan, Generated, Upload, Work};
use crate::bindings::syncline::sync::mounts::Direct;
use crate::ports::Unread;

#[test]
fn a_request_is_admitted_and_handled_in_a_mount_that_was_started() {
    let world = World::new();
    let client = post(&world, "/sync/push?a=1", &[], &[b"ab", b"c"]);
    assert_eq!((client.status(), client.text().as_str(), client.finished), (200, "hello", Some(true)));
    assert_eq!((client.header("content-length").as_deref(), client.header("x-logic").as_deref()), (Some("5"), Some("1")));
    assert_eq!(*world.calls.borrow(), ["configure 1", "start None", "admit", "handle admitted"]);
    world.calls.borrow_mut().clear();
    get(&world, "/sync");
    assert_eq!(*world.calls.borrow(), ["configure 1", "admit", "handle admitted"], "another instance does not start it again");
}

#[test]
fn elsewhere_nobody_answers_and_a_socket_route_takes_no_plain_request() {
    let world = World::new();
    for path in ["/", "/other", "/synchronous", "/sync/socket"] {
        let client = served(&world, incoming("GET", path, &[("sec-websocket-key", "x")]), Client::default());
        assert_eq!(client.status(), 404, "{path}");
    }
    assert_eq!(get(&world, "/%73ync").status(), 200);
}

#[test]
fn what_is_wrong_with_the_configuration_is_told_by_readyz_and_nothing_is_served() {
    let world = World::new();
    for config in
        ["{", r#"{"mount": [{"protocol": "none"}]}"#, r#"{"mount": [{"protocol": "plasma"}, {"protocol": "plasma", "name": "b"}]}"#]
    {
        let front = front(&world, config);
        let status = |path: &str| served_by(&front, &world, incoming("GET", path, &[]), Client::default()).status();
        assert_eq!((status("/healthz"), status("/readyz"), status("/sync")), (200, 503, 500), "{config}");
    }
    assert_eq!(get(&world, "/readyz").text(), r#"{"status":"ready"}"#);
    assert_eq!(served(&world, incoming("POST", "/healthz", &[]), Client::default()).status(), 405);
}

#[test]
fn a_mount_that_another_request_starts_is_waited_for() {
    let world = World::new();
    world.kept.borrow_mut().busy = 3;
    assert_eq!(get(&world, "/sync").status(), 200);
    world.kept.borrow_mut().started = None;
    world.kept.borrow_mut().busy = u32::MAX;
    let client = get(&world, "/sync");
    assert_eq!((client.status(), client.text().as_str()), (503, "unavailable"));
}

#[test]
fn a_start_goes_on_from_step_to_step_and_one_that_fails_is_given_back() {
    let world = World::new();
    world.script.borrow_mut().starts = [Ok(Some(vec![7])), Ok(None)].into();
    assert_eq!(get(&world, "/sync").status(), 200);
    assert_eq!(world.calls.borrow()[1..3], ["start None", "start Some([7])"]);
    let world = World::new();
    world.script.borrow_mut().starts = [Err("no room".into())].into();
    assert_eq!(get(&world, "/sync").status(), 503);
    assert_eq!(world.calls.borrow().last().unwrap(), "start-failed");
}

#[test]
fn a_body_has_limits_while_it_is_read() {
    let world = World::new();
    world.script.borrow_mut().handle = Box::new(|_, _, _, body| match body {
        BodyIn::Failed(BodyFailure::TooLarge) => answer(413, BodyOut::Empty),
        BodyIn::Empty => answer(204, BodyOut::Empty),
        _ => answer(200, BodyOut::Empty),
    });
    let piece = [7_u8; 60];
    assert_eq!(post(&world, "/sync", &[], &[&piece, &piece]).status(), 413);
    assert_eq!(post(&world, "/sync", &[("content-length", "101")], &[]).status(), 413);
    assert_eq!(post(&world, "/sync", &[], &[&piece]).status(), 200);
    assert_eq!(post(&world, "/sync", &[], &[]).status(), 204);
    for (unread, status, text) in
        [(Unread::TooSlow, 408, r#"{"error":"request-timeout"}"#), (Unread::Broken, 400, r#"{"error":"bad-request"}"#)]
    {
        let client = served(&world, incoming("POST", "/sync", &[]), Client { body: [Err(unread)].into(), ..Client::default() });
        assert_eq!((client.status(), client.text().as_str()), (status, text));
    }
}

#[test]
fn small_requests_may_come_directly() {
    let world = World::new();
    world.script.borrow_mut().plan.direct = Some(Direct { paths: vec!["/sync".into()], body_bytes_max: 3 });
    post(&world, "/sync", &[("content-length", "3")], &[b"abc"]);
    post(&world, "/sync", &[("content-length", "4")], &[b"abcd"]);
    post(&world, "/sync", &[], &[b"abc"]);
    get(&world, "/sync");
    let handled: Vec<String> = world.calls.borrow().iter().filter(|call| call.starts_with("handle")).cloned().collect();
    assert_eq!(handled, ["handle directly", "handle admitted", "handle admitted", "handle admitted"]);
}

#[test]
fn a_body_becomes_an_object_and_an_object_a_body() {
    let world = World::new();
    let upload = |sha256: &str| Upload { key: "k".into(), content_type: "a/b".into(), sha256: Some(sha256.into()), max_bytes: 10 };
    let plan = move |sha256: &str| BodyPlan::Object(upload(sha256));
    world.script.borrow_mut().admit = Box::new(move |_, head| {
        let body = match head.method.as_str() {
            "PUT" => plan(if head.path.ends_with("wrong") { "wrong" } else { "right" }),
            _ => BodyPlan::Inline(0),
        };
        Admission::Accept(Accept { body, context: Vec::new(), work: Work::Usual })
    });
    world.script.borrow_mut().handle = Box::new(|_, _, head, body| match body {
        BodyIn::Stored(stored) => answer(201, BodyOut::Bytes(format!("{} {}", stored.size, stored.existed).into_bytes())),
        BodyIn::Failed(failure) => answer(400, BodyOut::Bytes(format!("{failure:?}").into_bytes())),
        _ => answer(200, BodyOut::Object((head.path.trim_start_matches("/sync/").into(), None))),
    });
    let put = |path: &str, pieces: &[&[u8]]| {
        let body = pieces.iter().map(|piece| Ok(piece.to_vec())).collect();
        served(&world, incoming("PUT", path, &[]), Client { body, ..Client::default() })
    };
    assert_eq!(put("/sync/k", &[b"abc", b"def"]).text(), "6 false");
    assert!(put("/sync/wrong", &[b"abc"]).text().contains("WrongHash"));
    assert!(put("/sync/k", &[b"0123456789a"]).text().contains("TooLarge"));
    let whole = get(&world, "/sync/k");
    assert_eq!((whole.text().as_str(), whole.header("content-length").as_deref(), whole.finished), ("abcdef", Some("6"), Some(true)));
    assert_eq!(whole.pieces.len(), 2, "it is streamed");
    let head = served(&world, incoming("HEAD", "/sync/k", &[]), Client::default());
    assert_eq!((head.text().as_str(), head.header("content-length").as_deref()), ("", Some("6")));
    let gone = get(&world, "/sync/other");
    assert_eq!((gone.status(), gone.header("x-logic")), (404, None));
}

#[test]
fn a_generated_body_is_made_piece_by_piece_and_broken_off_where_a_piece_fails() {
    let world = World::new();
    world.script.borrow_mut().handle =
        Box::new(|_, _, _, _| answer(200, BodyOut::Generated(Generated { cursor: b"0".to_vec(), view: None })));
    let piece = |text: &str, next: Option<&str>| Ok((text.as_bytes().to_vec(), next.map(|next| next.as_bytes().to_vec())));
    world.script.borrow_mut().pieces = [piece("a", Some("1")), piece("b", Some("2")), piece("c", None)].into();
    let client = get(&world, "/sync");
    assert_eq!((client.text().as_str(), client.finished, client.header("content-length")), ("abc", Some(true), None));
    world.script.borrow_mut().pieces = [piece("whole", None)].into();
    assert_eq!(get(&world, "/sync").header("content-length").as_deref(), Some("5"));
    world.script.borrow_mut().pieces = [piece("a", Some("1")), Err("gone".into())].into();
    let client = get(&world, "/sync");
    assert_eq!((client.text().as_str(), client.finished), ("a", Some(false)));
}

#[test]
fn a_call_that_was_aborted_is_made_again_and_one_whose_data_is_lost_has_no_answer() {
    let world = World::new();
    get(&world, "/sync");
    world.calls.borrow_mut().clear();
    world.kept.borrow_mut().again = 2;
    assert_eq!(get(&world, "/sync").status(), 200);
    assert_eq!(*world.calls.borrow(), ["configure 1", "admit", "admit", "admit", "handle admitted"]);
    world.kept.borrow_mut().again = u32::MAX;
    assert_eq!(get(&world, "/sync").status(), 503);
    world.kept.borrow_mut().again = 0;
    world.kept.borrow_mut().end_fails = true;
    let client = get(&world, "/sync");
    assert_eq!((client.status(), client.text().as_str()), (503, "unavailable"));
}

#[test]
fn a_refusal_that_is_none_is_an_error_of_the_server() {
    let world = World::new();
    world.script.borrow_mut().admit = Box::new(|_, _| Admission::Refuse(answer(401, BodyOut::Bytes(b"no".to_vec()))));
    assert_eq!(get(&world, "/sync").status(), 401);
    world.script.borrow_mut().admit = Box::new(|_, _| Admission::Refuse(answer(401, BodyOut::Object(("k".into(), None)))));
    let client = get(&world, "/sync");
    assert_eq!((client.status(), client.text().as_str()), (500, "failed"));
}
