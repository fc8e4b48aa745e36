use std::rc::Rc;

use super::support::*;
use crate::bindings::syncline::host::pubsub::{Class, Mode, Publication, Subscription};
use crate::bindings::syncline::sync::live::{Alarm, Outcome};
use crate::bindings::syncline::sync::socket::{Deliveries, Group, GroupOutcome, Input, Part};

/// The logic answers with a stream that listens to `t` in this mode, and ends it after `end_ms`.
fn streaming(world: &Rc<World>, subscription: Subscription, start: Outcome, end_ms: u64) {
    world.script.borrow_mut().handle = Box::new(move |world, id, _, _| {
        world.subscribe(id, subscription.clone());
        stream(start.clone(), None)
    });
    world.after(end_ms, |world| {
        let end = Publication { close: Some(close(1000)), ..published("t", "") };
        world.kept.borrow_mut().publish(end);
    });
}

fn forward(world: &Rc<World>, start: Outcome, end_ms: u64) {
    streaming(world, subscription("t", Mode::ForwardText), start, end_ms);
}

fn texts(client: &Client) -> Vec<&str> {
    client.pieces.iter().map(|(_, text)| text.as_str()).collect()
}

#[test]
fn what_is_published_reaches_a_stream_in_order_until_it_is_closed() {
    let world = World::new();
    forward(&world, outcome("start;"), 1000);
    for (delay_ms, text) in [(200, "one;"), (500, "two;")] {
        world.publish_after(delay_ms, published("t", text));
    }
    world.publish_after(300, Publication { except: Some(1), ..published("t", "its own;") });
    world.publish_after(400, published("other", "not listened to;"));
    let client = get(&world, "/sync");
    assert_eq!((texts(&client), client.finished), (vec!["start;", "one;", "two;"], Some(true)));
    assert_eq!(world.calls.borrow().last().unwrap(), "closed 1000");
    assert!(world.kept.borrow().places.is_empty(), "its place is free again");
}

#[test]
fn what_was_published_while_it_was_made_comes_behind_its_first_words_but_for_what_those_cover() {
    let world = World::new();
    world.script.borrow_mut().handle = Box::new(|world, id, _, _| {
        world.subscribe(id, subscription("t", Mode::ForwardText));
        for (text, sequence) in [("covered;", 1), ("newer;", 2)] {
            world.publish(ordered("t", text, "k", sequence));
        }
        stream(Outcome { seen: vec![("k".into(), 1)], close: None, ..outcome("start;") }, None)
    });
    world.publish_after(500, Publication { close: Some(close(1000)), ..published("t", "") });
    assert_eq!(get(&world, "/sync").text(), "start;newer;");
}

#[test]
fn an_alarm_calls_the_logic_and_what_came_meanwhile_goes_before_its_frames() {
    let world = World::new();
    forward(&world, Outcome { alarm: Alarm::AfterMs(300), attachment: Some(b"a".to_vec()), ..outcome("") }, 2000);
    world.script.borrow_mut().receive = Box::new(|world, connection, inputs| {
        assert_eq!((connection.attachment.as_slice(), inputs), (b"a".as_slice(), [Input::Wake].as_slice()));
        world.publish(published("t", "published;"));
        outcome("woken;")
    });
    assert_eq!(get(&world, "/sync").text(), "published;woken;");
    assert_eq!(world.calls.borrow().iter().filter(|call| call.starts_with("receive")).count(), 1);
}

#[test]
fn paced_frames_tasks_and_deferred_inputs_come_back() {
    let world = World::new();
    forward(&world, Outcome { pace: true, tasks: vec![b"work".to_vec()], ..outcome("page;") }, 3000);
    let mut put_off = false;
    world.script.borrow_mut().receive = Box::new(move |_, _, inputs| {
        let names: Vec<String> = inputs
            .iter()
            .map(|input| match input {
                Input::Drained => "drained;".into(),
                Input::TaskDone(result) => format!("{};", String::from_utf8_lossy(result)),
                other => format!("{other:?};"),
            })
            .collect();
        if !std::mem::replace(&mut put_off, true) {
            return Outcome { defer: Some((0, 500)), ..outcome("later;") };
        }
        outcome(&names.concat())
    });
    let client = get(&world, "/sync");
    assert_eq!(texts(&client), ["page;", "later;", "drained;work done;"]);
    assert!(client.pieces[2].0 - client.pieces[1].0 >= 500);
}

#[test]
fn in_a_pause_after_its_frames_a_stream_is_told_nothing() {
    let world = World::new();
    forward(&world, Outcome { quiet_ms: Some(1000), ..outcome("start;") }, 3000);
    world.publish_after(200, published("t", "held;"));
    let client = get(&world, "/sync");
    assert_eq!(client.text(), "start;held;");
    assert!(client.pieces[1].0 - client.pieces[0].0 >= 1000);
}

#[test]
fn groups_get_the_frames_of_their_templates_and_cursors_move() {
    let world = World::new();
    streaming(&world, Subscription { cursor: Some(3), ..subscription("t", Mode::Deliver) }, outcome(""), 2000);
    world.script.borrow_mut().deliver = Box::new(|publication, groups| {
        assert_eq!(groups, [Group { name: "g".into(), cursor: None }]);
        let after = publication.order.as_ref().map(|order| order.sequence);
        let parts = vec![Part::Bytes(b"from ".to_vec()), Part::CursorDecimal, Part::Bytes(b";".to_vec())];
        Deliveries { frames: vec![template(parts, after)], outcomes: vec![GroupOutcome::Send(vec![0])] }
    });
    world.publish_after(200, ordered("t", "x", "k", 5));
    world.publish_after(400, ordered("t", "x", "k", 5));
    world.publish_after(600, ordered("t", "x", "k", 7));
    assert_eq!(get(&world, "/sync").text(), "from 3;from 5;");
}

#[test]
fn who_gets_what_changed_since_its_cursor_gets_nothing_from_the_time_of_its_own_call_but_looks_for_itself() {
    let world = World::new();
    let start = Outcome { alarm: Alarm::AfterMs(300), ..outcome("") };
    streaming(&world, Subscription { cursor: Some(3), ..subscription("t", Mode::DeliverByCursor) }, start, 2000);
    let mut calls = 0;
    world.script.borrow_mut().receive = Box::new(move |world, connection, _| {
        calls += 1;
        if calls == 1 {
            assert_eq!(connection.cursors, [("t".to_owned(), 3)]);
            world.publish(ordered("t", "x", "k", 4));
            outcome("first;")
        } else {
            Outcome { cursors: vec![("t".into(), 9)], ..outcome("looked;") }
        }
    });
    world.script.borrow_mut().deliver = Box::new(|publication, groups| {
        let cursor = groups[0].cursor.unwrap();
        let after = publication.order.as_ref().map(|order| order.sequence);
        let frame = template(vec![Part::Bytes(format!("since {cursor};").into_bytes())], after);
        Deliveries { frames: vec![frame], outcomes: vec![GroupOutcome::Send(vec![0])] }
    });
    world.publish_after(1000, ordered("t", "x", "k", 10));
    assert_eq!(get(&world, "/sync").text(), "first;looked;since 9;");
}

#[test]
fn a_group_that_leaves_gets_its_last_words() {
    let world = World::new();
    streaming(&world, subscription("t", Mode::Deliver), outcome(""), 5000);
    world.script.borrow_mut().deliver = Box::new(|_, _| {
        let last = (crate::bindings::syncline::host::types::Frame::Text("bye;".into()), close(4000));
        Deliveries { frames: Vec::new(), outcomes: vec![GroupOutcome::Leave(Some(last))] }
    });
    world.publish_after(200, published("t", "x"));
    assert_eq!(get(&world, "/sync").text(), "bye;");
    assert_eq!(world.calls.borrow().last().unwrap(), "closed 4000");
}

#[test]
fn keepalives_are_written_when_nothing_else_is_and_a_client_that_went_away_is_found_by_them() {
    let world = World::new();
    world.script.borrow_mut().handle = Box::new(|_, _, _, _| stream(outcome("start;"), Some((15_000, ":\n"))));
    let client = served(&world, incoming("GET", "/sync", &[]), Client { gone_after: Some(3), ..Client::default() });
    assert_eq!(texts(&client), ["start;", ":\n", ":\n"]);
    assert_eq!(client.pieces[2].0 - client.pieces[1].0, 15_000);
    assert_eq!((client.finished, world.calls.borrow().last().unwrap().as_str()), (None, "closed 1006"));
}

#[test]
fn there_are_as_many_streams_as_may_be_and_each_ends_where_a_host_would_cut_it_off() {
    let world = World::new();
    let config = CONFIG.replace(r#""streams": 2"#, r#""streams": 1, "stream_ms": 25000"#);
    let front = front(&world, &config);
    world.script.borrow_mut().handle = Box::new(|_, _, _, _| stream(outcome("start;"), None));
    let began_ms = world.now_ms.get();
    let client = served_by(&front, &world, incoming("GET", "/sync", &[]), Client::default());
    assert_eq!((client.finished, world.now_ms.get() - began_ms), (Some(true), 25_000));
    assert_eq!(world.calls.borrow().last().unwrap(), "closed 4005");
    world.kept.borrow_mut().places.insert(("streams".into(), "another".into()), u64::MAX);
    assert_eq!(served_by(&front, &world, incoming("GET", "/sync", &[]), Client::default()).status(), 503);
}

#[test]
fn a_stream_that_cannot_keep_up_or_missed_something_is_closed() {
    let world = World::new();
    forward(&world, outcome(""), 60_000);
    world.after(200, |world| {
        for _ in 0..3 {
            world.kept.borrow_mut().publish(published("t", &"x".repeat(400)));
        }
    });
    get(&world, "/sync");
    assert_eq!(world.calls.borrow().last().unwrap(), "closed 4001");
    world.after(200, |world| {
        for _ in 0..3 {
            let droppable = Publication { class: Class::Droppable, ..published("t", &"x".repeat(400)) };
            world.kept.borrow_mut().publish(droppable);
        }
    });
    assert_eq!(get(&world, "/sync").text().len(), 800);
    world.after(200, |world| {
        world.kept.borrow_mut().missed = true;
        world.kept.borrow_mut().publish(published("t", "x"));
    });
    get(&world, "/sync");
    assert_eq!(world.calls.borrow().last().unwrap(), "closed 4004");
}

#[test]
fn a_call_of_a_stream_that_is_lost_closes_it() {
    let world = World::new();
    forward(&world, Outcome { alarm: Alarm::AfterMs(300), ..outcome("") }, 60_000);
    world.script.borrow_mut().receive = Box::new(|world, _, _| {
        world.after(0, |world| world.kept.borrow_mut().end_fails = false);
        world.kept.borrow_mut().end_fails = true;
        outcome("lost;")
    });
    let client = get(&world, "/sync");
    assert_eq!((client.text().as_str(), client.finished), ("", Some(true)));
}
