//! The patterns of `like` and `ilike`: `%` is any text, `_` one character, `\` takes away the meaning of what follows.

/// Longer ones are refused by SQLite, and cost too much long before.
pub(super) const PATTERN_BYTES_MAX: usize = 1000;

/// One part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Any,
    One,
    Character(char),
}

/// A pattern that can be matched.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Part>);

impl Pattern {
    /// None where it is too long or ends with an open escape.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > PATTERN_BYTES_MAX {
            return None;
        }
        let mut parts = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            parts.push(match character {
                '%' => Part::Any,
                '_' => Part::One,
                '\\' => Part::Character(characters.next()?),
                other => Part::Character(other),
            });
        }
        Some(Self(parts))
    }

    /// The same as SQLite's `GLOB` writes it.
    pub(super) fn glob(&self) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Any => out.push('*'),
                Part::One => out.push('?'),
                Part::Character(character @ ('*' | '?' | '[')) => {
                    out.push('[');
                    out.push(*character);
                    out.push(']');
                }
                Part::Character(character) => out.push(*character),
            }
        }
        out
    }

    /// Whether a text matches, letter by letter or without regard to the case of ASCII letters.
    pub(super) fn matches(&self, text: &str, ignore_case: bool) -> bool {
        let text: Vec<char> = text.chars().collect();
        let same = |left: char, right: char| left == right || ignore_case && left.eq_ignore_ascii_case(&right);
        let (mut part, mut position) = (0, 0);
        // Where to go on after the last `%`, should what follows it not fit.
        let mut again: Option<(usize, usize)> = None;
        while position < text.len() {
            match self.0.get(part) {
                Some(Part::Any) => {
                    part += 1;
                    again = Some((part, position));
                    continue;
                }
                Some(Part::One) => {}
                Some(Part::Character(character)) if same(*character, text[position]) => {}
                _ => {
                    let Some((after, from)) = again else { return false };
                    (part, position) = (after, from + 1);
                    again = Some((after, from + 1));
                    continue;
                }
            }
            part += 1;
            position += 1;
        }
        self.0[part..].iter().all(|part| *part == Part::Any)
    }
}
