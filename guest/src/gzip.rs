//! gzip for bodies: inflation stops at a limit instead of filling the memory first.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Why a body could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Uninflatable {
    /// There is more than was allowed.
    #[error("more than {0} bytes when inflated")]
    TooLarge(u64),
    /// It is not gzip, or cut off.
    #[error("not gzip")]
    Malformed,
}

/// Inflates into at most `bytes_max` bytes.
pub fn inflate(deflated: &[u8], bytes_max: u64) -> Result<Vec<u8>, Uninflatable> {
    let mut inflated = Vec::new();
    let mut reader = MultiGzDecoder::new(deflated).take(bytes_max.saturating_add(1));
    reader.read_to_end(&mut inflated).map_err(|_| Uninflatable::Malformed)?;
    if inflated.len() as u64 > bytes_max { Err(Uninflatable::TooLarge(bytes_max)) } else { Ok(inflated) }
}

/// Deflates at the level that costs least: what is sent is mostly JSON, which shrinks at any level.
pub fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    // Writing to memory does not fail.
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    written.expect("a vector takes what is written to it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_survives_the_way_there_and_back() {
        let body = "{\"a\":1}".repeat(1000).into_bytes();
        let deflated = deflate(&body);
        assert!(deflated.len() < body.len() / 10);
        assert_eq!(inflate(&deflated, body.len() as u64), Ok(body));
    }

    #[test]
    fn a_bomb_is_defused_at_the_limit() {
        let bomb = deflate(&vec![0; 10 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(inflate(&bomb, 1000), Err(Uninflatable::TooLarge(1000)));
    }

    #[test]
    fn what_is_no_gzip_is_refused() {
        let whole = deflate(b"hello");
        for broken in [&b""[..], b"{}", &whole[..whole.len() - 3]] {
            assert_eq!(inflate(broken, 1000), Err(Uninflatable::Malformed));
        }
    }
}
