//! A publication in bytes, as rows of the database hold it. The first byte is the version.

use crate::bindings::exports::syncline::host::pubsub::{Class, Order, Publication};
use crate::bindings::exports::syncline::host::types::Close;

const VERSION: u8 = 1;

/// Writes a publication down.
pub fn encode(publication: &Publication) -> Vec<u8> {
    let mut out = vec![VERSION];
    push_bytes(&mut out, publication.topic.as_bytes());
    push_bytes(&mut out, &publication.message);
    push_option(&mut out, publication.order.as_ref(), |out, order| {
        push_bytes(out, order.key.as_bytes());
        out.extend_from_slice(&order.after.to_le_bytes());
        out.extend_from_slice(&order.sequence.to_le_bytes());
    });
    match &publication.class {
        Class::MustDeliver => out.push(0),
        Class::Droppable => out.push(1),
        Class::Latest(key) => {
            out.push(2);
            push_bytes(&mut out, key.as_bytes());
        }
    }
    push_option(&mut out, publication.except, |out, connection| out.extend_from_slice(&connection.to_le_bytes()));
    push_option(&mut out, publication.close.as_ref(), |out, close| {
        out.extend_from_slice(&close.code.to_le_bytes());
        push_bytes(out, close.reason.as_bytes());
    });
    out
}

/// Reads what [`encode`] wrote; none where it is something else.
pub fn decode(mut from: &[u8]) -> Option<Publication> {
    let from = &mut from;
    if byte(from)? != VERSION {
        return None;
    }
    let publication = Publication {
        topic: text(from)?,
        message: bytes(from)?.to_owned(),
        order: option(from, |from| Some(Order { key: text(from)?, after: eight(from)?, sequence: eight(from)? }))?,
        class: match byte(from)? {
            0 => Class::MustDeliver,
            1 => Class::Droppable,
            2 => Class::Latest(text(from)?),
            _ => return None,
        },
        except: option(from, eight)?,
        close: option(from, |from| Some(Close { code: u16::from_le_bytes(*from.split_off(..2)?.as_array()?), reason: text(from)? }))?,
    };
    from.is_empty().then_some(publication)
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn push_option<T>(out: &mut Vec<u8>, value: Option<T>, push: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(value.is_some().into());
    if let Some(value) = value {
        push(out, value);
    }
}

fn byte(from: &mut &[u8]) -> Option<u8> {
    from.split_off_first().copied()
}

fn eight(from: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*from.split_off(..8)?.as_array()?))
}

fn bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(eight(from)?).ok()?;
    from.split_off(..length)
}

fn text(from: &mut &[u8]) -> Option<String> {
    String::from_utf8(bytes(from)?.to_owned()).ok()
}

fn option<T>(from: &mut &[u8], read: impl FnOnce(&mut &[u8]) -> Option<T>) -> Option<Option<T>> {
    match byte(from)? {
        0 => Some(None),
        1 => Some(Some(read(from)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn publication() -> impl Strategy<Value = Publication> {
        let class = prop_oneof![Just(Class::MustDeliver), Just(Class::Droppable), ".{0,5}".prop_map(Class::Latest)];
        let order = proptest::option::of((".{0,5}", any::<u64>(), any::<u64>()));
        let close = proptest::option::of((any::<u16>(), ".{0,5}"));
        (".{0,9}", proptest::collection::vec(any::<u8>(), 0..20), order, class, any::<Option<u64>>(), close).prop_map(
            |(topic, message, order, class, except, close)| Publication {
                topic,
                message,
                order: order.map(|(key, after, sequence)| Order { key, after, sequence }),
                class,
                except,
                close: close.map(|(code, reason)| Close { code, reason }),
            },
        )
    }

    proptest! {
        #[test]
        fn a_publication_comes_back_as_it_was(given in publication()) {
            prop_assert_eq!(decode(&encode(&given)), Some(given));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(0_u8..4, 0..60)) {
            if let Some(publication) = decode(&bytes) {
                prop_assert_eq!(encode(&publication), bytes);
            }
        }
    }
}
