//! Which schema a database is, and which lock its writers take.
//!
//! A family of names, what stands before the first `/`, shares one schema: a database per document would be a schema
//! per document, and PostgreSQL's catalogue is not made for a million of them. Tables of such a family carry a key of
//! their own. Each *name* has a lock of its own, so writers of different names do not wait for each other.

use sha2::{Digest as _, Sha256};

use crate::executor::DatabaseName;

/// Longer identifiers are cut by PostgreSQL, bytes.
const IDENTIFIER_BYTES_MAX: usize = 63;
/// Hexadecimal digits that stand for what was cut.
const DIGEST_DIGITS: usize = 16;

/// The schema of a database: `PREFIX_MOUNT_FAMILY`, of lower-case letters, digits and `_` alone, so that it needs no
/// quotes. Different databases have different schemas, unless they are of one family.
pub(crate) fn schema(prefix: &str, name: &DatabaseName) -> String {
    let family = name.name.split('/').next().unwrap_or_default();
    let whole = format!("{}{}_{}", mount_prefix(prefix, &name.mount), encode(family), family.len());
    if whole.len() <= IDENTIFIER_BYTES_MAX {
        return whole;
    }
    let kept = IDENTIFIER_BYTES_MAX - DIGEST_DIGITS - 1;
    format!("{}_{}", &whole[..kept], digest(&whole))
}

/// What the schemas of a mount begin with.
pub(super) fn mount_prefix(prefix: &str, mount: &str) -> String {
    format!("{}_{}_", encode(prefix), encode(mount))
}

/// The key of the advisory lock that the writer of a database holds.
pub(crate) fn lock_key(schema: &str, name: &DatabaseName) -> i64 {
    let hash = Sha256::new().chain_update(schema).chain_update([0]).chain_update(&name.name).finalize();
    let mut key = [0; 8];
    key.copy_from_slice(&hash[..8]);
    i64::from_be_bytes(key)
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

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().take(DIGEST_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn name(mount: &str, name: &str) -> DatabaseName {
        DatabaseName { mount: mount.into(), name: name.into() }
    }

    #[test]
    fn a_schema_can_be_read() {
        assert_eq!(schema("syncline", &name("todos", "main")), "syncline_todos_main_4");
        assert_eq!(schema("syncline", &name("notes", "logseq/graph-1")), schema("syncline", &name("notes", "logseq/graph-2")));
        assert!(schema("syncline", &name("todos", "main")).starts_with(&mount_prefix("syncline", "todos")));
    }

    #[test]
    fn writers_of_a_family_do_not_share_a_lock() {
        let (first, second) = (name("notes", "logseq/1"), name("notes", "logseq/2"));
        let schema = schema("syncline", &first);
        assert_ne!(lock_key(&schema, &first), lock_key(&schema, &second));
        assert_eq!(lock_key(&schema, &first), lock_key(&schema, &first));
    }

    proptest! {
        #[test]
        fn schemas_are_identifiers_and_never_meet(names in prop::collection::vec(("[a-zA-Z_0-9./é-]{0,40}", "[a-zA-Z_0-9.é-]{0,40}"), 1..20)) {
            let mut seen = HashMap::new();
            for (mount, database) in names {
                let schema = schema("syncline", &name(&mount, &database));
                prop_assert!(schema.len() <= IDENTIFIER_BYTES_MAX);
                prop_assert!(schema.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')));
                let family = (mount, database.split('/').next().unwrap_or_default().to_owned());
                prop_assert_eq!(seen.entry(schema).or_insert_with(|| family.clone()), &family);
            }
        }
    }
}
