//! Groups, their loss, and callers that give up.

use super::*;

#[tokio::test]
async fn those_who_wait_for_an_fsync_share_the_next() {
    let fixture = Fixture::new().await;
    let commits_before = fixture.hook.commit_count();
    fixture.hook.hold();
    assert_eq!(fixture.insert(1).await, 2);
    // The commit of group 2 runs; these come too late for it.
    let (mut first, mut second) = (fixture.database.begin(), fixture.database.begin());
    assert!(poll_once(&mut first).await.is_none());
    assert!(poll_once(&mut second).await.is_none());
    fixture.hook.release();
    let mut first = within(first).await.unwrap();
    first.execute(&insert(2), None).await.unwrap();
    assert_eq!(commit(first).await, 3);
    let mut second = within(second).await.unwrap();
    let seen = second.execute(&sql("SELECT id FROM item ORDER BY id"), None).await.unwrap();
    assert_eq!(ids(seen), [1, 2], "a transaction sees those before it in its group");
    assert_eq!(commit(second).await, 3);
    assert!(fixture.log.of(3).await);
    assert_eq!(fixture.hook.commit_count() - commits_before, 2);
    assert_eq!(fixture.log.all(), [(1, true), (2, true), (3, true)]);
}

#[tokio::test]
async fn a_full_group_is_flushed_although_others_wait() {
    let fixture = Fixture::with(|settings| settings.group_transactions_max = 2).await;
    fixture.hook.hold();
    fixture.insert(0).await;
    let mut waiting: Vec<_> = (0..3).map(|_| fixture.database.begin()).collect();
    for begin in &mut waiting {
        assert!(poll_once(begin).await.is_none());
    }
    fixture.hook.release();
    let mut groups = Vec::new();
    for begin in waiting {
        groups.push(commit(within(begin).await.unwrap()).await);
    }
    assert_eq!(groups, [3, 3, 4]);
}

#[tokio::test]
async fn a_reader_never_sees_what_is_not_settled() {
    let fixture = Fixture::new().await;
    fixture.hook.hold();
    let group = fixture.insert(1).await;
    assert_eq!(fixture.items().await, [0; 0]);
    let mut view = fixture.database.snapshot().await.unwrap();
    fixture.hook.release();
    assert!(fixture.log.of(group).await);
    assert_eq!(fixture.items().await, [1]);
    assert_eq!(ids(view.query(&sql("SELECT id FROM item"), None).await.unwrap()), [0; 0], "a view stays as it is");
}

#[tokio::test]
async fn a_lost_group_takes_all_of_its_transactions_and_nothing_else() {
    let fixture = Fixture::new().await;
    fixture.hook.hold();
    assert_eq!(fixture.insert(1).await, 2);
    let (mut first, mut second) = (fixture.database.begin(), fixture.database.begin());
    assert!(poll_once(&mut first).await.is_none());
    assert!(poll_once(&mut second).await.is_none());
    fixture.hook.release();
    let mut first = within(first).await.unwrap();
    assert!(fixture.log.of(2).await);
    fixture.hook.fail_next.store(true, Ordering::SeqCst);
    first.execute(&insert(2), None).await.unwrap();
    commit(first).await;
    let mut second = within(second).await.unwrap();
    second.execute(&insert(3), None).await.unwrap();
    assert_eq!(commit(second).await, 3);
    assert!(!fixture.log.of(3).await);
    let group = fixture.insert(4).await;
    assert!(fixture.log.of(group).await);
    assert_eq!(fixture.items().await, [1, 4]);
    assert_eq!(fixture.log.all(), [(1, true), (2, true), (3, false), (4, true)]);
}

#[tokio::test]
async fn when_sqlite_rolls_the_group_back_it_is_lost() {
    let fixture = Fixture::new().await;
    let mut first = fixture.begin().await;
    first.execute(&insert(1), None).await.unwrap();
    let mut second = fixture.database.begin();
    assert!(poll_once(&mut second).await.is_none());
    assert_eq!(commit(first).await, 2);
    let mut second = within(second).await.unwrap();
    let refused = second.execute(&sql("INSERT OR ROLLBACK INTO item (id) VALUES (1)"), None).await;
    assert!(matches!(refused, Err(ExecutorError::Constraint(..))), "{refused:?}");
    // Nothing may run outside of a transaction now.
    assert!(second.execute(&insert(2), None).await.is_err());
    assert!(second.savepoint().await.is_err());
    let mut group = 0;
    assert!(second.commit(&mut |number| group = number).await.is_err());
    assert_eq!(group, 2);
    assert!(!fixture.log.of(2).await);
    assert_eq!(fixture.insert(3).await, 3);
    assert!(fixture.log.of(3).await);
    assert_eq!(fixture.items().await, [3]);
}

#[tokio::test]
async fn what_is_rolled_back_leaves_nothing_and_needs_no_commit() {
    let fixture = Fixture::new().await;
    let commits_before = fixture.hook.commit_count();
    let mut transaction = fixture.begin().await;
    transaction.execute(&insert(1), None).await.unwrap();
    let group = rollback(transaction).await;
    assert_eq!(group, 2);
    assert!(fixture.log.of(group).await);
    assert_eq!(fixture.hook.commit_count(), commits_before);
    assert_eq!(fixture.items().await, [0; 0]);
}

#[tokio::test]
async fn savepoints_nest() {
    let fixture = Fixture::new().await;
    let mut transaction = fixture.begin().await;
    transaction.execute(&insert(1), None).await.unwrap();
    let outer = transaction.savepoint().await.unwrap();
    transaction.execute(&insert(2), None).await.unwrap();
    let inner = transaction.savepoint().await.unwrap();
    assert!(inner > outer);
    transaction.execute(&insert(3), None).await.unwrap();
    transaction.rollback_to(outer).await.unwrap();
    let not_open = transaction.release(inner).await;
    assert!(matches!(not_open, Err(ExecutorError::InvalidStatement(_))), "{not_open:?}");
    transaction.execute(&insert(4), None).await.unwrap();
    transaction.rollback_to(outer).await.unwrap();
    transaction.execute(&insert(5), None).await.unwrap();
    transaction.release(outer).await.unwrap();
    assert!(matches!(transaction.rollback_to(outer).await, Err(ExecutorError::InvalidStatement(_))));
    assert!(fixture.commit(transaction).await);
    assert_eq!(fixture.items().await, [1, 5]);
}

#[tokio::test]
async fn who_is_dropped_passes_the_writer_on() {
    let fixture = Fixture::new().await;
    let mut open = fixture.begin().await;
    open.execute(&insert(1), None).await.unwrap();
    let mut gives_up = fixture.database.begin();
    let mut is_granted = fixture.database.begin();
    let mut stays = fixture.database.begin();
    assert!(poll_once(&mut gives_up).await.is_none());
    assert!(poll_once(&mut is_granted).await.is_none());
    assert!(poll_once(&mut stays).await.is_none());
    drop(gives_up);
    drop(open);
    // The writer is its own by now, but it never looks.
    drop(is_granted);
    let mut stays = within(stays).await.unwrap();
    let seen = stays.execute(&sql("SELECT id FROM item"), None).await.unwrap();
    assert_eq!(ids(seen), [0; 0]);
    assert_eq!(commit(stays).await, 2);
    assert!(fixture.log.of(2).await);
}

#[tokio::test]
async fn waiting_for_the_writer_has_an_end() {
    let fixture = Fixture::with(|settings| settings.begin_wait_ms_max = 20).await;
    let open = fixture.begin().await;
    let refused = within(fixture.database.begin()).await.err();
    assert!(matches!(refused, Some(ExecutorError::Unavailable(_))), "{refused:?}");
    drop(open);
    fixture.insert(1).await;
}

#[tokio::test]
async fn an_overdue_transaction_fails_and_is_undone() {
    let fixture = Fixture::with(|settings| settings.transaction_ms_max = 500).await;
    let mut transaction = fixture.begin().await;
    transaction.execute(&insert(1), None).await.unwrap();
    // A read is stopped when the transaction's time is over, which costs nobody else anything.
    let endless = sql("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n");
    assert!(matches!(transaction.execute(&endless, None).await, Err(ExecutorError::Limit(_))));
    assert!(matches!(transaction.execute(&insert(2), None).await, Err(ExecutorError::Limit(_))));
    assert!(matches!(transaction.savepoint().await, Err(ExecutorError::Limit(_))));
    let mut group = 0;
    assert!(matches!(transaction.commit(&mut |number| group = number).await, Err(ExecutorError::Limit(_))));
    assert!(fixture.log.of(group).await);
    fixture.insert(3).await;
    assert!(fixture.log.of(group + 1).await);
    assert_eq!(fixture.items().await, [3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_at_once() {
    let fixture = Fixture::new().await;
    let fixture = Arc::new(fixture);
    let writers: Vec<_> = (1..=64)
        .map(|id| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move {
                let group = fixture.insert(id).await;
                assert!(fixture.log.of(group).await);
            })
        })
        .collect();
    for writer in writers {
        within(writer).await.unwrap();
    }
    assert_eq!(fixture.items().await, (1..=64).collect::<Vec<_>>());
    let numbers: Vec<_> = fixture.log.all().into_iter().map(|(group, _)| group).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}
