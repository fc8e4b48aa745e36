//! Values as bytes: the version, then the value as postcard writes it; or a row of such values, each after its length.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::VERSION;

/// Bytes of the length before a piece (little-endian).
const LENGTH_BYTES: usize = 4;

/// Why a value cannot be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It takes more bytes than allowed.
    #[error("{bytes} bytes, and at most {limit_bytes} are allowed")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// What it may take.
        limit_bytes: usize,
    },
    /// No value of this crate does that.
    #[error("the value cannot be written: {0}")]
    Value(postcard::Error),
}

/// Why bytes cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are more than allowed.
    #[error("{bytes} bytes, and at most {limit_bytes} are allowed")]
    TooLarge {
        /// As they say or are.
        bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// The other side is of another version of Syncline.
    #[error(
        "version {0} of what gateway and deployment say to each other, and version {VERSION} is understood: both must be of the same version of Syncline"
    )]
    Version(u8),
    /// They end too early.
    #[error("the body is not whole")]
    Truncated,
    /// Something follows the value.
    #[error("{0} bytes too many")]
    Excess(usize),
    /// They are no such value.
    #[error("the body is not what it should be: {0}")]
    Value(postcard::Error),
}

/// A value as bytes, at most so many.
pub fn encode<T: Serialize>(value: &T, limit_bytes: usize) -> Result<Vec<u8>, EncodeError> {
    let bytes = postcard::to_extend(value, vec![VERSION]).map_err(EncodeError::Value)?;
    fits(bytes.len(), limit_bytes)?;
    Ok(bytes)
}

/// The value that bytes stand for.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit_bytes: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit_bytes {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), limit_bytes });
    }
    match bytes.split_first() {
        None => Err(DecodeError::Truncated),
        Some((&VERSION, value)) => match postcard::take_from_bytes(value) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(DecodeError::Excess(rest.len())),
            Err(postcard::Error::DeserializeUnexpectedEnd) => Err(DecodeError::Truncated),
            Err(error) => Err(DecodeError::Value(error)),
        },
        Some((other, _)) => Err(DecodeError::Version(*other)),
    }
}

/// Adds a value to a body of many. On an error the body is as it was.
pub fn append_piece<T: Serialize>(body: &mut Vec<u8>, value: &T, limit_bytes: usize) -> Result<(), EncodeError> {
    let piece = encode(value, limit_bytes)?;
    let length = u32::try_from(piece.len()).map_err(|_| EncodeError::TooLarge { bytes: piece.len(), limit_bytes: u32::MAX as usize })?;
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(&piece);
    Ok(())
}

fn fits(bytes: usize, limit_bytes: usize) -> Result<(), EncodeError> {
    if bytes > limit_bytes { Err(EncodeError::TooLarge { bytes, limit_bytes }) } else { Ok(()) }
}

/// Takes a body of many values apart, as its bytes come in.
#[derive(Debug, Default)]
pub struct Pieces {
    waiting: Vec<u8>,
}

impl Pieces {
    /// The next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The next value, where it is whole. After an error the rest of the body is of no use.
    pub fn next<T: DeserializeOwned>(&mut self, limit_bytes: usize) -> Result<Option<T>, DecodeError> {
        let Some((length, rest)) = self.waiting.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > limit_bytes {
            return Err(DecodeError::TooLarge { bytes: length, limit_bytes });
        }
        let Some(piece) = rest.get(..length) else { return Ok(None) };
        let value = decode(piece, limit_bytes)?;
        self.waiting.drain(..LENGTH_BYTES + length);
        Ok(Some(value))
    }

    /// The body is over: whether it ended with a value.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.waiting.is_empty() { Ok(()) } else { Err(DecodeError::Truncated) }
    }
}
