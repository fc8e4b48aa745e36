//! Who may do what: document globs and the rules of `policy` (docs/protocols/secsync.md, sections 6.1, 6.2 and 10).
//!
//! Pure decisions. Session keys are compared in constant time.

use crate::secrets;

/// What a client asks to do, by the names of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the document; asked once per connection, without a public key.
    Read,
    /// Save a snapshot.
    WriteSnapshot,
    /// Save an update.
    WriteUpdate,
    /// Have an ephemeral message relayed.
    SendEphemeralMessage,
}

impl Action {
    /// Its name, in the settings and for apps.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::WriteSnapshot => "write-snapshot",
            Self::WriteUpdate => "write-update",
            Self::SendEphemeralMessage => "send-ephemeral-message",
        }
    }

    /// The action of a name in the settings.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Read, Self::WriteSnapshot, Self::WriteUpdate, Self::SendEphemeralMessage].into_iter().find(|action| action.name() == name)
    }
}

/// A pattern over document ids: `*` stands for any text (slashes too), every other character for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Every text is a pattern.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// How many characters stand for themselves; of two patterns that fit, the one with more is the more specific.
    pub fn literal_count(&self) -> usize {
        self.0.chars().filter(|character| *character != '*').count()
    }

    /// Whether the whole text fits.
    pub fn fits(&self, text: &str) -> bool {
        let mut pieces = self.0.split('*');
        let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            match rest.find(piece) {
                Some(at) => rest = rest.get(at + piece.len()..).unwrap_or(""),
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// One rule of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Exact session keys; `*` is any.
    pub session_keys: Vec<String>,
    /// Which documents.
    pub documents: Vec<Glob>,
    /// Which actions.
    pub actions: Vec<Action>,
    /// If given, the authors whose writes fit. It says nothing about reading.
    pub public_keys: Option<Vec<String>>,
    /// Whether it lets broadcasts through.
    pub broadcast: bool,
}

impl Rule {
    fn is_about(&self, session_key: &str, doc_id: &str) -> bool {
        let any_key = self.session_keys.iter().any(|key| key == "*");
        let known_key = secrets::any_equal(session_key, self.session_keys.iter().map(String::as_str));
        (any_key || known_key) && self.documents.iter().any(|glob| glob.fits(doc_id))
    }

    fn grants(&self, action: Action, pub_key: Option<&str>) -> bool {
        self.actions.contains(&action)
            && match (&self.public_keys, pub_key) {
                (Some(keys), Some(pub_key)) => keys.iter().any(|key| key == pub_key),
                _ => true,
            }
    }
}

/// Who decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody may.
    AllowAll,
    /// Whoever a rule fits; without a rule nobody.
    Policy(Vec<Rule>),
    /// The app of the mount, which `hooks` asks; here nobody is allowed anything.
    App,
}

impl Access {
    /// `hasAccess`: whether a session may do something with a document. `pub_key` is absent for [`Action::Read`].
    pub fn allows(&self, action: Action, session_key: &str, doc_id: &str, pub_key: Option<&str>) -> bool {
        match self {
            Self::AllowAll => true,
            Self::Policy(rules) => rules.iter().any(|rule| rule.is_about(session_key, doc_id) && rule.grants(action, pub_key)),
            Self::App => false,
        }
    }

    /// `hasBroadcastAccess`: whether a session gets what is broadcast on a document.
    pub fn allows_broadcast(&self, session_key: &str, doc_id: &str) -> bool {
        match self {
            Self::AllowAll => true,
            Self::Policy(rules) => rules.iter().any(|rule| rule.broadcast && rule.is_about(session_key, doc_id)),
            Self::App => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(keys: &[&str], documents: &[&str], actions: &[Action]) -> Rule {
        Rule {
            session_keys: keys.iter().map(|key| key.to_string()).collect(),
            documents: documents.iter().map(|glob| Glob::new(*glob)).collect(),
            actions: actions.to_vec(),
            public_keys: None,
            broadcast: false,
        }
    }

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_is_special() {
        for (glob, text, fits) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("pol-*", "pol-", true),
            ("pol-*", "pol-a/b", true),
            ("pol-*", "xpol-a", false),
            ("*-end", "the-end", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a?[b]", "a?[b]", true),
            ("**ü*", "xüy", true),
        ] {
            assert_eq!(Glob::new(glob).fits(text), fits, "{glob:?} over {text:?}");
        }
    }

    #[test]
    fn without_a_fitting_rule_nothing_is_granted() {
        let access = Access::Policy(vec![rule(&["reader"], &["pol-*"], &[Action::Read])]);
        assert!(access.allows(Action::Read, "reader", "pol-1", None));
        assert!(!access.allows(Action::Read, "reader", "other", None));
        assert!(!access.allows(Action::Read, "stranger", "pol-1", None));
        assert!(!access.allows(Action::WriteUpdate, "reader", "pol-1", Some("key")));
        assert!(!access.allows_broadcast("reader", "pol-1"));
        assert!(!Access::Policy(Vec::new()).allows(Action::Read, "", "a", None));
    }

    #[test]
    fn a_star_among_the_session_keys_is_anybody_but_other_globs_are_exact_keys() {
        let access = Access::Policy(vec![rule(&["*"], &["a"], &[Action::Read]), rule(&["w*"], &["b"], &[Action::Read])]);
        assert!(access.allows(Action::Read, "", "a", None));
        assert!(!access.allows(Action::Read, "writer", "b", None));
        assert!(access.allows(Action::Read, "w*", "b", None));
    }

    #[test]
    fn public_keys_limit_writers_and_not_readers() {
        let mut bykey = rule(&["k"], &["*"], &[Action::Read, Action::WriteSnapshot]);
        bykey.public_keys = Some(vec!["author".into()]);
        let access = Access::Policy(vec![bykey]);
        assert!(access.allows(Action::Read, "k", "a", None));
        assert!(access.allows(Action::WriteSnapshot, "k", "a", Some("author")));
        assert!(!access.allows(Action::WriteSnapshot, "k", "a", Some("stranger")));
    }

    proptest! {
        #[test]
        fn what_is_cut_out_of_a_text_fits_again(text in "[abü*]{0,8}", from in 0usize..9, length in 0usize..9) {
            let characters: Vec<char> = text.chars().collect();
            let from = from.min(characters.len());
            let to = (from + length).min(characters.len());
            let pattern: String = characters.iter().take(from).chain(['*'].iter()).chain(characters.iter().skip(to)).collect();
            prop_assert!(Glob::new(pattern).fits(&text));
        }
    }
}
