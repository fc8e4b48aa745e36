//! Random histories of one database against a plain set.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Insert(i64),
    Savepoint,
    Release(prop::sample::Index),
    RollbackTo(prop::sample::Index),
    Commit,
    Rollback,
    Drop,
    /// Commit, and the group's COMMIT fails.
    Lose,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0i64..20).prop_map(Act::Insert),
        3 => Just(Act::Savepoint),
        1 => any::<prop::sample::Index>().prop_map(Act::Release),
        2 => any::<prop::sample::Index>().prop_map(Act::RollbackTo),
        2 => Just(Act::Commit),
        1 => Just(Act::Rollback),
        1 => Just(Act::Drop),
        1 => Just(Act::Lose),
    ]
}

/// A transaction, and what should be in the table: now, and at each open savepoint.
struct Story {
    transaction: Box<dyn Transaction>,
    items: BTreeSet<i64>,
    savepoints: Vec<(u32, BTreeSet<i64>)>,
}

impl Story {
    async fn begin(fixture: &Fixture, items: &BTreeSet<i64>) -> Self {
        Self { transaction: fixture.begin().await, items: items.clone(), savepoints: Vec::new() }
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Insert(id) => {
                let inserted = self.transaction.execute(&insert(*id), None).await;
                assert_eq!(inserted.is_ok(), self.items.insert(*id));
            }
            Act::Savepoint => {
                let number = self.transaction.savepoint().await.unwrap();
                self.savepoints.push((number, self.items.clone()));
            }
            Act::Release(index) if !self.savepoints.is_empty() => {
                let index = index.index(self.savepoints.len());
                self.transaction.release(self.savepoints[index].0).await.unwrap();
                self.savepoints.truncate(index);
            }
            Act::RollbackTo(index) if !self.savepoints.is_empty() => {
                let index = index.index(self.savepoints.len());
                self.transaction.rollback_to(self.savepoints[index].0).await.unwrap();
                self.items = self.savepoints[index].1.clone();
                self.savepoints.truncate(index + 1);
            }
            _ => {}
        }
        let seen = self.transaction.execute(&sql("SELECT id FROM item ORDER BY id"), None).await.unwrap();
        assert_eq!(ids(seen), self.items.iter().copied().collect::<Vec<_>>());
    }
}

async fn play(acts: Vec<Act>) {
    let fixture = Fixture::new().await;
    let mut durable = BTreeSet::new();
    let mut story = Story::begin(&fixture, &durable).await;
    for act in acts {
        match act {
            Act::Commit => {
                assert!(fixture.commit(story.transaction).await);
                durable = story.items;
            }
            Act::Rollback => assert!(fixture.log.of(rollback(story.transaction).await).await),
            Act::Drop => drop(story.transaction),
            Act::Lose => {
                fixture.hook.fail_next.store(true, Ordering::SeqCst);
                assert!(!fixture.commit(story.transaction).await);
            }
            act => {
                story.act(&act).await;
                continue;
            }
        }
        assert_eq!(fixture.items().await, durable.iter().copied().collect::<Vec<_>>());
        story = Story::begin(&fixture, &durable).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_history_ends_as_it_should(acts in prop::collection::vec(act(), 0..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(acts));
    }
}
