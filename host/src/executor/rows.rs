//! Rows of a result as they cross into the component: all cells in one piece of memory.

use super::Value;

/// How the cells of a result are written one after the other; see `row-set` in `wit/deps/host/executor.wit`.
mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const INTEGER: u8 = 1;
    pub(super) const REAL: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const BLOB: u8 = 4;
}

/// A cell that lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// SQL null.
    Null,
    /// A whole number.
    Integer(i64),
    /// A double.
    Real(f64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

impl<'a> From<&'a Value> for Cell<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Cell::Null,
            Value::Integer(number) => Cell::Integer(*number),
            Value::Real(number) => Cell::Real(*number),
            Value::Text(text) => Cell::Text(text),
            Value::Blob(bytes) => Cell::Blob(bytes),
        }
    }
}

impl From<Cell<'_>> for Value {
    fn from(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Null => Value::Null,
            Cell::Integer(number) => Value::Integer(number),
            Cell::Real(number) => Value::Real(number),
            Cell::Text(text) => Value::Text(text.to_owned()),
            Cell::Blob(bytes) => Value::Blob(bytes.to_owned()),
        }
    }
}

/// The rows of a result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    columns: usize,
    count: usize,
    cells: Vec<u8>,
    content_bytes: usize,
}

impl Rows {
    /// Adds a row; all rows have as many cells.
    pub fn push(&mut self, row: &[Value]) {
        for value in row {
            self.push_cell(value.into());
        }
        self.end_row(row.len());
    }

    /// Adds a cell to the row under way. Texts and blobs are below 4 GiB.
    pub(crate) fn push_cell(&mut self, cell: Cell<'_>) {
        match cell {
            Cell::Null => self.cells.push(tag::NULL),
            Cell::Integer(number) => self.push_eight(tag::INTEGER, number.to_le_bytes()),
            Cell::Real(number) => self.push_eight(tag::REAL, number.to_le_bytes()),
            Cell::Text(text) => self.push_content(tag::TEXT, text.as_bytes()),
            Cell::Blob(bytes) => self.push_content(tag::BLOB, bytes),
        }
    }

    /// So many cells make a row.
    pub(crate) fn end_row(&mut self, columns: usize) {
        debug_assert!(self.count == 0 || self.columns == columns, "rows of a result are equally long");
        self.columns = columns;
        self.count += 1;
    }

    fn push_eight(&mut self, tag: u8, bytes: [u8; 8]) {
        self.cells.push(tag);
        self.cells.extend_from_slice(&bytes);
    }

    fn push_content(&mut self, tag: u8, content: &[u8]) {
        // No executor lets results grow that far.
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.cells.push(tag);
        self.cells.extend_from_slice(&length.to_le_bytes());
        self.cells.extend_from_slice(&content[..length as usize]);
        self.content_bytes += length as usize;
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Cells of a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of texts and blobs.
    pub(crate) fn content_bytes(&self) -> usize {
        self.content_bytes
    }

    /// The cells as the component reads them.
    pub(crate) fn into_cells(self) -> Vec<u8> {
        self.cells
    }

    /// The rows, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Vec<Value>> + '_ {
        let mut rest = self.cells.as_slice();
        (0..self.count).map(move |_| (0..self.columns).map(|_| take(&mut rest).map_or(Value::Null, Value::from)).collect())
    }

    /// The same as a list.
    pub fn to_vec(&self) -> Vec<Vec<Value>> {
        self.iter().collect()
    }
}

/// The next cell; none where nothing follows.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Cell<'a>> {
    let tag = *rest.split_off_first()?;
    Some(match tag {
        tag::INTEGER => Cell::Integer(i64::from_le_bytes(*rest.split_off(..8)?.as_array()?)),
        tag::REAL => Cell::Real(f64::from_le_bytes(*rest.split_off(..8)?.as_array()?)),
        tag::TEXT | tag::BLOB => {
            let length = u32::from_le_bytes(*rest.split_off(..4)?.as_array()?);
            let content = rest.split_off(..length as usize)?;
            if tag == tag::BLOB { Cell::Blob(content) } else { Cell::Text(std::str::from_utf8(content).ok()?) }
        }
        _ => Cell::Null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-1e300_f64..1e300).prop_map(Value::Real),
            ".{0,20}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Blob),
        ]
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were_pushed(given in (1_usize..5).prop_flat_map(|columns| {
            proptest::collection::vec(proptest::collection::vec(value(), columns), 0..8)
        })) {
            let mut rows = Rows::default();
            given.iter().for_each(|row| rows.push(row));
            prop_assert_eq!(rows.len(), given.len());
            prop_assert_eq!(rows.to_vec(), given);
        }
    }
}
