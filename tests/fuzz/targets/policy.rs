//! Globs of the policy, against a matcher that tries everything: pattern, text, session key, one a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syncline_guest::secsync::policy::{Access, Action, Glob, Rule};

/// Beyond this trying everything takes too long.
const TEXT_BYTES_MAX: usize = 200;

fn fits(pattern: &[char], text: &[char]) -> bool {
    // Row by row: whether the first characters of the pattern fit the first of the text.
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for character in pattern {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match character {
                '*' => row[at] || (at > 0 && next[at - 1]),
                character => at > 0 && row[at - 1] && text[at - 1] == *character,
            };
        }
        row = next;
    }
    row[text.len()]
}

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(3, '\n');
    let (pattern, text, key) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let glob = Glob::new(pattern);
    let fitting = glob.fits(text);
    if pattern.len() <= TEXT_BYTES_MAX && text.len() <= TEXT_BYTES_MAX {
        let (pattern, text): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
        assert_eq!(fitting, fits(&pattern, &text), "{pattern:?} over {text:?}");
    }
    let rule = |session_key: &str| Rule {
        session_keys: vec![session_key.to_owned()],
        documents: vec![glob.clone()],
        actions: vec![Action::Read],
        public_keys: None,
        broadcast: false,
    };
    let access = |session_key: &str| Access::Policy(vec![rule(session_key)]);
    assert_eq!(access(key).allows(Action::Read, key, text, None), fitting);
    assert!(!access(key).allows(Action::WriteUpdate, key, text, None));
    let other = format!("{key}x");
    assert!(key == "*" || !access(key).allows(Action::Read, &other, text, None));
});
