//! What calls let out: publications, subscriptions, frames, the log.

use super::*;
use crate::bindings::exports::syncline::host::effects::{Kind, Level, Metric};
use crate::bindings::exports::syncline::host::types::Frame;
use crate::bindings::exports::syncline::spin::adapter::Change;

fn topics(back: &Back, topics: &[&str], after: u64) -> Vec<(u64, String)> {
    let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
    let found = back.publications("m", &topics, after, 1 << 20).unwrap();
    found.publications.into_iter().map(|(position, publication)| (position, publication.topic)).collect()
}

#[test]
fn publications_stand_in_the_order_of_commits_and_positions_grow() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    assert_eq!(back.positions(&["m".into(), "none".into()]).unwrap(), [0, 0]);
    back.begin("m", false);
    back.publish(publication("a", "outside"));
    let handle = back.begin_transaction("main").unwrap();
    back.run(handle, "CREATE TABLE {}t (a)", &[]).unwrap();
    back.publish(publication("b", "within"));
    back.commit(handle).unwrap();
    assert_eq!(messages(&other, 0), ["within"]);
    let ended = back.end(false).unwrap();
    assert_eq!((ended.published, messages(&other, 0)), (Some(2), vec!["within".to_owned(), "outside".to_owned()]));
    other.begin("other", false);
    other.publish(publication("a", "elsewhere"));
    assert_eq!(other.end(false).unwrap().published, Some(3));
    assert_eq!(back.positions(&["m".into(), "other".into()]).unwrap(), [2, 3]);
    assert_eq!(topics(&other, &["a", "x"], 0), [(2, "a".to_owned())]);
    assert_eq!(topics(&other, &[], 1), [(2, "a".to_owned())]);
    assert_eq!(topics(&other, &["b"], 1), []);
    let all: Vec<String> = (0..300).map(|number| format!("t{number}")).chain(["b".to_owned()]).collect();
    assert_eq!(other.publications("m", &all, 0, 1 << 20).unwrap().publications.len(), 1);
}

#[test]
fn a_call_that_fails_publishes_what_it_committed_and_nothing_else() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    back.publish(publication("a", "committed"));
    back.commit(handle).unwrap();
    let handle = back.begin_transaction("main").unwrap();
    back.publish(publication("a", "open"));
    back.run(handle, "CREATE TABLE {}t (a)", &[]).unwrap();
    back.publish(publication("a", "open too"));
    let ended = back.end(true).unwrap();
    assert_eq!((ended.published, messages(&back, 0)), (Some(1), vec!["committed".to_owned()]));
}

#[test]
fn an_answer_is_bounded_by_bytes_and_says_how_far_it_goes() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    for number in 0..5 {
        back.publish(publication("a", &format!("{number}{}", "x".repeat(1000))));
    }
    back.end(false).unwrap();
    let found = |after, bytes| {
        let found = back.publications("m", &["a".into()], after, bytes).unwrap();
        (found.publications.len(), found.next)
    };
    assert_eq!(found(0, 1), (1, 1));
    assert_eq!(found(1, 2000), (2, 3));
    assert_eq!(found(3, 1 << 20), (2, 5));
    assert_eq!(found(5, 1 << 20), (0, 5));
    assert_eq!(found(77, 1), (0, 77));
}

#[test]
fn of_those_that_replace_each_other_the_newest_comes() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    let latest = |topic: &str, key: &str, message: &str| Publication { class: Class::Latest(key.into()), ..publication(topic, message) };
    for published in [latest("a", "k", "1"), latest("a", "l", "2"), latest("b", "k", "3"), publication("a", "4"), latest("a", "k", "5")] {
        back.publish(published);
    }
    back.publish(Publication { except: Some(1), ..latest("a", "k", "6") });
    back.end(false).unwrap();
    assert_eq!(messages(&back, 0), ["2", "3", "4", "5", "6"]);
}

#[test]
fn old_publications_go_and_who_waited_for_them_hears_of_it() {
    let world = World::new();
    let back = world.instance();
    let publish = |message: &str| {
        back.begin("m", false);
        back.publish(publication("a", message));
        back.end(false).unwrap().published.unwrap()
    };
    let first = publish("1");
    publish("2");
    world.pass_ms(200_000);
    publish("3");
    let clean = || back.clean(&back.opened().unwrap(), "m");
    clean();
    assert_eq!(messages(&back, 0), ["1", "2", "3"]);
    world.pass_ms(200_000);
    clean();
    assert_eq!(messages(&back, 0), ["3"]);
    let missed = |after| back.publications("m", &[], after, 1000).unwrap().missed;
    assert!(missed(0) && missed(first) && !missed(first + 1));
    world.pass_ms(400_000);
    clean();
    assert_eq!(back.positions(&["m".into()]).unwrap(), [3], "the newest stays");
    assert!(!missed(3) && !missed(2));
}

#[test]
fn a_frame_for_one_connection_is_a_publication_of_its_own_topic() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    back.send(0x0102, Frame::Text("hé".into()));
    back.send(7, Frame::Binary(vec![9]));
    back.end(false).unwrap();
    let found = back.publications("m", &[crate::SENT_TOPIC.into()], 0, 1000).unwrap().publications;
    let sent: Vec<Vec<u8>> = found.into_iter().map(|(_, publication)| publication.message).collect();
    assert_eq!(sent, [b"\x02\x01\0\0\0\0\0\0\0h\xc3\xa9".to_vec(), b"\x07\0\0\0\0\0\0\0\x01\x09".to_vec()]);
}

#[test]
fn a_subscription_begins_at_the_position_that_the_call_sees() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    back.begin("m", false);
    back.publish(publication("a", "before"));
    back.end(false).unwrap();
    back.begin("m", false);
    back.subscribe(5, subscription("a", None));
    other.begin("m", false);
    other.publish(publication("a", "meanwhile"));
    other.end(false).unwrap();
    back.unsubscribe(5, "b".into());
    let ended = back.end(true).unwrap();
    let expected = vec![Change::Subscribed((5, subscription("a", None), 1)), Change::Unsubscribed((5, "b".into()))];
    assert_eq!(ended.changes, expected);
    assert_eq!(messages(&back, 1), ["meanwhile"]);
}

#[test]
fn members_are_those_whose_presence_is_renewed() {
    let world = World::new();
    let (back, other) = (world.instance(), world.instance());
    let members = |back: &Back| back.members("a").into_iter().map(|member| (member.connection, member.presence)).collect::<Vec<_>>();
    back.begin("m", false);
    back.subscribe(1, subscription("a", Some("one")));
    back.subscribe(2, subscription("a", Some("two")));
    back.subscribe(3, subscription("a", None));
    let both = vec![(1, b"one".to_vec()), (2, b"two".to_vec())];
    assert_eq!(members(&back), both);
    other.begin("m", false);
    assert_eq!(members(&other), []);
    back.end(false).unwrap();
    assert_eq!(members(&other), both);
    other.unsubscribe(1, "a".into());
    other.subscribe(2, subscription("a", Some("zwei")));
    assert_eq!(members(&other), [(2, b"zwei".to_vec())]);
    other.end(false).unwrap();
    world.pass_ms(60_000);
    back.renew("m", &[2, 99]).unwrap();
    world.pass_ms(60_000);
    back.begin("m", false);
    assert_eq!(members(&back), [(2, b"zwei".to_vec())]);
    back.end(false).unwrap();
    back.gone("m", &[2, 3]).unwrap();
    back.begin("m", false);
    assert_eq!(members(&back), []);
    back.subscribe(4, subscription("a", Some("four")));
    back.end(false).unwrap();
    back.begin("m", false);
    back.subscribe(4, subscription("a", None));
    back.end(false).unwrap();
    back.begin("m", false);
    assert_eq!(members(&back), [], "without a presence it is not shown any more");
}

#[test]
fn a_call_that_lets_out_too_much_fails_and_commits_nothing() {
    let world = World::new();
    let back = world.instance();
    back.write("CREATE TABLE {}t (a)", &[]);
    back.begin("m", false);
    let handle = back.begin_transaction("main").unwrap();
    back.run(handle, "INSERT INTO {}t VALUES (1)", &[]).unwrap();
    for _ in 0..=65_536 {
        back.publish(publication("a", ""));
    }
    assert!(back.commit(handle).is_err());
    assert!(back.end(false).is_err());
    assert_eq!(messages(&back, 0), Vec::<String>::new());
    back.begin("m", false);
    assert_eq!(back.numbers("SELECT a FROM {}t"), [0_i64; 0]);
}

#[test]
fn lines_of_the_log_are_json_and_bounded() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    back.log(Level::Warn, "a \"message\"", r#"{"count":1}"#);
    back.log(Level::Info, &"é".repeat(20_000), "no JSON");
    let lines: Vec<serde_json::Value> = world.lines.borrow().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["level"], &lines[0]["message"], &lines[0]["mount"]), (&"warn".into(), &"a \"message\"".into(), &"m".into()));
    assert_eq!((&lines[0]["fields"]["count"], &lines[1]["fields"]), (&1.into(), &"no JSON".into()));
    assert!(lines[1]["message"].as_str().unwrap().len() < 17_000);
    for _ in 0..2000 {
        back.log(Level::Debug, "again", "{}");
    }
    assert_eq!(world.lines.borrow().len(), 1001);
}

#[test]
fn metrics_add_up_within_an_instance() {
    let world = World::new();
    let back = world.instance();
    back.begin("m", false);
    let metric = |name: &str, kind, value| Metric { name: name.into(), kind, labels: Vec::new(), value };
    for value in [1.0, 2.5] {
        back.measure(metric("counter", Kind::Counter, value));
        back.measure(metric("gauge", Kind::Gauge, value));
    }
    let values: Vec<_> = back.measured().into_iter().map(|metric| (metric.name, metric.value)).collect();
    assert_eq!(values, [("counter".to_owned(), 3.5), ("gauge".to_owned(), 2.5)]);
    back.begin("other", false);
    assert_eq!(back.measured(), []);
}

#[test]
fn redis_is_told_of_publications_and_asked_for_positions() {
    let world = World::new();
    let back = world.instance_with(|settings| settings.redis = Some("redis://127.0.0.1".into()));
    let publish = |message: &str| {
        back.begin("m", false);
        back.publish(publication("a", message));
        back.end(false).unwrap();
    };
    let positions = || back.positions(&["m".into()]).unwrap();
    publish("1");
    publish("2");
    let expected = [("syncline:m", "1"), ("syncline:m", "2")].map(|(channel, position)| (channel.to_owned(), position.to_owned()));
    assert_eq!(world.redis.borrow().published, expected);
    assert_eq!(positions(), [2]);
    // From here on it is Redis that is asked, for a while.
    world.redis.borrow_mut().values.insert("syncline:m:position".into(), "9".into());
    assert_eq!(positions(), [9]);
    world.pass_ms(2_000);
    assert_eq!(positions(), [2]);
    publish("3");
    assert_eq!(world.redis.borrow().values["syncline:m:position"], "9", "a position never falls");
    world.redis.borrow_mut().away = true;
    publish("4");
    publish("5");
    assert_eq!((positions(), positions()), (vec![5], vec![5]));
    assert_eq!(world.lines.borrow().len(), 1, "{:?}", world.lines.borrow());
}
