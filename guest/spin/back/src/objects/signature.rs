//! Signatures of requests to S3 (AWS Signature Version 4), and the dates in them. Without IO or clock.

use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::hex;
use crate::settings::Bucket;

/// What signatures leave as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// In the place of a hash of what nobody has seen yet.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// No URL is valid for longer, in seconds.
const VALID_S_MAX: u64 = 7 * 24 * 60 * 60;

/// A request that is to be signed.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// Of the object; none: the bucket itself.
    pub(super) name: Option<&'a str>,
    /// Names and values, not encoded.
    pub(super) query: Vec<(&'a str, String)>,
    /// Names in lower case; those that are signed.
    pub(super) headers: Vec<(String, String)>,
}

/// What a place in a bucket is called in a path.
fn path(bucket: &Bucket, name: Option<&str>) -> String {
    let whole = name.map_or_else(|| format!("/{}", bucket.name), |name| format!("/{}/{name}", bucket.name));
    utf8_percent_encode(&whole, PATH).to_string()
}

/// Parameters in the order of their names, encoded.
fn encoded_query(query: &[(&str, String)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let mut pairs: Vec<(String, String)> = query.iter().map(|(name, value)| (encode(name), encode(value))).collect();
    pairs.sort();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn host(bucket: &Bucket) -> &str {
    bucket.endpoint.split_once("://").map_or("", |(_, host)| host)
}

/// URL and headers of a request with a body.
pub(super) fn signed(bucket: &Bucket, unsigned: Unsigned<'_>, body: &[u8], now_ms: u64) -> (String, Vec<(String, Vec<u8>)>) {
    let (date, time) = stamps(now_ms);
    let hash = hex(&Sha256::digest(body));
    let mut headers = unsigned.headers;
    headers.push(("host".into(), host(bucket).to_owned()));
    headers.push(("x-amz-content-sha256".into(), hash.clone()));
    headers.push(("x-amz-date".into(), time.clone()));
    headers.sort();
    let (path, query) = (path(bucket, unsigned.name), encoded_query(&unsigned.query));
    let scope = format!("{date}/{}/s3/aws4_request", bucket.region);
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let signature = signature(bucket, unsigned.method, &path, &query, &headers, &hash, &scope, &date, &time);
    let credential = format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", bucket.access_key);
    // Whoever sends the request sets the host from the URL.
    headers.retain(|(name, _)| name != "host");
    headers.push(("authorization".into(), credential));
    let query = if query.is_empty() { query } else { format!("?{query}") };
    let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    (format!("{}{path}{query}", bucket.endpoint), headers)
}

/// A URL that lets whoever has it make a request without a signature of its own.
pub(super) fn presigned(bucket: &Bucket, method: &str, name: &str, valid_ms: u64, now_ms: u64) -> String {
    let (date, time) = stamps(now_ms);
    let scope = format!("{date}/{}/s3/aws4_request", bucket.region);
    let query = encoded_query(&[
        ("X-Amz-Algorithm", ALGORITHM.into()),
        ("X-Amz-Credential", format!("{}/{scope}", bucket.access_key)),
        ("X-Amz-Date", time.clone()),
        ("X-Amz-Expires", (valid_ms / 1000).clamp(1, VALID_S_MAX).to_string()),
        ("X-Amz-SignedHeaders", "host".into()),
    ]);
    let (path, headers) = (path(bucket, Some(name)), [("host".to_owned(), host(bucket).to_owned())]);
    let signature = signature(bucket, method, &path, &query, &headers, UNSIGNED, &scope, &date, &time);
    format!("{}{path}?{query}&X-Amz-Signature={signature}", bucket.endpoint)
}

#[expect(clippy::too_many_arguments, reason = "the parts of a signature, in the order in which they are signed")]
fn signature(
    bucket: &Bucket,
    method: &str,
    path: &str,
    query: &str,
    headers: &[(String, String)],
    hash: &str,
    scope: &str,
    date: &str,
    time: &str,
) -> String {
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let request = format!("{method}\n{path}\n{query}\n{lines}\n{}\n{hash}", names.join(";"));
    let to_sign = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hex(&Sha256::digest(request)));
    let mut key = format!("AWS4{}", bucket.secret_key.expose()).into_bytes();
    for part in [date, &bucket.region, "s3", "aws4_request"] {
        key = keyed(&key, part.as_bytes());
    }
    hex(&keyed(&key, to_sign.as_bytes()))
}

fn keyed(key: &[u8], message: &[u8]) -> Vec<u8> {
    // A key of any length will do, so this never fails.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// `20130524` and `20130524T000000Z`.
fn stamps(now_ms: u64) -> (String, String) {
    let seconds = now_ms / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let date = format!("{year:04}{month:02}{day:02}");
    let within = seconds % 86_400;
    let time = format!("{date}T{:02}{:02}{:02}Z", within / 3600, within / 60 % 60, within % 60);
    (date, time)
}

/// The date of a day since 1970 (by eras of 400 years that begin in March).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days since 1970; none before.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)
}

/// Milliseconds since 1970 of `2013-05-24T00:00:00.000Z`, or of `Fri, 24 May 2013 00:00:00 GMT`.
pub(super) fn time_ms(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, clock) = match text.split_once('T').filter(|(date, _)| date.contains('-')) {
        Some((date, clock)) => {
            let mut parts = date.split('-').map(str::parse::<u64>);
            (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?, clock.trim_end_matches('Z'))
        }
        None => {
            let mut parts = text.split_once(", ")?.1.split(' ');
            let (day, month, year, clock) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let month = MONTHS.iter().position(|known| *known == month)? as u64 + 1;
            (year.parse().ok()?, month, day.parse().ok()?, clock)
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':').map(str::parse::<u64>);
    let (hour, minute, second) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let milliseconds: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    if year > 9999 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some((days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    /// The example that the signature's own documentation gives.
    fn example() -> Bucket {
        Bucket {
            endpoint: "https://examplebucket.s3.amazonaws.com".into(),
            region: "us-east-1".into(),
            name: String::new(),
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into()),
        }
    }

    const TIME_MS: u64 = 1_369_353_600_000;

    #[test]
    fn the_published_examples_are_signed_as_published() {
        let (bucket, hash) = (example(), hex(&Sha256::digest(b"")));
        let headers = [
            ("host".to_owned(), "examplebucket.s3.amazonaws.com".to_owned()),
            ("range".to_owned(), "bytes=0-9".to_owned()),
            ("x-amz-content-sha256".to_owned(), hash.clone()),
            ("x-amz-date".to_owned(), "20130524T000000Z".to_owned()),
        ];
        let scope = "20130524/us-east-1/s3/aws4_request";
        let found = signature(&bucket, "GET", "/test.txt", "", &headers, &hash, scope, "20130524", "20130524T000000Z");
        assert_eq!(found, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
        let query = encoded_query(&[
            ("X-Amz-Algorithm", ALGORITHM.into()),
            ("X-Amz-Credential", format!("{}/{scope}", bucket.access_key)),
            ("X-Amz-Date", "20130524T000000Z".into()),
            ("X-Amz-Expires", "86400".into()),
            ("X-Amz-SignedHeaders", "host".into()),
        ]);
        let found = signature(&bucket, "GET", "/test.txt", &query, &headers[..1], UNSIGNED, scope, "20130524", "20130524T000000Z");
        assert_eq!(found, "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(stamps(TIME_MS), ("20130524".into(), "20130524T000000Z".into()));
        assert_eq!(stamps(951_782_399_000).1, "20000228T235959Z");
        assert_eq!(time_ms("Fri, 24 May 2013 00:00:00 GMT"), Some(TIME_MS));
        assert_eq!(time_ms("2013-05-24T00:00:01.25Z"), Some(TIME_MS + 1250));
        for wrong in ["", "yesterday", "2013-13-01T00:00:00Z", "Fri, 24 Foo 2013 00:00:00 GMT", "0000-00-00T00:00:00Z"] {
            assert_eq!(time_ms(wrong), None, "{wrong}");
        }
        for days_since in (0..60_000).step_by(97) {
            let (year, month, day) = civil(days_since);
            assert_eq!(days(year, month, day), Some(days_since));
        }
    }

    #[test]
    fn a_url_holds_no_secret() {
        let bucket = Bucket { endpoint: "http://127.0.0.1:9000".into(), name: "notes".into(), ..example() };
        let url = presigned(&bucket, "PUT", "m/a b", 1000, TIME_MS);
        assert!(url.starts_with("http://127.0.0.1:9000/notes/m/a%20b?X-Amz-Algorithm="), "{url}");
        assert!(!url.contains("wJalrXUtnFEMI"));
    }
}
