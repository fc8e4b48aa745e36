//! When a post that failed is tried again. Without IO or clock.

/// How often a post is tried.
pub const ATTEMPTS_MAX: u32 = 20;
/// A post that is older is given up.
pub const AGE_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The pause after the first failure; it doubles with each further one.
pub const PAUSE_MS_FIRST: u64 = 1000;
/// The longest pause.
pub const PAUSE_MS_MAX: u64 = 60 * 60 * 1000;

/// When to try again after so many failed attempts; none: never. `random` spreads those that failed together over the
/// last half of the pause.
pub(super) fn due_again(attempts: u32, created_ms: u64, now_ms: u64, random: u64) -> Option<u64> {
    if attempts >= ATTEMPTS_MAX || now_ms.saturating_sub(created_ms) >= AGE_MS_MAX {
        return None;
    }
    let doubled = PAUSE_MS_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(32));
    let half = doubled.min(PAUSE_MS_MAX) / 2;
    Some(now_ms + half + random % half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_differ() {
        let pause = |attempts, random| due_again(attempts, 0, 1000, random).map(|due| due - 1000);
        assert_eq!([pause(1, 0), pause(1, 499), pause(2, 0), pause(3, 0)], [Some(500), Some(999), Some(1000), Some(2000)]);
        assert!((1..ATTEMPTS_MAX).all(|attempts| pause(attempts, u64::MAX).is_some_and(|pause| pause <= PAUSE_MS_MAX)));
    }

    #[test]
    fn attempts_and_age_are_bounded() {
        assert_eq!(due_again(ATTEMPTS_MAX, 0, 1000, 0), None);
        assert_eq!(due_again(1, 1000, 1000 + AGE_MS_MAX, 0), None);
        assert!(due_again(1, 1000, 999 + AGE_MS_MAX, 0).is_some());
    }
}
