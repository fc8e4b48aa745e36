//! Takes the names of functions out of a component: half of what is left of it is of no use to whoever only runs it.

/// What a core module and a component begin with.
const HEADER_BYTES: usize = 8;
/// The kinds of sections that matter here.
const CUSTOM: u8 = 0;
/// In a component: a core module, and a component.
const NESTED: [u8; 2] = [1, 4];
/// The layer that tells a component from a core module, in the header.
const COMPONENT_LAYER: u8 = 1;

/// The component without names; none where it is not a component.
pub(super) fn names(binary: &[u8]) -> Option<Vec<u8>> {
    let (header, mut rest) = binary.split_at_checked(HEADER_BYTES)?;
    let is_component = header.get(6) == Some(&COMPONENT_LAYER);
    let mut stripped = header.to_vec();
    while let Some((&kind, after)) = rest.split_first() {
        let (length, after) = number(after)?;
        let (section, after) = after.split_at_checked(length)?;
        rest = after;
        if kind == CUSTOM && is_left_out(section)? {
            continue;
        }
        stripped.push(kind);
        if is_component && NESTED.contains(&kind) {
            push(&mut stripped, &names(section)?);
        } else {
            push(&mut stripped, section);
        }
    }
    Some(stripped)
}

/// Whether a custom section tells names or debugs.
fn is_left_out(section: &[u8]) -> Option<bool> {
    let (length, after) = number(section)?;
    let name = after.get(..length)?;
    Some(name == b"name" || name == b"component-name" || name.starts_with(b".debug_"))
}

/// An unsigned LEB128 number of up to 32 bits, and what follows it.
fn number(mut bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, bytes));
        }
    }
    None
}

fn push(to: &mut Vec<u8>, section: &[u8]) {
    let mut length = section.len();
    while length > 0x7f {
        to.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
    to.extend_from_slice(section);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A core module with a section of names and a memory.
    const MODULE: &[u8] = b"\0asm\x01\0\0\0\x00\x06\x04namex\x05\x03\x01\0\x01";

    fn component(module: &[u8]) -> Vec<u8> {
        let mut component = b"\0asm\x0d\0\x01\0\x00\x05\x04keep".to_vec();
        component.push(1);
        push(&mut component, module);
        component
    }

    #[test]
    fn names_go_wherever_they_are_and_the_rest_stays() {
        let stripped = names(&component(MODULE)).unwrap();
        assert_eq!(stripped, component(b"\0asm\x01\0\0\0\x05\x03\x01\0\x01"));
        assert_eq!(names(&stripped), Some(stripped.clone()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_or_refused(bytes: Vec<u8>) {
            let mut component = b"\0asm\x0d\0\x01\0".to_vec();
            component.extend(bytes);
            prop_assert!(names(&component).is_none_or(|stripped| stripped.len() <= component.len()));
        }
    }
}
