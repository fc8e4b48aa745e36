//! Whatever is written is read again as it was; whatever else comes is refused without a fall.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

const LIMIT_BYTES: usize = 1 << 20;

fn text() -> impl Strategy<Value = String> {
    ".{0,12}"
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes)
}

fn headers() -> impl Strategy<Value = Vec<Header>> {
    vec((text(), bytes()).prop_map(|(name, value)| Header { name, value }), 0..3)
}

fn head() -> impl Strategy<Value = RequestHead> {
    (text(), text(), option::of(text()), headers(), text(), any::<bool>()).prop_map(
        |(method, path, query, headers, remote_address, secure)| RequestHead { method, path, query, headers, remote_address, secure },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![text().prop_map(Frame::Text), bytes().prop_map(Frame::Binary)]
}

fn close() -> impl Strategy<Value = Close> {
    (any::<u16>(), text()).prop_map(|(code, reason)| Close { code, reason })
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![Just(Failure::Trapped), Just(Failure::TimedOut)]
}

fn publication() -> impl Strategy<Value = Publication> {
    let order = (text(), any::<u64>(), any::<u64>()).prop_map(|(key, after, sequence)| Order { key, after, sequence });
    let class = prop_oneof![Just(Class::MustDeliver), Just(Class::Droppable), text().prop_map(Class::Latest)];
    (text(), bytes(), option::of(order), class, any::<Option<u64>>(), option::of(close()))
        .prop_map(|(topic, message, order, class, except, close)| Publication { topic, message, order, class, except, close })
}

fn published() -> impl Strategy<Value = Published> {
    (vec((any::<u64>(), publication()), 0..3), any::<u64>(), any::<bool>()).prop_map(|(publications, next, missed)| Published {
        publications,
        next,
        missed,
    })
}

fn connection() -> impl Strategy<Value = Connection> {
    (any::<u64>(), bytes(), vec((text(), any::<u64>()), 0..3), option::of(failure()))
        .prop_map(|(id, attachment, cursors, failure)| Connection { id, attachment, cursors, failure })
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        frame().prop_map(Input::Frame),
        Just(Input::Wake),
        Just(Input::Drained),
        bytes().prop_map(Input::TaskDone),
        (bytes(), failure()).prop_map(|(work, failure)| Input::TaskFailed(TaskFailure { work, failure })),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let alarm = prop_oneof![Just(Alarm::Keep), Just(Alarm::Stop), any::<u64>().prop_map(Alarm::AfterMs)];
    let numbers = || vec((text(), any::<u64>()), 0..3);
    let first = (vec(frame(), 0..3), option::of(bytes()), option::of(close()), numbers(), numbers());
    (first, alarm, any::<bool>(), vec(bytes(), 0..3), any::<Option<(u32, u64)>>(), any::<Option<u64>>()).prop_map(
        |((send, attachment, close, seen, cursors), alarm, pace, tasks, defer, quiet_ms)| Outcome {
            send,
            attachment,
            close,
            seen,
            cursors,
            alarm,
            pace,
            tasks,
            defer,
            quiet_ms,
        },
    )
}

fn deliveries() -> impl Strategy<Value = Deliveries> {
    let part = prop_oneof![bytes().prop_map(Part::Bytes), Just(Part::CursorDecimal), Just(Part::CursorVarint)];
    let template = (any::<bool>(), vec(part, 0..3), any::<Option<u64>>(), any::<Option<u64>>())
        .prop_map(|(binary, parts, cursor_after, alarm_after_ms)| Template { binary, parts, cursor_after, alarm_after_ms });
    let outcome = prop_oneof![
        Just(GroupOutcome::Skip),
        vec(any::<u32>(), 0..3).prop_map(GroupOutcome::Send),
        any::<u64>().prop_map(GroupOutcome::Advance),
        option::of((frame(), close())).prop_map(GroupOutcome::Leave),
    ];
    (vec(template, 0..3), vec(outcome, 0..3)).prop_map(|(frames, outcomes)| Deliveries { frames, outcomes })
}

fn invocation() -> impl Strategy<Value = Invocation> {
    let group = (text(), any::<Option<u64>>()).prop_map(|(name, cursor)| Group { name, cursor });
    prop_oneof![
        (any::<u64>(), head()).prop_map(|(connection, head)| Invocation::Upgrade { connection, head }),
        (connection(), vec(input(), 0..4)).prop_map(|(connection, inputs)| Invocation::Receive { connection, inputs }),
        (connection(), bytes()).prop_map(|(connection, work)| Invocation::Task { connection, work }),
        (connection(), any::<u16>()).prop_map(|(connection, code)| Invocation::Closed { connection, code }),
        (publication(), vec(group, 0..3)).prop_map(|(publication, groups)| Invocation::Deliver { publication, groups }),
        (text(), text(), any::<u64>()).prop_map(|(topic, key, after)| Invocation::Refill { topic, key, after }),
    ]
}

fn calls() -> impl Strategy<Value = Calls> {
    let call = (any::<u128>(), text(), any::<u64>(), any::<[bool; 2]>(), invocation())
        .prop_map(|(id, mount, known, [retry, ended], invocation)| SocketCall { id, mount, known, retry, ended, invocation });
    (any::<u64>(), vec(call, 0..4)).prop_map(|(gateway, calls)| Calls { gateway, calls })
}

fn upgrade_result() -> impl Strategy<Value = UpgradeResult> {
    let body = prop_oneof![Just(ResponseBody::Empty), bytes().prop_map(ResponseBody::Bytes)];
    let response = (any::<u16>(), headers(), body).prop_map(|(status, headers, body)| Response { status, headers, body });
    let accept =
        (option::of(text()), headers(), outcome()).prop_map(|(subprotocol, headers, start)| Accept { subprotocol, headers, start });
    prop_oneof![accept.prop_map(|accept| UpgradeResult::Accept(Box::new(accept))), response.prop_map(UpgradeResult::Refuse)]
}

fn call_failure() -> impl Strategy<Value = CallFailure> {
    proptest::sample::select(&[CallFailure::Failed, CallFailure::TimedOut, CallFailure::NotDurable, CallFailure::NoMount][..])
}

fn answer() -> impl Strategy<Value = CallAnswer> {
    let reply = prop_oneof![
        upgrade_result().prop_map(Reply::Upgrade),
        outcome().prop_map(Reply::Outcome),
        bytes().prop_map(Reply::Task),
        Just(Reply::Done),
        deliveries().prop_map(Reply::Deliveries),
        vec(publication(), 0..3).prop_map(Reply::Publications),
        call_failure().prop_map(Reply::Failed),
        Just(Reply::Busy),
    ];
    let mode = proptest::sample::select(&[Mode::ForwardText, Mode::ForwardBinary, Mode::Deliver, Mode::DeliverByCursor][..]);
    let subscription = (text(), mode, text(), any::<Option<u64>>(), option::of(bytes()))
        .prop_map(|(topic, mode, group, cursor, presence)| Subscription { topic, mode, group, cursor, presence });
    let change = prop_oneof![
        (any::<u64>(), subscription, any::<u64>()).prop_map(|(connection, subscription, position)| Change::Subscribed {
            connection,
            subscription,
            position
        }),
        (any::<u64>(), text()).prop_map(|(connection, topic)| Change::Unsubscribed { connection, topic }),
    ];
    (any::<u128>(), reply, vec(change, 0..3), published(), any::<Option<u64>>())
        .prop_map(|(id, reply, changes, published, through)| CallAnswer { id, reply, changes, published, through })
}

fn deployment() -> impl Strategy<Value = Deployment> {
    let kind = proptest::sample::select(&[RouteKind::Http, RouteKind::Socket, RouteKind::Both][..]);
    let route = (text(), any::<bool>(), kind).prop_map(|(path, prefix, kind)| Route { path, prefix, kind });
    let answer = || {
        prop_oneof![
            any::<u16>().prop_map(UpgradeAnswer::Status),
            (vec(frame(), 0..2), close()).prop_map(|(frames, close)| UpgradeAnswer::Close(frames, close)),
        ]
    };
    let upgrades = (any::<Option<u32>>(), any::<u64>(), answer(), answer(), answer()).prop_map(
        |(max_connections, deadline_ms, full, failed, timed_out)| Upgrades { max_connections, deadline_ms, full, failed, timed_out },
    );
    let closes = (close(), close(), close(), close(), close()).prop_map(|(slow, idle, too_large, failed, shutdown)| Closes {
        slow,
        idle,
        too_large,
        failed,
        shutdown,
    });
    let watch = (vec(text(), 1..3), text(), any::<u64>()).prop_map(|(topics, key, interval_ms)| Watch { topics, key, interval_ms });
    let numbers = (any::<[u64; 4]>(), any::<[Option<u64>; 4]>(), any::<[u32; 2]>());
    let plan = (vec(route, 0..3), numbers, upgrades, closes, vec((text(), text()), 0..2), option::of(watch)).prop_map(
        |(routes, (numbers, options, [max_tasks, inputs_per_call]), upgrades, closes, auto_replies, watch)| SocketPlan {
            routes,
            max_frame_bytes: numbers[0],
            max_frame_bytes_before_auth: numbers[1],
            ping_ms: options[0],
            idle_ms: options[1],
            queue_bytes: numbers[2],
            max_tasks,
            inputs_per_call,
            call_deadline_ms: numbers[3],
            task_ms: options[2],
            drain_ms: options[3],
            upgrades,
            closes,
            auto_replies,
            watch,
        },
    );
    let mount = (text(), text(), text(), plan, any::<u64>()).prop_map(|(name, protocol, path, plan, position)| MountPlan {
        name,
        protocol,
        path,
        plan,
        position,
    });
    (text(), text(), vec(mount, 0..3)).prop_map(|(revision, sent_topic, mounts)| Deployment { revision, sent_topic, mounts })
}

fn poll() -> impl Strategy<Value = Poll> {
    let known = (text(), any::<u64>()).prop_map(|(mount, position)| Known { mount, position });
    let held = (text(), vec(any::<u64>(), 0..4)).prop_map(|(mount, connections)| Held { mount, connections });
    (any::<u64>(), text(), vec(known, 0..3), vec(held, 0..3), any::<u32>(), option::of(text()))
        .prop_map(|(gateway, revision, mounts, held, wait_ms, callback)| Poll { gateway, revision, mounts, held, wait_ms, callback })
}

fn polled() -> impl Strategy<Value = Polled> {
    let mount = (text(), published()).prop_map(|(mount, published)| MountPublications { mount, published });
    (text(), vec(mount, 0..3)).prop_map(|(revision, mounts)| Polled { revision, mounts })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(deployment in deployment(), calls in calls(), poll in poll(), polled in polled(), gateway: u64) {
        prop_assert_eq!(decode::<Hello>(&encode(&Hello { gateway }, LIMIT_BYTES).unwrap(), LIMIT_BYTES), Ok(Hello { gateway }));
        prop_assert_eq!(decode(&encode(&deployment, LIMIT_BYTES).unwrap(), LIMIT_BYTES), Ok(deployment));
        prop_assert_eq!(decode(&encode(&calls, LIMIT_BYTES).unwrap(), LIMIT_BYTES), Ok(calls));
        prop_assert_eq!(decode(&encode(&poll, LIMIT_BYTES).unwrap(), LIMIT_BYTES), Ok(poll));
        prop_assert_eq!(decode(&encode(&polled, LIMIT_BYTES).unwrap(), LIMIT_BYTES), Ok(polled));
    }

    #[test]
    fn answers_come_piece_by_piece(answers in vec(answer(), 0..4), cut in 1usize..50) {
        let mut body = Vec::new();
        answers.iter().for_each(|answer| append_piece(&mut body, answer, LIMIT_BYTES).unwrap());
        let (mut pieces, mut read) = (Pieces::default(), Vec::new());
        for chunk in body.chunks(cut) {
            pieces.push(chunk);
            while let Some(answer) = pieces.next::<CallAnswer>(LIMIT_BYTES).unwrap() {
                read.push(answer);
            }
        }
        prop_assert_eq!(pieces.end(), Ok(()));
        prop_assert_eq!(read, answers);
    }

    #[test]
    fn a_body_that_was_cut_off_is_not_read(calls in calls(), part in 0.0f64..1.0) {
        let whole = encode(&calls, LIMIT_BYTES).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let length = (whole.len() as f64 * part) as usize;
        prop_assert_eq!(decode::<Calls>(&whole[..length], LIMIT_BYTES), Err(DecodeError::Truncated));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read(mut bytes in vec(any::<u8>(), 0..300)) {
        let mut pieces = Pieces::default();
        pieces.push(&bytes);
        drop(pieces.next::<CallAnswer>(LIMIT_BYTES));
        if let Some(version) = bytes.first_mut() {
            *version = VERSION;
        }
        drop(decode::<Deployment>(&bytes, LIMIT_BYTES));
        drop(decode::<Calls>(&bytes, LIMIT_BYTES));
        drop(decode::<CallAnswer>(&bytes, LIMIT_BYTES));
        drop(decode::<Poll>(&bytes, LIMIT_BYTES));
        drop(decode::<Polled>(&bytes, LIMIT_BYTES));
    }

    #[test]
    fn a_damaged_body_does_no_harm(answer in answer(), place: prop::sample::Index, value: u8) {
        let mut bytes = encode(&answer, LIMIT_BYTES).unwrap();
        let place = place.index(bytes.len());
        bytes[place] = value;
        // It may still be an answer; what it must not do is fall.
        drop(decode::<CallAnswer>(&bytes, LIMIT_BYTES));
    }
}

#[test]
fn limits_and_versions_are_kept() {
    let hello = Hello { gateway: u64::MAX };
    let body = encode(&hello, LIMIT_BYTES).unwrap();
    assert_eq!(encode(&hello, 5), Err(EncodeError::TooLarge { bytes: body.len(), limit_bytes: 5 }));
    assert_eq!(decode::<Hello>(&body, 5), Err(DecodeError::TooLarge { bytes: body.len(), limit_bytes: 5 }));
    assert_eq!(decode::<Hello>(&[], 5), Err(DecodeError::Truncated));
    assert_eq!(decode::<Hello>(&[VERSION + 1, 0], 5), Err(DecodeError::Version(VERSION + 1)));
    assert_eq!(decode::<Hello>(&[VERSION, 0, 0], 5), Err(DecodeError::Excess(1)));
    assert!(matches!(decode::<Known>(&[VERSION, 1, 0xff, 0], 5), Err(DecodeError::Value(_))), "not UTF-8");
    let mut body = vec![9];
    assert!(append_piece(&mut body, &hello, 5).is_err());
    assert_eq!(body, [9], "nothing of it was written");
}

#[test]
fn a_piece_that_says_it_is_huge_is_refused_at_once() {
    let mut pieces = Pieces::default();
    pieces.push(&u32::MAX.to_le_bytes());
    assert!(matches!(pieces.next::<Hello>(LIMIT_BYTES), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn a_length_that_promises_much_takes_no_memory() {
    // A list of 2^60 mounts, says the body, and ends.
    let body = [VERSION, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(decode::<Polled>(&body, LIMIT_BYTES), Err(DecodeError::Truncated));
}

#[test]
fn what_may_be_a_secret_is_not_in_debug() {
    let head = RequestHead {
        method: "GET".into(),
        path: "/a".into(),
        query: Some("token=geheim".into()),
        headers: vec![Header { name: "authorization".into(), value: Bytes(b"Bearer geheim".to_vec()) }],
        remote_address: "::1".into(),
        secure: false,
    };
    let said = format!("{head:?} {:?} {:?}", head.headers, Bytes(b"geheim".to_vec()));
    assert!(!said.contains("geheim") && !said.contains("103, 101"), "{said}");
}
