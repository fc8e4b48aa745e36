use super::support::*;
use crate::bindings::syncline::spin::adapter::{FailedPost, Job};

fn job(name: &str) -> Job {
    Job { mount: MOUNT.into(), name: name.into(), payload: Vec::new(), cursor: None, id: 1 }
}

fn without_requests(world: &World) -> Vec<String> {
    let calls = world.calls.borrow();
    calls.iter().filter(|call| ["fire", "job", "post"].iter().any(|start| call.starts_with(start))).cloned().collect()
}

#[test]
fn jobs_are_done_step_by_step_after_an_answer_and_failed_posts_are_told() {
    let world = World::new();
    world.kept.borrow_mut().jobs = vec![job("a"), job("b")];
    world.script.borrow_mut().fired = [Some(vec![1]), None, None].into();
    let post =
        FailedPost { mount: MOUNT.into(), url: "http://x".into(), body: Vec::new(), attempts: 1, given_up: false, error: "down".into() };
    world.kept.borrow_mut().failed_posts = vec![post];
    assert_eq!(get(&world, "/sync").text(), "hello");
    assert_eq!(
        without_requests(&world),
        ["fire a None", "fire a Some([1])", "job-done a None", "fire b None", "job-done b None", "post-failed http://x"]
    );
}

#[test]
fn an_instance_does_nothing_for_what_others_took_and_makes_a_mount_ready_for_its_job_alone() {
    let world = World::new();
    world.kept.borrow_mut().taken_by_others = true;
    assert_eq!(get(&world, "/elsewhere").status(), 404);
    assert_eq!(*world.calls.borrow(), Vec::<String>::new());
    world.kept.borrow_mut().jobs = vec![job("a")];
    get(&world, "/elsewhere");
    let calls = world.calls.borrow();
    let place = |start: &str| calls.iter().position(|call| call.starts_with(start));
    assert!(place("configure").is_some() && place("configure") < place("fire a"), "{calls:?}");
}

#[test]
fn a_job_that_fails_comes_again() {
    let world = World::new();
    get(&world, "/sync");
    world.kept.borrow_mut().jobs = vec![job("a")];
    world.kept.borrow_mut().end_fails = true;
    get(&world, "/sync");
    assert_eq!(without_requests(&world), ["fire a None", "job-failed a"]);
}

#[test]
fn a_tick_needs_its_token_and_says_what_it_did() {
    let world = World::new();
    let tick = |method: &str, token: &str| {
        let authorization = format!("Bearer {token}");
        served(&world, incoming(method, "/internal/tick", &[("authorization", &authorization)]), Client::default())
    };
    assert_eq!((tick("POST", "wrong").status(), tick("GET", "t").status()), (401, 405));
    world.kept.borrow_mut().jobs = vec![job("a")];
    assert_eq!(tick("POST", "t").text(), r#"{"jobs":1,"next_due":null,"posts_failed":0}"#);
    let front = front(&world, "{}");
    assert_eq!(served_by(&front, &world, incoming("POST", "/internal/tick", &[]), Client::default()).status(), 404);
}

#[test]
fn where_all_clients_speak_to_gateways_polls_do_what_is_due() {
    use syncline_spin_wire as wire;

    let world = World::new();
    let poll = wire::Poll { gateway: 1, revision: String::new(), mounts: Vec::new(), held: Vec::new(), wait_ms: 0, callback: None };
    let body = wire::encode(&poll, wire::REQUEST_BYTES_MAX).unwrap();
    world.kept.borrow_mut().jobs = vec![job("b")];
    post(&world, wire::POLL, &[("authorization", "Bearer g")], &[&body]);
    assert_eq!(without_requests(&world), ["fire b None", "job-done b None"]);
}
