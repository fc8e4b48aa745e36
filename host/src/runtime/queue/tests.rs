//! Orders of publications, answers and closes on one connection.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LIMITS: QueueLimits = QueueLimits { queue_bytes: 10, inbox_bytes: 10, calls_in_gate: 2 };

fn text(text: &'static str) -> Frame {
    Frame::Text(Bytes::from_static(text.as_bytes()))
}

fn arrival(topic: &str, sequence: Option<u64>, frame: &'static str) -> Arrival {
    of_class(Class::MustDeliver, topic, sequence, frame)
}

fn of_class(class: Class, topic: &str, sequence: Option<u64>, frame: &'static str) -> Arrival {
    let order = sequence.map(|sequence| (topic.into(), sequence));
    Arrival {
        heading: Arc::new(Heading { topic: topic.into(), order, class, close: None, position: None }),
        payload: Payload::Frame(text(frame)),
    }
}

fn taken(queue: &mut ConnectionQueue<u8>) -> Vec<String> {
    let name = |frame: Frame| match frame {
        Frame::Text(bytes) | Frame::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    queue.take_frames(1000).into_iter().map(name).collect()
}

#[test]
fn the_document_comes_first_and_what_it_contains_does_not_come_again() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    let upgrade = queue.start_call();
    queue.subscribed("d");
    assert!(queue.publish(arrival("d", Some(1), "1")));
    assert!(queue.publish(arrival("d", None, "e")));
    assert!(queue.publish(arrival("d", Some(2), "2")));
    queue.end_call(Vec::new());
    queue.release(upgrade, Released { send: vec![text("document")], seen: vec![("d".into(), 1)], ..Released::default() });
    assert_eq!(taken(&mut queue), ["document", "e", "2"]);
}

#[test]
fn a_publication_that_comes_after_the_frame_that_covers_it_is_dropped() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    let upgrade = queue.start_call();
    queue.subscribed("d");
    queue.end_call(Vec::new());
    queue.release(upgrade, Released { send: vec![text("document")], seen: vec![("d".into(), 2)], ..Released::default() });
    for sequence in 1..=3 {
        assert!(queue.publish(arrival("d", Some(sequence), "p")));
    }
    assert_eq!(taken(&mut queue), ["document", "p"]);
    assert!(queue.covered.is_empty());
}

#[test]
fn after_a_quiet_answer_publications_wait_until_the_pause_is_over() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    let upgrade = queue.start_call();
    queue.subscribed("d");
    assert!(queue.publish(arrival("d", Some(1), "1")));
    queue.end_call(Vec::new());
    queue.push_input(0, 1);
    let (first, _) = queue.start_receive(1).unwrap();
    assert!(queue.publish(arrival("d", Some(2), "2")));
    queue.release(upgrade, Released { send: vec![text("document")], seen: vec![("d".into(), 0)], quiet: true, ..Released::default() });
    assert!(queue.publish(arrival("d", Some(3), "3")));
    queue.end_call(Vec::new());
    assert_eq!(taken(&mut queue), ["document"]);
    queue.release(first, Released { send: vec![text("reply")], ..Released::default() });
    assert_eq!(taken(&mut queue), ["reply"]);
    assert!(queue.is_idle());
    queue.end_quiet();
    queue.end_quiet();
    assert_eq!(taken(&mut queue), ["1", "2", "3"]);
}

#[test]
fn a_broadcast_that_waited_comes_before_the_reply_that_rests_on_it() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    queue.push_input(0, 1);
    let (call, inputs) = queue.start_receive(10).unwrap();
    assert_eq!(inputs, [0]);
    assert!(queue.publish(arrival("d", Some(5), "won")));
    queue.end_call(Vec::new());
    queue.release(call, Released { send: vec![text("lost")], ..Released::default() });
    assert_eq!(taken(&mut queue), ["won", "lost"]);
}

#[test]
fn a_slot_may_close_after_its_frames() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    let slot = Slot::default();
    assert!(queue.publish(Arrival { payload: Payload::Slot(slot.clone()), ..arrival("d", Some(1), "") }));
    assert!(queue.publish(arrival("d", Some(2), "2")));
    let close = Close { code: 1005, reason: String::new() };
    assert!(queue.fill(&Arc::downgrade(&slot), Filled { frames: vec![text("last")], close: Some(close.clone()) }));
    assert_eq!(taken(&mut queue), ["last"]);
    assert_eq!(queue.due_close(), Some(&close));
}

#[test]
fn what_waits_for_a_subscription_goes_with_it() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    assert!(queue.publish(arrival("d", Some(1), "1")) && queue.publish(arrival("e", Some(1), "2")));
    queue.unsubscribed("d");
    assert_eq!(taken(&mut queue), ["2"]);
}

#[test]
fn a_broadcast_comes_before_the_reply_that_rests_on_it_also_when_the_next_call_runs() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    queue.push_input(0, 1);
    let (first, _) = queue.start_receive(1).unwrap();
    queue.end_call(Vec::new());
    queue.push_input(1, 1);
    queue.start_receive(1).unwrap();
    assert!(queue.publish(arrival("d", Some(5), "won")));
    queue.release(first, Released { send: vec![text("lost")], ..Released::default() });
    assert_eq!(taken(&mut queue), ["won", "lost"]);
}

#[test]
fn a_publication_does_not_wait_for_calls_that_began_after_it() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    queue.push_input(0, 1);
    let (first, _) = queue.start_receive(1).unwrap();
    assert!(queue.publish(arrival("d", Some(5), "p")));
    queue.end_call(Vec::new());
    queue.push_input(1, 1);
    let (second, _) = queue.start_receive(1).unwrap();
    queue.release(first, Released::default());
    assert_eq!(taken(&mut queue), ["p"]);
    queue.release(second, Released::default());
    assert!(queue.is_idle() || queue.start_receive(1).is_none());
}

#[test]
fn only_so_many_calls_wait_at_the_gate() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    for input in 0..3 {
        queue.push_input(input, 1);
    }
    let (first, _) = queue.start_receive(1).unwrap();
    queue.end_call(Vec::new());
    queue.start_receive(1).unwrap();
    queue.end_call(Vec::new());
    assert!(queue.start_receive(1).is_none());
    queue.release(first, Released::default());
    assert!(queue.start_receive(1).is_some());
}

#[test]
fn a_slow_reader_loses_droppable_frames_first_and_is_then_closed() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    assert!(queue.publish(of_class(Class::Droppable, "d", None, "presence")));
    assert!(queue.publish(arrival("d", Some(1), "update")));
    assert_eq!(taken(&mut queue), ["update"]);
    assert!(queue.publish(arrival("d", Some(2), "update")));
    assert!(!queue.publish(arrival("d", Some(3), "update")));
}

#[test]
fn the_newest_of_a_kind_replaces_the_one_that_waits() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    let poke = |frame| of_class(Class::Latest("k".into()), "d", None, frame);
    assert!(queue.publish(poke("1")) && queue.publish(arrival("d", None, "x")) && queue.publish(poke("2")));
    assert_eq!(taken(&mut queue), ["x", "2"]);
}

#[test]
fn an_unfilled_slot_holds_back_what_is_behind_it() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    let slot = Slot::default();
    assert!(queue.publish(Arrival { payload: Payload::Slot(slot.clone()), ..arrival("d", Some(1), "") }));
    assert!(queue.publish(arrival("d", Some(2), "2")));
    assert!(taken(&mut queue).is_empty());
    assert!(queue.fill(&Arc::downgrade(&slot), Filled { frames: vec![text("1")], close: None }));
    assert_eq!(taken(&mut queue), ["1", "2"]);
}

#[test]
fn a_close_follows_the_frames_and_ends_the_reading() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    queue.push_input(0, 1);
    let (call, _) = queue.start_receive(1).unwrap();
    queue.push_input(1, 1);
    queue.end_call(Vec::new());
    let close = Close { code: 1005, reason: String::new() };
    queue.release(call, Released { send: vec![text("unauthorized")], close: Some(close.clone()), ..Released::default() });
    assert!(queue.due_close().is_none() && !queue.wants_input());
    assert_eq!(taken(&mut queue), ["unauthorized"]);
    assert_eq!(queue.due_close(), Some(&close));
    assert!(queue.start_receive(1).is_none());
}

/// The simulator found it: the answer went out although the broadcast before it had been dropped.
#[test]
fn an_answer_does_not_follow_what_was_dropped_before_it() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    queue.push_input(0, 1);
    let (call, _) = queue.start_receive(1).unwrap();
    queue.end_call(Vec::new());
    assert!(queue.publish(arrival("d", Some(1), "update")));
    queue.close_now(Close { code: 1013, reason: String::new() });
    queue.release(call, Released { send: vec![text("saved")], ..Released::default() });
    assert_eq!(taken(&mut queue), Vec::<String>::new());
    assert_eq!(queue.due_close().map(|close| close.code), Some(1013));
}

#[test]
fn inputs_that_were_put_off_come_again_first() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    for input in 0..3 {
        queue.push_input(input, 1);
    }
    let (_, inputs) = queue.start_receive(2).unwrap();
    assert_eq!(inputs, [0, 1]);
    queue.end_call(vec![(1, 1)]);
    assert!(queue.start_receive(2).is_none());
    queue.resume();
    assert_eq!(queue.start_receive(5).unwrap().1, [1, 2]);
}

/// Slots that wait, in the order of their publications; whoever fills them does not keep them alive.
fn waiting_slot(queue: &mut ConnectionQueue<u8>, sequence: u64, class: Class) -> Weak<OnceLock<Filled>> {
    let slot = Slot::default();
    let filler = Arc::downgrade(&slot);
    assert!(queue.publish(Arrival { payload: Payload::Slot(slot), ..of_class(class, "d", Some(sequence), "") }));
    filler
}

fn filled(frame: &'static str) -> Filled {
    Filled { frames: vec![text(frame)], close: None }
}

#[test]
fn what_is_encoded_for_a_publication_that_was_dropped_meanwhile_does_not_count() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    for round in 0..10 {
        let unsubscribed = waiting_slot(&mut queue, round * 3, Class::MustDeliver);
        queue.unsubscribed("d");
        assert!(queue.fill(&unsubscribed, filled("eight888")));
        let replaced = waiting_slot(&mut queue, round * 3 + 1, Class::Latest("k".into()));
        let newest = waiting_slot(&mut queue, round * 3 + 2, Class::Latest("k".into()));
        assert!(queue.fill(&replaced, filled("eight888")) && queue.fill(&newest, filled("newest")));
        assert_eq!(taken(&mut queue), ["newest"]);
    }
    assert_eq!(queue.waiting_bytes(), 0);
}

#[test]
fn a_slot_that_a_cut_off_covers_does_not_count() {
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    let upgrade = queue.start_call();
    queue.subscribed("d");
    let covered = waiting_slot(&mut queue, 1, Class::MustDeliver);
    queue.end_call(Vec::new());
    queue.release(upgrade, Released { send: vec![text("document")], seen: vec![("d".into(), 1)], ..Released::default() });
    assert!(queue.fill(&covered, filled("eight888")));
    assert_eq!(taken(&mut queue), ["document"]);
    assert_eq!(queue.waiting_bytes(), 0);
}

/// What may happen to a queue, for [`bytes_are_counted_exactly`].
#[derive(Clone, Debug)]
enum Happens {
    Input(usize),
    Call,
    End,
    Release { frames: u8, seen: Option<u64>, close: bool, quiet: bool },
    Publish { class: u8, slot: bool },
    Fill,
    Send,
    Subscribe,
    Unsubscribe,
    EndQuiet,
    Take,
    Disconnect,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (0_usize..9).prop_map(Happens::Input),
        Just(Happens::Call),
        Just(Happens::End),
        (0..3_u8, proptest::option::of(0..40_u64), prop::bool::weighted(0.02), prop::bool::weighted(0.2))
            .prop_map(|(frames, seen, close, quiet)| Happens::Release { frames, seen, close, quiet }),
        (0..3_u8, any::<bool>()).prop_map(|(class, slot)| Happens::Publish { class, slot }),
        (0..3_u8, any::<bool>()).prop_map(|(class, slot)| Happens::Publish { class, slot }),
        Just(Happens::Fill),
        Just(Happens::Send),
        Just(Happens::Subscribe),
        Just(Happens::Unsubscribe),
        Just(Happens::EndQuiet),
        Just(Happens::Take),
        prop::bool::weighted(0.02).prop_map(|gone| if gone { Happens::Disconnect } else { Happens::Take }),
    ]
}

proptest! {
    #[test]
    fn bytes_are_counted_exactly(story in proptest::collection::vec(happens(), 0..120)) {
        let mut queue = ConnectionQueue::<u8>::new(QueueLimits { queue_bytes: 60, inbox_bytes: 60, calls_in_gate: 4 });
        let (mut calls, mut slots, mut sequence, mut running) = (Vec::new(), Vec::new(), 0, false);
        for step in story {
            match step {
                Happens::Input(bytes) => queue.push_input(0, bytes),
                Happens::Call => if let Some((call, _)) = queue.start_receive(2) {
                    calls.push(call);
                    running = true;
                },
                Happens::End => if std::mem::take(&mut running) {
                    queue.end_call(Vec::new());
                },
                Happens::Release { frames, seen, close, quiet } => if let Some(call) = calls.pop() {
                    let close = close.then(|| Close { code: 1000, reason: String::new() });
                    let send = (0..frames).map(|_| text("answer")).collect();
                    let seen = seen.map(|through| ("d".to_owned(), through)).into_iter().collect();
                    queue.release(call, Released { send, seen, close, quiet, pace: false });
                },
                Happens::Publish { class, slot } => {
                    sequence += 1;
                    let class = [Class::MustDeliver, Class::Droppable, Class::Latest("k".into())][usize::from(class)].clone();
                    let payload = if slot { Payload::Slot(Slot::default()) } else { Payload::Frame(text("published")) };
                    if let Payload::Slot(slot) = &payload {
                        slots.push(Arc::downgrade(slot));
                    }
                    queue.publish(Arrival { payload, ..of_class(class, "d", Some(sequence), "") });
                }
                Happens::Fill => if !slots.is_empty() {
                    queue.fill(&slots.remove(0), filled("encoded"));
                },
                Happens::Send => { queue.send(text("sent")); }
                Happens::Subscribe => queue.subscribed("d"),
                Happens::Unsubscribe => queue.unsubscribed("d"),
                Happens::EndQuiet => queue.end_quiet(),
                Happens::Take => { queue.take_frames(20); }
                Happens::Disconnect => queue.disconnected(),
            }
            prop_assert_eq!(queue.waiting_bytes(), queue.waiting_bytes_counted_anew());
        }
    }
}

#[test]
fn what_has_a_later_place_than_a_call_follows_its_frames() {
    let at = |position: u64, frame| {
        let plain = arrival("d", None, frame);
        Arrival { heading: Arc::new(Heading { position: Some(position), ..(*plain.heading).clone() }), ..plain }
    };
    let mut queue = ConnectionQueue::<u8>::new(LIMITS);
    let first = queue.start_call();
    for (position, frame) in [(4, "4"), (6, "6"), (8, "8")] {
        assert!(queue.publish(at(position, frame)));
    }
    queue.placed(5);
    queue.end_call(Vec::new());
    // The next call may be on its way already, and come before what was published last.
    queue.push_input(0, 1);
    let (second, _) = queue.start_receive(1).unwrap();
    queue.release(first, Released { send: vec![text("first")], ..Released::default() });
    assert_eq!(taken(&mut queue), ["4", "first"]);
    queue.placed(7);
    queue.end_call(Vec::new());
    queue.release(second, Released { send: vec![text("second")], ..Released::default() });
    assert_eq!(taken(&mut queue), ["6", "second", "8"]);
}
