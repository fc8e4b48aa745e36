//! Objects that are compared with their hash while they are read.

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{ObjectReader, OpenObject, StorageError};
use crate::executor::sqlite::folder::hex;

/// Reads an object and fails at its end where its bytes are not those that were written: the last piece is held back until they are
/// known to be, so nobody takes a damaged object for whole. A part of an object cannot be compared with the hash of all of it.
pub(crate) struct CheckedReader {
    reader: Box<dyn ObjectReader>,
    /// What was read so far, and what it must be at the end; none: nothing is compared.
    check: Option<(Sha256, String)>,
    held: Option<Bytes>,
    ended: bool,
}

impl CheckedReader {
    /// Of an object that was opened.
    pub(crate) fn new(open: OpenObject) -> Self {
        let is_whole = open.length == open.info.size;
        let check = open.info.sha256.filter(|_| is_whole).map(|sha256| (Sha256::new(), sha256));
        Self { reader: open.reader, check, held: None, ended: false }
    }

    fn end(&mut self) -> Result<Option<Bytes>, StorageError> {
        self.ended = true;
        let held = self.held.take();
        let Some((digest, expected)) = self.check.take() else { return Ok(held) };
        let found = hex(&digest.finalize());
        if found == expected {
            return Ok(held);
        }
        Err(StorageError::Unavailable(format!("the object is damaged: its SHA-256 is {found} and was {expected}")))
    }
}

#[async_trait]
impl ObjectReader for CheckedReader {
    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        while !self.ended {
            let Some(piece) = self.reader.next().await? else { return self.end() };
            let Some((digest, _)) = &mut self.check else { return Ok(Some(piece)) };
            digest.update(&piece);
            if let Some(before) = self.held.replace(piece) {
                return Ok(Some(before));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ObjectInfo;

    struct Listed(std::vec::IntoIter<Bytes>);

    #[async_trait]
    impl ObjectReader for Listed {
        async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
            Ok(self.0.next())
        }
    }

    /// Reads pieces of an object of so many bytes whose hash is that of `written`: what came, and how it ended.
    async fn read(pieces: &[&'static str], written: &str, size: u64) -> (String, Result<(), StorageError>) {
        let pieces: Vec<_> = pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect();
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let sha256 = Some(hex(&Sha256::digest(written)));
        let info = ObjectInfo { size, content_type: String::new(), sha256, created_ms: 0, etag: String::new() };
        let mut reader = CheckedReader::new(OpenObject { info, length, reader: Box::new(Listed(pieces.into_iter())) });
        let mut came = String::new();
        loop {
            match reader.next().await {
                Ok(Some(piece)) => came.push_str(std::str::from_utf8(&piece).unwrap()),
                Ok(None) => return (came, Ok(())),
                Err(error) => return (came, Err(error)),
            }
        }
    }

    #[tokio::test]
    async fn the_last_piece_of_a_damaged_object_is_held_back() {
        assert_eq!(read(&["ab", "cd", "e"], "abcde", 5).await, ("abcde".into(), Ok(())));
        assert_eq!(read(&[], "", 0).await, (String::new(), Ok(())));
        let (came, ended) = read(&["ab", "cd", "e"], "abXde", 5).await;
        assert_eq!(came, "abcd");
        assert!(matches!(ended, Err(StorageError::Unavailable(why)) if why.contains(&hex(&Sha256::digest("abXde")))));
        assert_eq!(read(&["abcde"], "abcdX", 5).await.0, "");
        assert_eq!(read(&["cd"], "abcde", 5).await, ("cd".into(), Ok(())), "a part");
    }
}
