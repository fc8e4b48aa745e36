//! Savepoints against a model: a stack of what there was.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Insert,
    Publish,
    Schedule,
    Savepoint,
    Release(usize),
    RollbackTo(usize),
    Begin,
    CommitInner,
    DropInner,
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Insert),
        3 => Just(Step::Publish),
        2 => Just(Step::Schedule),
        3 => Just(Step::Savepoint),
        1 => (0_usize..4).prop_map(Step::Release),
        2 => (0_usize..4).prop_map(Step::RollbackTo),
        1 => Just(Step::Begin),
        1 => Just(Step::CommitInner),
        1 => Just(Step::DropInner),
        1 => Just(Step::Fail),
    ]
}

/// What the transaction holds.
#[derive(Clone, Default)]
struct State {
    rows: Vec<i64>,
    published: Vec<String>,
}

/// The transaction as it must be.
#[derive(Default)]
struct Model {
    state: State,
    /// Open savepoints, with the state when each was set, and whether it is a nested transaction.
    marks: Vec<(u32, State)>,
    jobs: usize,
}

impl Model {
    fn release(&mut self, savepoint: u32) -> bool {
        let position = self.marks.iter().position(|(known, _)| *known == savepoint);
        position.is_some_and(|position| {
            self.marks.truncate(position);
            true
        })
    }

    fn rollback_to(&mut self, savepoint: u32) -> bool {
        let position = self.marks.iter().position(|(known, _)| *known == savepoint);
        position.is_some_and(|position| {
            self.marks.truncate(position + 1);
            self.state = self.marks[position].1.clone();
            true
        })
    }
}

fn play(back: &Back, handle: Handle, steps: &[Step]) -> Model {
    let (mut model, mut made, mut inner, mut next) = (Model::default(), Vec::new(), Vec::new(), 0_i64);
    let mut savepoint_next = 1;
    for step in steps {
        match step {
            Step::Insert => {
                next += 1;
                back.run(handle, "INSERT INTO {}t (a) VALUES (?)", &[next.into()]).unwrap();
                model.state.rows.push(next);
            }
            Step::Publish => {
                next += 1;
                back.publish(publication("t", &next.to_string()));
                model.state.published.push(next.to_string());
            }
            Step::Schedule => {
                back.schedule(&format!("job {}", model.jobs), 1, b"");
                model.jobs += 1;
            }
            Step::Savepoint => {
                let savepoint = back.savepoint(handle).unwrap();
                assert_eq!(savepoint, savepoint_next);
                savepoint_next += 1;
                made.push(savepoint);
                model.marks.push((savepoint, model.state.clone()));
            }
            Step::Release(index) => {
                if let Some(savepoint) = made.get(*index) {
                    assert_eq!(back.release(handle, *savepoint).is_ok(), model.release(*savepoint));
                }
            }
            Step::RollbackTo(index) => {
                if let Some(savepoint) = made.get(*index) {
                    assert_eq!(back.rollback_to(handle, *savepoint).is_ok(), model.rollback_to(*savepoint));
                }
            }
            Step::Begin => {
                inner.push((back.begin_transaction("main").unwrap(), savepoint_next));
                model.marks.push((savepoint_next, model.state.clone()));
                savepoint_next += 1;
            }
            Step::CommitInner => {
                if let Some((nested, savepoint)) = inner.pop() {
                    assert_eq!(back.commit(nested).is_ok(), model.release(savepoint));
                }
            }
            Step::DropInner => {
                if let Some((nested, savepoint)) = inner.pop() {
                    back.drop_transaction(nested);
                    if model.rollback_to(savepoint) {
                        model.release(savepoint);
                    }
                }
            }
            Step::Fail => assert!(back.run(handle, "INSERT INTO {}t (a) VALUES (0)", &[]).is_err()),
        }
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_was_not_rolled_back(steps in proptest::collection::vec(step(), 0..40), commits in any::<bool>()) {
        let world = World::new();
        let back = world.instance();
        back.write("CREATE TABLE {}t (a INTEGER PRIMARY KEY CHECK (a > 0))", &[]);
        back.begin("m", false);
        let handle = back.begin_transaction("main").unwrap();
        let model = play(&back, handle, &steps);
        if commits {
            back.commit(handle).unwrap();
        } else {
            back.drop_transaction(handle);
        }
        let ended = back.end(false).unwrap();
        let expected = if commits { model.state.clone() } else { State::default() };
        prop_assert_eq!(ended.published.is_some(), !expected.published.is_empty());
        prop_assert_eq!(messages(&back, 0), expected.published);
        back.begin("m", false);
        prop_assert_eq!(back.numbers("SELECT a FROM {}t ORDER BY a"), expected.rows);
        back.end(false).unwrap();
        // Whatever becomes of the call.
        prop_assert_eq!(back.due_jobs(100).unwrap().len(), model.jobs);
    }
}
