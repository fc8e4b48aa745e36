//! Versions by region: what cookies tell where several regions write to one database.
//!
//! All regions take their versions from one order, so each entry is the last version of its region among those up to one version,
//! and that version is the greatest of the entries. What is after a cookie can therefore be asked as `version > v`, which finds the
//! same as the predicate by region ([`pull_predicate`]) and needs one index.

use std::collections::BTreeMap;

/// By region: up to which of its versions somebody has seen the log.
pub type Regions = BTreeMap<String, u64>;

/// Whether an entry of the log is after a cookie: `(region = $1 AND version > $2) OR … OR region NOT IN (…)`. A region that the cookie
/// does not name counts from 0.
pub fn pull_predicate(seen: &Regions, region: &str, version: u64) -> bool {
    seen.get(region).is_none_or(|seen| version > *seen)
}

/// What a cookie says after some changes, each of them a region and a version: the greatest that was seen of each. Never lowers an
/// entry.
pub fn advance_cookie_from_changes<'a>(seen: &Regions, changes: impl IntoIterator<Item = (&'a str, u64)>) -> Regions {
    let mut after = seen.clone();
    for (region, version) in changes {
        match after.get_mut(region) {
            Some(entry) => *entry = version.max(*entry),
            None => drop(after.insert(region.to_owned(), version)),
        }
    }
    after
}

/// What one has seen who has seen all up to a version. `last`: the last version that each region gave out.
pub fn up_to(last: &Regions, version: u64) -> impl Iterator<Item = (&str, u64)> {
    last.iter().map(move |(region, last)| (region.as_str(), version.min(*last)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 4] = ["ap", "eu", "sa", "us"];

    /// A log in one order: by version, minus 1, the region that took it. Some regions never do.
    fn log() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(0..NAMES.len(), 0..40)
    }

    fn last_of(log: &[usize]) -> Regions {
        log.iter().zip(1..).map(|(region, version)| (NAMES[*region].to_owned(), version)).collect()
    }

    proptest! {
        /// However many versions came between the read and the cookie, and after it.
        #[test]
        fn in_one_order_the_predicate_by_region_is_the_one_by_version(log in log(), seen in 0_usize..41, later in 0_usize..41) {
            let seen = seen.min(log.len());
            let cookie: Regions = up_to(&last_of(&log[..later.clamp(seen, log.len())]), seen as u64).map(|(name, at)| (name.to_owned(), at)).collect();
            for (region, version) in log.iter().zip(1_u64..) {
                prop_assert_eq!(pull_predicate(&cookie, NAMES[*region], version), version > seen as u64, "{} of {:?}", version, cookie);
            }
        }

        /// Taken one by one, changes lead where one leads who has seen them all; what comes twice or late lowers nothing.
        #[test]
        fn entries_follow_the_changes_and_never_fall(log in log(), order in prop::collection::vec(any::<prop::sample::Index>(), 0..80)) {
            let mut cookie = Regions::new();
            for index in order.iter().filter(|_| !log.is_empty()) {
                let at = index.index(log.len());
                let next = advance_cookie_from_changes(&cookie, [(NAMES[log[at]], at as u64 + 1)]);
                prop_assert!(cookie.iter().all(|(region, entry)| next[region] >= *entry));
                prop_assert!(next[NAMES[log[at]]] > at as u64);
                cookie = next;
            }
            let all = log.iter().zip(1..).map(|(region, version)| (NAMES[*region], version));
            let whole = advance_cookie_from_changes(&cookie, all);
            prop_assert_eq!(&whole, &last_of(&log));
            let at_once = advance_cookie_from_changes(&cookie, up_to(&last_of(&log), log.len() as u64));
            prop_assert_eq!(whole, at_once);
        }
    }
}
