//! Conditional requests and ranges (RFC 9110, sections 13 and 14), for answers with a strong validator.

use crate::http::{header_list, header_text};
use crate::imports::RequestHead;

/// What of a body is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: no range, or one that is not understood.
    Whole,
    /// The bytes from the first to the last.
    Part(u64, u64),
    /// Nothing that is there.
    Unsatisfiable,
}

/// Whether the client has it already. `tag` has no quotes.
pub fn is_unchanged(head: &RequestHead, tag: &str) -> bool {
    header_list(head, "if-none-match").any(|known| known == "*" || is_tag(known.strip_prefix("W/").unwrap_or(known), tag))
}

fn is_tag(known: &str, tag: &str) -> bool {
    known.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(tag)
}

/// What a GET asks for of so many bytes under a tag. Several ranges at once are not served: the answer is then the whole.
pub fn wanted(head: &RequestHead, tag: &str, size: u64) -> Wanted {
    if header_text(head, "if-range").is_some_and(|known| !is_tag(known, tag)) {
        return Wanted::Whole;
    }
    match header_text(head, "range") {
        Some(range) if head.headers.iter().filter(|header| header.name == "range").count() == 1 => of_range(range, size),
        _ => Wanted::Whole,
    }
}

/// What a single range (`bytes=FIRST-LAST`) means.
pub fn of_range(range: &str, size: u64) -> Wanted {
    let spec = range.split_once('=').filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes")).map(|(_, spec)| spec.trim());
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return Wanted::Whole };
    match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => part(first, u64::MAX, size),
        (Some(first), Some(last)) if first <= last => part(first, last, size),
        (None, Some(count)) if first.is_empty() && count > 0 => part(size.saturating_sub(count), u64::MAX, size),
        (None, Some(_)) if first.is_empty() => Wanted::Unsatisfiable,
        _ => Wanted::Whole,
    }
}

fn part(first: u64, last: u64, size: u64) -> Wanted {
    if first < size { Wanted::Part(first, last.min(size - 1)) } else { Wanted::Unsatisfiable }
}

/// Digits as a number; more of them than a number holds are the largest.
fn number(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::head;

    #[test]
    fn one_range_is_understood_and_all_else_is_the_whole() {
        for (range, expected) in [
            ("bytes=0-0", Wanted::Part(0, 0)),
            ("bytes=2-5", Wanted::Part(2, 5)),
            ("bytes=2-", Wanted::Part(2, 9)),
            ("bytes=-3", Wanted::Part(7, 9)),
            ("bytes=-30", Wanted::Part(0, 9)),
            ("BYTES = 9-99999999999999999999999", Wanted::Part(9, 9)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
        ] {
            assert_eq!(wanted(&head(&[("range", range)]), "t", 10), expected, "{range}");
        }
        assert_eq!(wanted(&head(&[]), "t", 10), Wanted::Whole);
        assert_eq!(wanted(&head(&[("range", "bytes=0-1"), ("range", "bytes=0-1")]), "t", 10), Wanted::Whole);
        assert_eq!(of_range("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(of_range("bytes=-1", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn a_range_holds_only_for_what_the_client_has_begun_with() {
        let with = |known: &str| wanted(&head(&[("range", "bytes=0-1"), ("if-range", known)]), "t", 10);
        assert_eq!(with("\"t\""), Wanted::Part(0, 1));
        for other in ["\"u\"", "W/\"t\"", "t", "Sat, 01 Jan 2000 00:00:00 GMT"] {
            assert_eq!(with(other), Wanted::Whole, "{other}");
        }
    }

    #[test]
    fn tags_are_compared_weakly_and_in_lists() {
        for (known, expected) in
            [("\"t\"", true), ("W/\"t\"", true), ("\"a\", \"t\"", true), ("*", true), ("t", false), ("\"T\"", false), ("", false)]
        {
            assert_eq!(is_unchanged(&head(&[("if-none-match", known)]), "t"), expected, "{known}");
        }
        assert!(!is_unchanged(&head(&[]), "t"));
    }
}
