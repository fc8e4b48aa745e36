//! Cookies: up to where a client has seen the log.

use serde_json::{Map, Value as Json, json};

use super::regions::{Regions, advance_cookie_from_changes, up_to};

/// What is added to the order of a cookie that must grow while the version does not.
const ORDER_STEP: f64 = 1.0 / (1_u32 << 20) as f64;

/// No version is greater: JavaScript's largest safe integer.
const VERSION_MAX: u64 = (1 << 53) - 1;

/// No order is greater: beyond it a step up could not be told from none.
const ORDER_MAX: f64 = VERSION_MAX as f64;

/// Up to where a client has seen the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Cookie {
    /// Nothing yet.
    Null,
    /// Caught up at a version.
    Version(u64),
    /// On the way.
    Loading(Loading),
    /// From a database to which several regions write.
    OfRegions(OfRegions),
}

/// A cookie that tells of each region.
#[derive(Clone, Debug, PartialEq)]
pub struct OfRegions {
    /// What clients compare: the sum of all entries, or a little more where that would not grow.
    pub order: f64,
    /// Up to which of its versions the client was ever brought. No entry ever falls.
    pub seen: Regions,
    /// On the way: `v`, `s` and `p` as in [`Loading`].
    pub load: Option<[u64; 3]>,
}

/// A cookie on the way.
///
/// The client has every row whose newest entry is at or below `v`, if it was visible at `p`. Of a row with a newer entry it has
/// what it had before, which is nothing where that entry is at or below `s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loading {
    /// What clients compare; grows whenever anything changed.
    pub order: f64,
    /// The version that is reached.
    pub v: u64,
    /// The version at which this load began.
    pub s: u64,
    /// The version whose visibility holds for the rows that the client has; at least `v` and `s`.
    pub p: u64,
}

impl Cookie {
    /// From JSON; none: 400.
    pub fn parse(source: &Json) -> Option<Self> {
        match source {
            Json::Null => Some(Self::Null),
            Json::Number(_) => whole(source).map(Self::Version),
            Json::Object(object) => Self::parse_object(object),
            _ => None,
        }
    }

    fn parse_object(object: &Map<String, Json>) -> Option<Self> {
        // Beyond that a step up could not be told from none, and at last not be written.
        let order = object.get("order")?.as_f64().filter(|order| (0.0..=ORDER_MAX).contains(order))?;
        let load = match (object.get("v"), object.get("s")) {
            (None, None) if object.contains_key("r") => None,
            (v, s) => {
                let (v, s) = (whole(v?)?, whole(s?)?);
                let p = object.get("p").map_or(Some(0), whole)?;
                Some([v, s, p.max(v).max(s)])
            }
        };
        if let Some(regions) = object.get("r") {
            let entry = |(region, version): (&String, &Json)| Some((region.clone(), whole(version)?));
            let seen = regions.as_object()?.iter().map(entry).collect::<Option<_>>()?;
            return Some(Self::OfRegions(OfRegions { order, seen, load }));
        }
        load.map(|[v, s, p]| Self::Loading(Loading { order, v, s, p }))
    }

    /// As JSON.
    pub fn to_json(&self) -> Json {
        let (mut object, load) = match self {
            Self::Null => return Json::Null,
            Self::Version(version) => return json!(version),
            Self::Loading(Loading { order, v, s, p }) => (json!({"order": order_json(*order)}), Some([*v, *s, *p])),
            Self::OfRegions(OfRegions { order, seen, load }) => (json!({"order": order_json(*order), "r": seen}), *load),
        };
        if let Some([v, s, p]) = load {
            object["v"] = json!(v);
            object["s"] = json!(s);
            if p > v.max(s) {
                object["p"] = json!(p);
            }
        }
        object
    }

    /// The same with all fields. `regions`: the last version of each region that the database knows; entries of others are ignored.
    pub(super) fn loading(&self, regions: &Regions) -> Loading {
        match self {
            // Any order is greater, 0 too.
            Self::Null => Loading { order: -1.0, v: 0, s: 0, p: 0 },
            Self::Version(version) => Loading { order: *version as f64, v: *version, s: *version, p: *version },
            Self::Loading(loading) => *loading,
            Self::OfRegions(OfRegions { order, load, .. }) => {
                let reached = self.seen_up_to(regions);
                let [v, s, p] = load.unwrap_or([reached; 3]);
                Loading { order: *order, v, s, p }
            }
        }
    }

    /// The highest version that the client was ever brought to: above `v` where it began anew.
    pub(super) fn seen_up_to(&self, regions: &Regions) -> u64 {
        match self {
            Self::Null => 0,
            Self::Version(version) => *version,
            // The whole part of the order.
            Self::Loading(loading) => loading.order as u64,
            Self::OfRegions(cookie) => cookie.known(regions).map(|(_, version)| version).max().unwrap_or(0),
        }
    }

    /// Whether a region never gave out what the cookie says of it, or is not even known: the database is older than what the client
    /// has seen.
    pub(super) fn is_ahead_of(&self, regions: &Regions) -> bool {
        match self {
            Self::OfRegions(cookie) => cookie.seen.iter().any(|(region, version)| *version > regions.get(region).copied().unwrap_or(0)),
            Self::Null | Self::Version(_) | Self::Loading(_) => false,
        }
    }

    /// The version that a page which was just read ends at.
    pub fn version(&self) -> u64 {
        match self {
            Self::Null => 0,
            Self::Version(version) => *version,
            Self::Loading(loading) => loading.v,
            Self::OfRegions(OfRegions { seen, load, .. }) => load.map_or_else(|| seen.values().copied().max().unwrap_or(0), |[v, ..]| v),
        }
    }

    /// The cookie after this one, in the form for a database of one region, or of several.
    /// None: there is no greater order that would be taken back, so the client must begin with a new cookie.
    pub(super) fn advance(&self, regions: &Regions, [v, s, p]: [u64; 3]) -> Option<Cookie> {
        let asked = self.loading(regions);
        if regions.len() < 2 {
            return asked.advance(v, s, p);
        }
        let before: Regions = match self {
            Self::OfRegions(cookie) => cookie.known(regions).map(|(region, version)| (region.to_owned(), version)).collect(),
            Self::Null | Self::Version(_) | Self::Loading(_) => {
                advance_cookie_from_changes(&Regions::new(), up_to(regions, self.seen_up_to(regions)))
            }
        };
        let seen = advance_cookie_from_changes(&before, up_to(regions, v));
        let sum = seen.values().fold(0_u64, |sum, version| sum.saturating_add(*version)) as f64;
        // A sum beyond what can be written is none.
        let order = next_order(asked.order, if sum <= ORDER_MAX { sum } else { 0.0 })?;
        let (load, reached) = ([v, s, p.max(v).max(s)], seen.values().copied().max().unwrap_or(0));
        let load = Some(load).filter(|load| *load != [reached; 3]);
        (p <= VERSION_MAX).then_some(Cookie::OfRegions(OfRegions { order, seen, load }))
    }
}

impl OfRegions {
    /// The entries of regions that the database knows.
    fn known<'a>(&'a self, regions: &'a Regions) -> impl Iterator<Item = (&'a str, u64)> {
        self.seen.iter().filter(|(region, _)| regions.contains_key(*region)).map(|(region, version)| (region.as_str(), *version))
    }
}

impl Loading {
    /// The cookie after this one: of a greater order, and a plain number where that says it all.
    fn advance(&self, v: u64, s: u64, p: u64) -> Option<Cookie> {
        let p = p.max(v).max(s);
        if p > VERSION_MAX {
            return None;
        }
        if v == p && v as f64 > self.order {
            return Some(Cookie::Version(v));
        }
        Some(Cookie::Loading(Loading { order: next_order(self.order, v as f64)?, v, s, p }))
    }
}

/// An order above another one, and at least what is wanted; none: it could not be told from the one before.
fn next_order(order: f64, wanted: f64) -> Option<f64> {
    let next = if wanted > order { wanted } else { (order + ORDER_STEP).max(order.next_up()) };
    (next <= ORDER_MAX).then_some(next)
}

/// Whole numbers are written as such.
fn order_json(order: f64) -> Json {
    let whole = (0.0..=ORDER_MAX).contains(&order) && order.fract() == 0.0;
    if whole { json!(order as u64) } else { json!(order) }
}

/// An integer from 0 to 2^53 − 1, however it is written.
fn whole(source: &Json) -> Option<u64> {
    let number =
        source.as_u64().or_else(|| source.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0).map(|number| number as u64));
    number.filter(|number| *number <= VERSION_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cookies_are_null_numbers_or_objects() {
        for good in [
            "null",
            "0",
            "41",
            r#"{"order":33,"v":33,"s":40}"#,
            r#"{"order":40.000000953674316,"v":33,"s":50}"#,
            r#"{"order":19,"r":{"eu":12,"us":7}}"#,
            r#"{"order":19,"r":{"eu":12,"us":7},"v":5,"s":12,"p":15}"#,
        ] {
            let source: Json = serde_json::from_str(good).unwrap();
            assert_eq!(Cookie::parse(&source).unwrap().to_json(), source, "{good}");
        }
        for bad in [
            "-1",
            "1.5",
            "\"3\"",
            "[]",
            "true",
            "{}",
            r#"{"order":"1","v":1,"s":1}"#,
            r#"{"order":1,"v":-1,"s":1}"#,
            "1e300",
            r#"{"order":1.79e308,"v":1,"s":1}"#,
            r#"{"order":9007199254740992,"v":1,"s":1}"#,
            r#"{"order":-1,"v":1,"s":1}"#,
            r#"{"order":null,"v":1,"s":1}"#,
            r#"{"order":1,"r":[]}"#,
            r#"{"order":1,"r":{"eu":-1}}"#,
            r#"{"order":1,"r":{"eu":1},"v":1}"#,
            r#"{"order":1,"v":1,"s":1,"p":"1"}"#,
        ] {
            assert_eq!(Cookie::parse(&serde_json::from_str(bad).unwrap()), None, "{bad}");
        }
        assert_eq!(Cookie::parse(&json!(7.0)), Some(Cookie::Version(7)));
    }

    fn regions(entries: &[(&str, u64)]) -> Regions {
        entries.iter().map(|(region, version)| ((*region).to_owned(), *version)).collect()
    }

    #[test]
    fn a_number_keeps_its_place_when_a_second_region_writes() {
        let known = regions(&[("eu", 12), ("us", 14)]);
        let next = Cookie::Version(12).advance(&known, [14; 3]).unwrap();
        assert_eq!(next.to_json(), json!({"order": 26, "r": {"eu": 12, "us": 14}}));
        assert_eq!(next.loading(&known), Loading { order: 26.0, v: 14, s: 14, p: 14 });
        assert_eq!(next.version(), 14);
        // Of one region it stays a number, also after such a cookie.
        let one = regions(&[("eu", 30)]);
        assert_eq!(Cookie::Version(12).advance(&one, [30; 3]).unwrap(), Cookie::Version(30));
        assert_eq!(Cookie::parse(&json!({"order": 12, "r": {"eu": 12}})).unwrap().advance(&one, [30; 3]).unwrap(), Cookie::Version(30));
    }

    #[test]
    fn entries_beyond_all_that_a_region_gave_out_are_found_and_those_of_unknown_regions_are_too() {
        let known = regions(&[("eu", 12), ("us", 7)]);
        let cookie = |r: Json| Cookie::parse(&json!({"order": 19, "r": r})).unwrap();
        assert_eq!(cookie(json!({"eu": 12, "mars": 99})).loading(&known), Loading { order: 19.0, v: 12, s: 12, p: 12 });
        assert_eq!(cookie(json!({"mars": 99})).loading(&known), Loading { order: 19.0, v: 0, s: 0, p: 0 });
        let next = cookie(json!({"eu": 9, "mars": 99})).advance(&known, [12; 3]).unwrap();
        assert_eq!(next.to_json(), json!({"order": 19.000_000_953_674_316, "r": {"eu": 12, "us": 7}}));
        assert!(!cookie(json!({"eu": 12, "us": 7, "mars": 0})).is_ahead_of(&known));
        assert!(cookie(json!({"eu": 12, "us": 7, "mars": 1})).is_ahead_of(&known));
        assert!(cookie(json!({"eu": 9, "us": 8})).is_ahead_of(&known));
    }

    #[test]
    fn a_load_of_several_regions_tells_its_place_and_no_entry_falls() {
        let known = regions(&[("eu", 40), ("us", 35)]);
        let first = Cookie::Null.advance(&known, [33, 40, 40]).unwrap();
        assert_eq!(first.to_json(), json!({"order": 66, "r": {"eu": 33, "us": 33}, "v": 33, "s": 40}));
        let last = first.advance(&known, [40; 3]).unwrap();
        assert_eq!(last.to_json(), json!({"order": 75, "r": {"eu": 40, "us": 35}}));
        // A reset.
        let known = regions(&[("eu", 40), ("us", 50)]);
        let reset = last.advance(&known, [33, 50, 50]).unwrap();
        assert_eq!(reset.to_json(), json!({"order": 75.000_000_953_674_32, "r": {"eu": 40, "us": 35}, "v": 33, "s": 50}));
        assert_eq!((reset.loading(&known).v, reset.seen_up_to(&known), reset.version()), (33, 40, 33));
        assert_eq!(reset.advance(&known, [50; 3]).unwrap().to_json(), json!({"order": 90, "r": {"eu": 40, "us": 50}}));
    }

    #[test]
    fn a_sum_of_versions_is_never_too_large_to_be_written() {
        let most = (1 << 53) - 1;
        let known = regions(&[("eu", most - 5), ("us", most)]);
        let cookie = Cookie::Version(most - 3).advance(&known, [most; 3]).unwrap();
        assert!(cookie.loading(&known).order > (most - 3) as f64);
        assert_eq!(Cookie::parse(&cookie.to_json()), Some(cookie));
    }

    #[test]
    fn orders_always_grow() {
        let none = Regions::new();
        let first = Cookie::Null.advance(&none, [33, 40, 40]).unwrap();
        assert_eq!(first.to_json(), json!({"order": 33, "v": 33, "s": 40}));
        assert_eq!(first.advance(&none, [40; 3]).unwrap(), Cookie::Version(40));
        // A reset of a client at 40.
        let reset = Cookie::Version(40).advance(&none, [33, 50, 50]).unwrap();
        assert_eq!(reset.to_json().to_string(), r#"{"order":40.000000953674316,"s":50,"v":33}"#);
        let mut order = 2_f64.powi(52);
        for _ in 0..3 {
            let next = Cookie::Loading(Loading { order, v: 3, s: 3, p: 3 }).advance(&none, [3; 3]).unwrap().loading(&none).order;
            assert!(next > order);
            order = next;
        }
    }

    #[test]
    fn no_order_is_issued_that_would_be_refused() {
        let last = |order: f64| Loading { order, v: 3, s: 3, p: 3 }.advance(3, 3, 3);
        assert_eq!(last(ORDER_MAX - 1.0).unwrap().loading(&Regions::new()).order, ORDER_MAX);
        assert_eq!(last(ORDER_MAX), None);
        assert_eq!(Cookie::Null.advance(&Regions::new(), [VERSION_MAX, 1, 1]), Some(Cookie::Version(VERSION_MAX)));
        assert_eq!(Cookie::Null.advance(&Regions::new(), [VERSION_MAX + 1, 1, 1]), None);
    }

    /// Numbers from 0 to 2^53 − 1, those near the ends and near the powers of two among them.
    fn version() -> impl Strategy<Value = u64> {
        let near_power = (0_u32..54, 0_u64..3).prop_map(|(power, below)| (1_u64 << power).saturating_sub(below));
        prop_oneof![0..=VERSION_MAX, 0_u64..100, near_power].prop_map(|version| version.min(VERSION_MAX))
    }

    proptest! {
        #[test]
        fn what_is_issued_is_greater_and_taken_back(
            order in prop_oneof![0.0..=ORDER_MAX, version().prop_map(|order| order as f64)],
            known in prop_oneof![Just(Regions::new()), (version(), version()).prop_map(|(eu, us)| regions(&[("eu", eu), ("us", us)]))],
            steps in proptest::collection::vec((version(), version(), version()), 1..8),
        ) {
            let mut cookie = Cookie::parse(&json!({"order": order, "v": 0, "s": 0})).unwrap();
            for (v, s, p) in steps {
                let before = cookie.loading(&known).order;
                let Some(next) = cookie.advance(&known, [v, s, p]) else {
                    prop_assert!(before > ORDER_MAX - 1.0, "there was room above {cookie:?}");
                    break;
                };
                // As it goes to the client and comes back.
                let text = next.to_json().to_string();
                prop_assert_eq!(Cookie::parse(&serde_json::from_str(&text).unwrap()), Some(next.clone()), "{}", text);
                prop_assert!(next.loading(&known).order > before, "{next:?} after {cookie:?}");
                cookie = next;
            }
        }
    }
}
