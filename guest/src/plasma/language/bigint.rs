//! The order of `bigint` values, which SQLite holds as text: keys that sort as the numbers do.
//!
//! A key is `1`, the length and the digits; for negative numbers `0`, what the length lacks of the largest, and the
//! digits with each one replaced by a letter, `j` for 0 down to `a` for 9, so that more is less.

/// The largest length that a key can show.
const LENGTH_MAX: usize = 99_999_999;
const LETTERS: &[u8; 10] = b"jihgfedcba";

/// The key of a value in normal form.
pub(super) fn sort_key(digits: &str) -> String {
    if !digits.starts_with('-') {
        return format!("1{:08}{digits}", digits.len());
    }
    let letters: String = digits.bytes().map(|byte| if byte == b'-' { '-' } else { LETTERS[usize::from(byte - b'0')].into() }).collect();
    format!("0{:08}{letters}", LENGTH_MAX - digits.len())
}

/// The key of an expression, as SQL of SQLite.
pub(super) fn sort_key_sql(expression: &str) -> String {
    let letters = (0..10).fold(expression.to_owned(), |sql, digit| format!("replace({sql}, '{digit}', '{}')", letter(digit)));
    format!(
        "(CASE WHEN {expression} LIKE '-%' THEN '0' || printf('%08d', {LENGTH_MAX} - length({expression})) || {letters} \
         ELSE '1' || printf('%08d', length({expression})) || {expression} END)"
    )
}

/// The value of a key, as SQL of SQLite.
pub(super) fn value_of_key_sql(key: &str) -> String {
    let digits = (0..10).fold(format!("substr({key}, 10)"), |sql, digit| format!("replace({sql}, '{}', '{digit}')", letter(digit)));
    format!("(CASE WHEN {key} LIKE '1%' THEN substr({key}, 10) ELSE {digits} END)")
}

fn letter(digit: usize) -> char {
    LETTERS[digit].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_the_numbers_do() {
        let numbers = ["-1000", "-999", "-12", "-11", "-2", "-1", "0", "1", "2", "9", "10", "99", "100", "123456789012345678901"];
        let keys: Vec<String> = numbers.iter().map(|number| sort_key(number)).collect();
        assert!(keys.is_sorted_by(|left, right| left < right), "{keys:?}");
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for (number, key) in numbers.iter().zip(keys) {
            let sql = format!("SELECT {}, {}", sort_key_sql("?1"), value_of_key_sql("?2"));
            let found = connection.query_row(&sql, [number, &key.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
            assert_eq!(found, Ok((key, number.to_string())));
        }
    }
}
