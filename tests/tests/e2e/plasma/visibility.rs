//! What a user may see, and what changes when that changes (docs/protocols/plasma.md, section 7.5).

use serde_json::json;
use syncline_tests::plasma::{Replica, alice, bob, mutation};

use super::{create_todo, everything, increment, pull, pull_all, serve};

#[tokio::test]
async fn rows_of_others_are_not_shown() {
    let server = serve().await;
    alice(server.address).push("g1", &[create_todo("c1", 1, "secret", false), create_todo("c1", 2, "open", true)]).await;
    let theirs = everything(bob(server.address)).await;
    assert_eq!(theirs.rows.keys().collect::<Vec<_>>(), ["todos/open"]);
}

#[tokio::test]
async fn a_row_that_is_no_longer_shared_goes_away_and_comes_back() {
    let server = serve().await;
    let (owner, other) = (alice(server.address), bob(server.address));
    owner.push("g1", &[create_todo("c1", 1, "t", true)]).await;
    let mut replica = Replica::new();
    pull_all(other, "g2", &mut replica).await;
    owner.push("g1", &[mutation("c1", 2, "setShared", json!({"id": "t", "shared": false}))]).await;
    assert_eq!(pull(other, "g2", &mut replica).await.deleted, ["todos/t"]);
    owner.push("g1", &[mutation("c1", 3, "setShared", json!({"id": "t", "shared": true}))]).await;
    assert_eq!(pull(other, "g2", &mut replica).await.put, ["todos/t"]);
}

#[tokio::test]
async fn joining_and_leaving_a_team_moves_only_its_boards() {
    let server = serve().await;
    let (owner, member) = (alice(server.address), bob(server.address));
    let board = |id: u64, board: &str, team: &str| mutation("c1", id, "createBoard", json!({"id": board, "team": team, "name": board}));
    owner.push("g1", &[board(1, "b1", "x"), board(2, "b2", "y"), increment("c1", 3, "k", 1)]).await;
    let mut replica = Replica::new();
    pull_all(member, "g2", &mut replica).await;
    assert_eq!(replica.rows.keys().collect::<Vec<_>>(), ["counters/k"]);

    owner.push("g1", &[mutation("c1", 4, "join", json!({"team": "x", "userId": "bob"}))]).await;
    let mut joined = pull(member, "g2", &mut replica).await;
    joined.put.sort_unstable();
    assert_eq!((joined.put, joined.deleted, joined.cleared), (vec!["boards/b1".into(), "members/x/bob".into()], vec![], false));

    // Another's membership is nothing to bob's boards.
    owner.push("g1", &[mutation("c1", 5, "join", json!({"team": "x", "userId": "carol"}))]).await;
    assert_eq!(pull(member, "g2", &mut replica).await.put, ["members/x/carol"]);

    owner.push("g1", &[mutation("c1", 6, "leave", json!({"team": "x", "userId": "bob"}))]).await;
    let mut left = pull(member, "g2", &mut replica).await;
    left.deleted.sort_unstable();
    assert_eq!((left.put, left.deleted, left.cleared), (vec![], vec!["boards/b1".to_owned(), "members/x/bob".into()], false));
    assert_eq!(replica.rows, everything(member).await.rows);
}
