//! Rows of a result as they cross into the logic, within the limits of the contract.

use super::{Answer, Error, RowSet, Value};

/// Counted for each cell of a result, on top of its text or bytes.
const CELL_BYTES: u64 = 32;

/// How much a result may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows, where the caller names no limit of its own.
    pub rows_max: u32,
    /// Bytes of all rows, some for each cell included.
    pub bytes_max: u64,
}

/// Writes a result down in one piece (`executor.row-set`).
pub fn row_set(answer: &Answer, row_limit: Option<u32>, limits: Limits) -> Result<RowSet, Error> {
    let count_max = row_limit.unwrap_or(limits.rows_max) as usize;
    let truncated = answer.rows.len() > count_max;
    if truncated && row_limit.is_none() {
        return Err(Error::Limit(format!("more than {count_max} rows")));
    }
    let rows = &answer.rows[..answer.rows.len().min(count_max)];
    let (mut cells, mut bytes) = (Vec::new(), 0_u64);
    for value in rows.iter().flatten() {
        let content = match value {
            Value::Null | Value::Integer(_) | Value::Real(_) => 0,
            Value::Text(text) => text.len(),
            Value::Blob(blob) => blob.len(),
        };
        bytes = bytes.saturating_add(CELL_BYTES + content as u64);
        if bytes > limits.bytes_max {
            return Err(Error::Limit(format!("more than {} bytes in a result", limits.bytes_max)));
        }
        push(&mut cells, value)?;
    }
    let columns = rows.first().map_or(0, Vec::len);
    Ok(RowSet { columns: u32::try_from(columns).unwrap_or(u32::MAX), cells, changed: answer.changed, truncated })
}

fn push(cells: &mut Vec<u8>, value: &Value) -> Result<(), Error> {
    match value {
        Value::Null => cells.push(0),
        Value::Integer(number) => {
            cells.push(1);
            cells.extend_from_slice(&number.to_le_bytes());
        }
        Value::Real(number) => {
            cells.push(2);
            cells.extend_from_slice(&number.to_le_bytes());
        }
        Value::Text(text) => push_content(cells, 3, text.as_bytes())?,
        Value::Blob(blob) => push_content(cells, 4, blob)?,
    }
    Ok(())
}

fn push_content(cells: &mut Vec<u8>, tag: u8, content: &[u8]) -> Result<(), Error> {
    let length = u32::try_from(content.len()).map_err(|_| Error::Limit("size of a value".into()))?;
    cells.push(tag);
    cells.extend_from_slice(&length.to_le_bytes());
    cells.extend_from_slice(content);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { rows_max: 3, bytes_max: 200 };

    #[test]
    fn cells_are_written_as_the_contract_says() {
        let row = vec![Value::Null, Value::Integer(-2), Value::Real(1.5), Value::Text("é".into()), Value::Blob(vec![7])];
        let set = row_set(&Answer { rows: vec![row], changed: 4 }, None, LIMITS).unwrap();
        let mut expected = vec![0, 1];
        expected.extend((-2_i64).to_le_bytes());
        expected.push(2);
        expected.extend(1.5_f64.to_le_bytes());
        expected.extend([3, 2, 0, 0, 0, 0xc3, 0xa9, 4, 1, 0, 0, 0, 7]);
        assert_eq!((set.columns, set.cells, set.changed, set.truncated), (5, expected, 4, false));
    }

    #[test]
    fn too_much_is_cut_off_where_the_caller_says_so_and_else_an_error() {
        let answer = Answer { rows: vec![vec![Value::Null]; 4], changed: 0 };
        assert!(matches!(row_set(&answer, None, LIMITS), Err(Error::Limit(what)) if what == "more than 3 rows"));
        let cut = row_set(&answer, Some(2), LIMITS).unwrap();
        assert_eq!((cut.cells.len(), cut.truncated), (2, true));
        assert!(!row_set(&answer, Some(4), LIMITS).unwrap().truncated);
        let large = Answer { rows: vec![vec![Value::Text("x".repeat(200))]], changed: 0 };
        assert!(matches!(row_set(&large, None, LIMITS), Err(Error::Limit(what)) if what.contains("200 bytes")));
    }
}
