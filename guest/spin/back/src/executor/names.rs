//! What stands before the tables of a database of the logic, and which lock its writers take.
//!
//! All of them share one database. A family of names, what stands before the first `/`, shares its tables, which carry a key of
//! their own then. In SQLite a family is a prefix; in PostgreSQL it is a schema, named as our own host names it.

use sha2::{Digest as _, Sha256};

/// Longer identifiers are cut by PostgreSQL, bytes.
const IDENTIFIER_BYTES_MAX: usize = 63;
/// Hexadecimal digits that stand for what was cut.
const DIGEST_DIGITS: usize = 16;

/// What the tables of a database begin with in SQLite. No table of the adapter begins so.
pub fn table_prefix(mount: &str, name: &str) -> String {
    format!("{}_", shortened(format!("m_{}", whole(mount, name)), IDENTIFIER_BYTES_MAX - 1))
}

/// The schema of a database in PostgreSQL.
pub fn schema(mount: &str, name: &str) -> String {
    shortened(format!("syncline_{}", whole(mount, name)), IDENTIFIER_BYTES_MAX)
}

/// The key of the advisory lock that the writer of a database holds.
pub fn lock_key(schema: &str, name: &str) -> i64 {
    let hash = Sha256::new().chain_update(schema).chain_update([0]).chain_update(name).finalize();
    hash.iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
}

/// Mount and family, of lower-case letters, digits and `_` alone.
fn whole(mount: &str, name: &str) -> String {
    let family = name.split('/').next().unwrap_or_default();
    format!("{}_{}_{}", encode(mount), encode(family), family.len())
}

fn shortened(whole: String, bytes_max: usize) -> String {
    if whole.len() <= bytes_max {
        return whole;
    }
    let digest: String = Sha256::digest(&whole).iter().take(DIGEST_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
    format!("{}_{digest}", &whole[..bytes_max - DIGEST_DIGITS - 1])
}

/// Letters and digits as they are, all else as `_` and hexadecimal digits of its bytes and another `_`.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => encoded.push(byte.into()),
            other => encoded.push_str(&format!("_{other:02x}_")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_can_be_read() {
        assert_eq!(table_prefix("todos", "main"), "m_todos_main_4_");
        assert_eq!(schema("todos", "main"), "syncline_todos_main_4");
        assert_eq!(schema("notes", "graph/1"), schema("notes", "graph/2"));
        assert_ne!(lock_key("s", "graph/1"), lock_key("s", "graph/2"));
    }

    proptest! {
        #[test]
        fn names_are_identifiers_and_never_meet(names in prop::collection::vec(("[a-zA-Z_0-9./é-]{0,40}", "[a-zA-Z_0-9.é-]{0,40}"), 1..20)) {
            let mut seen = HashMap::new();
            for (mount, database) in names {
                for name in [table_prefix(&mount, &database), schema(&mount, &database)] {
                    prop_assert!(name.len() <= IDENTIFIER_BYTES_MAX);
                    prop_assert!(name.starts_with(|first: char| first.is_ascii_lowercase()));
                    prop_assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')));
                    prop_assert!(!name.starts_with("syncline_spin_") || mount.starts_with("spin"));
                    let family = (mount.clone(), database.clone());
                    prop_assert_eq!(seen.entry(name).or_insert_with(|| family.clone()), &family);
                }
            }
        }
    }
}
