//! Reading what may have no rows. Spin 4.0 never answers a query to PostgreSQL that gives none (spinframework/spin#3671), and nobody
//! can take it back: so each is asked for in a form that always has one.

use super::scan::{Token, WRITING, tokens};
use super::{Dialect, Shape};
use crate::ports::Cell;

/// The name of what a statement changed, beside the names that it has itself.
const CHANGED: &str = "syncline_changed";

/// A statement in the form that gives one row at least: what stands in the first column tells whether there is one. Rows stay in
/// their order. None: it always has a row, or it cannot be put so.
pub(super) fn with_a_row(sql: &str, shape: &Shape) -> Option<String> {
    if shape.verb == "explain" {
        return None;
    }
    if !shape.writes {
        return Some(beside_one(&format!("({sql}\n) AS view")));
    }
    if shape.verb != "with" {
        return Some(format!("WITH {CHANGED} AS ({sql}\n) {}", beside_one(&format!("{CHANGED} AS view"))));
    }
    // What changes rows may stand in the outermost WITH only.
    let (start, changes) = main(sql)?;
    let (before, main) = sql.split_at(start);
    Some(match changes {
        true => format!("{}, {CHANGED} AS ({main}\n) {}", before.trim_end(), beside_one(&format!("{CHANGED} AS view"))),
        false => format!("{before}{}", beside_one(&format!("({main}\n) AS view"))),
    })
}

fn beside_one(rows: &str) -> String {
    format!("SELECT found.* FROM (SELECT) AS one LEFT JOIN (SELECT true, view.* FROM {rows}) AS found ON true")
}

/// Where the statement behind the expressions of a WITH begins, and whether it changes rows.
fn main(sql: &str) -> Option<(usize, bool)> {
    let mut depth = 0_i32;
    for placed in tokens(sql, Dialect::Postgres) {
        match placed.token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth -= 1,
            Token::Word(word) if depth == 0 => {
                let word = word.to_ascii_lowercase();
                let changes = WRITING.contains(&word.as_str());
                if changes || matches!(word.as_str(), "select" | "values") {
                    return Some((placed.start, changes));
                }
            }
            _ => {}
        }
    }
    None
}

/// The rows that there are, without the first column.
pub(super) fn present(rows: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    let is_one = |row: &Vec<Cell>| row.first() != Some(&Some(super::Value::Null));
    rows.into_iter().filter(is_one).map(|row| row.into_iter().skip(1).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Value, shape};
    use super::*;

    fn put(sql: &str) -> Option<String> {
        with_a_row(sql, &shape(sql, Dialect::Postgres).unwrap())
    }

    #[test]
    fn what_changes_rows_stays_in_the_outermost_with() {
        let found = |rows: &str| beside_one(rows);
        assert_eq!(put("SELECT 1 -- one"), Some(found("(SELECT 1 -- one\n) AS view")));
        let changed = found("syncline_changed AS view");
        assert_eq!(put("DELETE FROM t RETURNING a"), Some(format!("WITH syncline_changed AS (DELETE FROM t RETURNING a\n) {changed}")));
        assert_eq!(
            put("WITH x AS (SELECT 1) DELETE FROM t RETURNING a"),
            Some(format!("WITH x AS (SELECT 1), syncline_changed AS (DELETE FROM t RETURNING a\n) {changed}"))
        );
        assert_eq!(
            put("WITH x AS (DELETE FROM t RETURNING a) SELECT a FROM x"),
            Some(format!("WITH x AS (DELETE FROM t RETURNING a) {}", found("(SELECT a FROM x\n) AS view")))
        );
        assert_eq!(put("EXPLAIN SELECT 1"), None);
    }

    #[test]
    fn the_row_that_stands_for_none_is_none() {
        let yes = || Some(Value::Integer(1));
        let rows = vec![vec![yes(), None, Some(Value::Null)], vec![yes(), yes(), yes()]];
        assert_eq!(present(rows), [vec![None, Some(Value::Null)], vec![yes(), yes()]]);
        assert!(present(vec![vec![Some(Value::Null), Some(Value::Null)]]).is_empty());
    }
}
