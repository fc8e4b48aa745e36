//! Cookies: up to where a client has seen the log.

use serde_json::{Map, Value as Json, json};

/// What is added to the order of a cookie that must grow while the version does not.
const ORDER_STEP: f64 = 1.0 / (1_u32 << 20) as f64;

/// No order is greater: JavaScript's largest safe integer, as for versions.
const ORDER_MAX: f64 = ((1_u64 << 53) - 1) as f64;

/// Up to where a client has seen the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cookie {
    /// Nothing yet.
    Null,
    /// Caught up at a version.
    Version(u64),
    /// On the way.
    Loading(Loading),
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
            Json::Object(object) => Self::parse_object(object).map(Self::Loading),
            _ => None,
        }
    }

    fn parse_object(object: &Map<String, Json>) -> Option<Loading> {
        let (v, s) = match object.get("r") {
            // A version for each region, from a server whose regions counted by themselves: here they have one order, so nothing
            // follows from it but that whatever is sent must be of a greater one.
            Some(regions) => regions.as_object()?.values().all(|version| whole(version).is_some()).then_some((0, 0))?,
            None => (whole(object.get("v")?)?, whole(object.get("s")?)?),
        };
        // Beyond that a step up could not be told from none, and at last not be written.
        let order = object.get("order")?.as_f64().filter(|order| (0.0..=ORDER_MAX).contains(order))?;
        let p = match object.get("p") {
            Some(p) => whole(p)?,
            None => 0,
        };
        Some(Loading { order, v, s, p: p.max(v).max(s) })
    }

    /// As JSON.
    pub fn to_json(&self) -> Json {
        match *self {
            Self::Null => Json::Null,
            Self::Version(version) => json!(version),
            Self::Loading(Loading { order, v, s, p }) => {
                // Whole numbers are written as such.
                let whole = order >= 0.0 && order.fract() == 0.0 && order <= 2_f64.powi(53);
                let order = if whole { json!(order as u64) } else { json!(order) };
                let mut object = json!({"order": order, "v": v, "s": s});
                if p > v.max(s) {
                    object["p"] = json!(p);
                }
                object
            }
        }
    }

    /// The same with all fields.
    pub(super) fn loading(&self) -> Loading {
        match *self {
            // Any order is greater, 0 too.
            Self::Null => Loading { order: -1.0, v: 0, s: 0, p: 0 },
            Self::Version(version) => Loading { order: version as f64, v: version, s: version, p: version },
            Self::Loading(loading) => loading,
        }
    }
}

impl Loading {
    /// The cookie after this one: of a greater order, and a plain number where that says it all.
    pub(super) fn advance(&self, v: u64, s: u64, p: u64) -> Cookie {
        if v >= s && v >= p && v as f64 > self.order {
            return Cookie::Version(v);
        }
        let next = (self.order + ORDER_STEP).max(self.order.next_up());
        Cookie::Loading(Loading { order: next.max(v as f64), v, s, p: p.max(v).max(s) })
    }
}

/// An integer from 0 to 2^53 − 1, however it is written.
fn whole(source: &Json) -> Option<u64> {
    let limit = (1_u64 << 53) - 1;
    let number =
        source.as_u64().or_else(|| source.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0).map(|number| number as u64));
    number.filter(|number| *number <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_null_numbers_or_objects() {
        for good in ["null", "0", "41", r#"{"order":33,"v":33,"s":40}"#, r#"{"order":40.000000953674316,"v":33,"s":50}"#] {
            let source: Json = serde_json::from_str(good).unwrap();
            assert_eq!(Cookie::parse(&source).unwrap().to_json().to_string(), source.to_string(), "{good}");
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
        ] {
            assert_eq!(Cookie::parse(&serde_json::from_str(bad).unwrap()), None, "{bad}");
        }
        assert_eq!(Cookie::parse(&json!(7.0)), Some(Cookie::Version(7)));
    }

    #[test]
    fn a_cookie_of_regions_begins_anew_and_its_order_grows() {
        let regions = Cookie::parse(&json!({"order": 19, "r": {"eu": 12, "us": 7}})).unwrap();
        assert_eq!(regions, Cookie::Loading(Loading { order: 19.0, v: 0, s: 0, p: 0 }));
        assert_eq!(regions.loading().advance(20, 20, 20), Cookie::Version(20));
        assert!(regions.loading().advance(12, 12, 12).loading().order > 19.0);
    }

    #[test]
    fn orders_always_grow() {
        let first = Cookie::Null.loading().advance(33, 40, 40);
        assert_eq!(first.to_json(), json!({"order": 33, "v": 33, "s": 40}));
        assert_eq!(first.loading().advance(40, 40, 40), Cookie::Version(40));
        // A reset of a client at 40.
        let reset = Cookie::Version(40).loading().advance(33, 50, 50);
        assert_eq!(reset.to_json().to_string(), r#"{"order":40.000000953674316,"s":50,"v":33}"#);
        let mut order = 2_f64.powi(52);
        for _ in 0..3 {
            let next = Loading { order, v: 3, s: 3, p: 3 }.advance(3, 3, 3).loading().order;
            assert!(next > order);
            order = next;
        }
    }
}
