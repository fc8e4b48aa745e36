//! Results of statements as they cross from the host: all cells in one piece (`row-set` in `wit/deps/host/executor.wit`).

use crate::contract::syncline::host::executor;
use crate::imports::{RowSet, SqlError, Value};

/// A result as the logic reads it.
pub fn decoded(set: executor::RowSet) -> Result<RowSet, SqlError> {
    let broken = || SqlError::Unavailable("the host gave rows that cannot be read".into());
    let columns = usize::try_from(set.columns).map_err(|_| broken())?;
    let mut rows = Vec::new();
    let mut rest = set.cells.as_slice();
    while !rest.is_empty() {
        let mut row = Vec::with_capacity(columns);
        // A row without cells would not bring the end any nearer.
        for _ in 0..columns.max(1) {
            row.push(take(&mut rest).ok_or_else(broken)?);
        }
        rows.push(row);
    }
    Ok(RowSet { rows, changed: set.changed, truncated: set.truncated })
}

/// The next cell.
fn take(rest: &mut &[u8]) -> Option<Value> {
    Some(match rest.split_off_first()? {
        0 => Value::Null,
        1 => Value::Integer(i64::from_le_bytes(eight(rest)?)),
        2 => Value::Real(f64::from_le_bytes(eight(rest)?)),
        3 => Value::Text(String::from_utf8(content(rest)?.to_vec()).ok()?),
        4 => Value::Blob(content(rest)?.to_vec()),
        _ => return None,
    })
}

fn eight(rest: &mut &[u8]) -> Option<[u8; 8]> {
    rest.split_off(..8)?.try_into().ok()
}

fn content<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(rest.split_off(..4)?.try_into().ok()?);
    rest.split_off(..usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(columns: u32, cells: &[u8]) -> Result<RowSet, SqlError> {
        decoded(executor::RowSet { columns, cells: cells.to_vec(), changed: 0, truncated: false })
    }

    #[test]
    fn cells_are_read_by_their_case() {
        let cells =
            [&[0, 1][..], &7_i64.to_le_bytes(), &[2], &1.5_f64.to_le_bytes(), &[3, 1, 0, 0, 0, b'x', 4, 2, 0, 0, 0, 8, 9, 0]].concat();
        let rows = set(3, &cells).unwrap().rows;
        let first = vec![Value::Null, Value::Integer(7), Value::Real(1.5)];
        assert_eq!(rows, [first, vec![Value::Text("x".into()), Value::Blob(vec![8, 9]), Value::Null]]);
        assert!(set(0, &[]).unwrap().rows.is_empty());
    }

    #[test]
    fn what_ends_too_early_or_is_no_cell_is_an_error() {
        for cells in [&[1, 2, 3][..], &[3, 9, 0, 0, 0, b'x'], &[3, 1, 0, 0, 0, 0xff], &[9], &[0]] {
            assert!(set(2, cells).is_err(), "{cells:?}");
        }
    }
}
