//! Static secrets: comparison that takes the same time wherever two secrets differ.

use subtle::ConstantTimeEq;

/// Whether two secrets are equal. Only their lengths can be learnt from the time it takes.
pub fn equal(presented: &str, expected: &str) -> bool {
    presented.as_bytes().ct_eq(expected.as_bytes()).into()
}

/// Whether a presented secret is one of a list. The whole list is walked, so that its order stays unknown.
pub fn any_equal<'a>(presented: &str, expected: impl IntoIterator<Item = &'a str>) -> bool {
    expected.into_iter().fold(false, |found, secret| equal(presented, secret) | found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_secrets_are_found_and_others_are_not() {
        assert!(equal("", ""));
        assert!(equal("writer", "writer"));
        assert!(!equal("writer", "writer-2"));
        assert!(any_equal("b", ["a", "b", "c"]));
        assert!(!any_equal("d", ["a", "b", "c"]));
    }
}
