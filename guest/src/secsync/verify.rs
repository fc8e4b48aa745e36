//! What can be checked without the key: shapes, hashes, signatures, parent proofs (docs/protocols/secsync.md, sections 3 and 9).

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

use super::frames::{Kind, Signed, push_json_text};
use crate::encoding::{base64url, base64url_array, base64url_decode};

/// Commitment tag and AEAD tag: no ciphertext is shorter.
const CIPHERTEXT_BYTES_MIN: usize = 48;

/// Whether a text is strict base64 of exactly `N` bytes.
pub fn is_base64_of<const N: usize>(text: &str) -> bool {
    base64url_array::<N>(text).is_some()
}

/// Whether key, nonce, signature and ciphertext have the lengths of section 3.
pub fn has_well_formed_fields(signed: &Signed<'_>) -> bool {
    is_base64_of::<32>(&signed.pub_key)
        && is_base64_of::<24>(&signed.nonce)
        && is_base64_of::<64>(&signed.signature)
        && base64url_decode(&signed.ciphertext).is_some_and(|bytes| bytes.len() >= CIPHERTEXT_BYTES_MIN)
}

/// BLAKE2b with 32 bytes of output, as base64. For a ciphertext it is taken over its base64 text.
pub fn hash(text: &str) -> String {
    base64url(Blake2b::<U32>::digest(text))
}

/// Whether the author signed a frame. Small-order and non-canonical keys, such an R, and S >= L are refused.
pub fn is_signed(kind: Kind, signed: &Signed<'_>) -> bool {
    let Some(pub_key) = base64url_array::<32>(&signed.pub_key).filter(is_canonical_point) else { return false };
    let Some(signature) = base64url_array::<64>(&signed.signature) else { return false };
    let Ok(verifying_key) = VerifyingKey::from_bytes(&pub_key) else { return false };
    verifies_strictly(&verifying_key, signed_text(kind, signed).as_bytes(), &Signature::from_bytes(&signature))
}

/// What `VerifyingKey::verify_strict` says, without its decompression of R, a tenth of the work: that R is a canonical
/// point is known once it has the very bytes of the point that was computed.
fn verifies_strictly(verifying_key: &VerifyingKey, message: &[u8], signature: &Signature) -> bool {
    !verifying_key.is_weak() && !is_small_order(signature.r_bytes()) && verifying_key.verify(message, signature).is_ok()
}

/// Whether the encoding of a point is that of one of the eight points of small order, the sign aside. Non-canonical
/// encodings need not be known here: no computed R has one.
fn is_small_order(encoded: &[u8; 32]) -> bool {
    const ORDER_1: [u8; 32] = y(1, 0, 0);
    const ORDER_2: [u8; 32] = y(0xec, 0xff, 0x7f);
    const ORDER_4: [u8; 32] = y(0, 0, 0);
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3,
            0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c,
            0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    const fn y(lowest: u8, middle: u8, highest: u8) -> [u8; 32] {
        let mut bytes = [middle; 32];
        bytes[0] = lowest;
        bytes[31] = highest;
        bytes
    }
    let mut unsigned = *encoded;
    unsigned[31] &= 0x7f;
    [ORDER_1, ORDER_2, ORDER_4, ORDER_8[0], ORDER_8[1]].contains(&unsigned)
}

/// The context, then canonical JSON of ciphertext, nonce and the base64 of the canonical public data.
fn signed_text(kind: Kind, signed: &Signed<'_>) -> String {
    let mut text = String::with_capacity(signed.ciphertext.len() + signed.nonce.len() + signed.public_json.len() * 4 / 3 + 128);
    text.push_str(kind.signature_context());
    text.push_str(r#"{"ciphertext":"#);
    push_json_text(&mut text, &signed.ciphertext);
    text.push_str(r#","nonce":"#);
    push_json_text(&mut text, &signed.nonce);
    text.push_str(r#","publicData":""#);
    text.push_str(&base64url(&signed.public_json));
    text.push_str(r#""}"#);
    text
}

/// Whether the y coordinate of an encoded point is below 2^255 - 19.
fn is_canonical_point(encoded: &[u8; 32]) -> bool {
    let [lowest, middle @ .., highest] = encoded;
    *lowest < 0xed || highest & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

/// `parentSnapshotProof` of a child of a snapshot (section 3.4). All three are empty for a first snapshot.
pub fn parent_snapshot_proof(grand_parent_snapshot_proof: &str, parent_snapshot_ciphertext_hash: &str, parent_snapshot_id: &str) -> String {
    let mut text = String::from(r#"{"grandParentSnapshotProof":"#);
    push_json_text(&mut text, grand_parent_snapshot_proof);
    text.push_str(r#","parentSnapshotCiphertextHash":"#);
    push_json_text(&mut text, parent_snapshot_ciphertext_hash);
    text.push_str(r#","parentSnapshotId":"#);
    push_json_text(&mut text, parent_snapshot_id);
    text.push('}');
    hash(&text)
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use curve25519_dalek::edwards::EdwardsPoint;
    use curve25519_dalek::scalar::Scalar;
    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha512};

    use super::*;

    /// A signature whose R and key have parts of small order, right but for those: where strict and lenient checks differ.
    fn with_torsion(seed: u8, message: &[u8], of_key: usize, of_r: usize, secret: bool, nonce: bool) -> ([u8; 32], [u8; 64]) {
        let scalar = |label: u8, used: bool| if used { Scalar::hash_from_bytes::<Sha512>(&[seed, label]) } else { Scalar::ZERO };
        let (secret, nonce) = (scalar(0, secret), scalar(1, nonce));
        let key = (EdwardsPoint::mul_base(&secret) + EIGHT_TORSION[of_key]).compress();
        let r = (EdwardsPoint::mul_base(&nonce) + EIGHT_TORSION[of_r]).compress();
        let hash = Sha512::new().chain_update(r.as_bytes()).chain_update(key.as_bytes()).chain_update(message);
        let s = nonce + Scalar::from_hash(hash) * secret;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(r.as_bytes());
        signature[32..].copy_from_slice(s.as_bytes());
        (key.to_bytes(), signature)
    }

    fn agrees(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        let Ok(key) = VerifyingKey::from_bytes(key) else { return false };
        let strict = key.verify_strict(message, &signature).is_ok();
        assert_eq!(verifies_strictly(&key, message, &signature), strict, "{key:?} {signature:?}");
        strict
    }

    #[test]
    fn the_points_of_small_order_are_known_by_their_encodings() {
        for point in EIGHT_TORSION {
            assert!(is_small_order(point.compress().as_bytes()));
        }
        assert!(!is_small_order(EdwardsPoint::mul_base(&Scalar::ONE).compress().as_bytes()));
    }

    #[test]
    fn signatures_with_parts_of_small_order_are_judged_as_by_the_strict_check() {
        let mut accepted = 0;
        for message in 0..16 {
            for (of_key, of_r) in (0..8).flat_map(|of_key| (0..8).map(move |of_r| (of_key, of_r))) {
                for (secret, nonce) in [(true, true), (true, false), (false, true), (false, false)] {
                    let (key, signature) = with_torsion(message, &[message], of_key, of_r, secret, nonce);
                    accepted += u32::from(agrees(&key, &[message], &signature));
                }
            }
        }
        assert!(accepted >= 16, "those without such parts are right");
    }

    proptest! {
        #[test]
        fn broken_signatures_are_judged_as_by_the_strict_check(seed: [u8; 32], message: Vec<u8>, at in 0..96_usize, flip: u8) {
            let signing_key = SigningKey::from_bytes(&seed);
            let (mut key, mut signature) = (signing_key.verifying_key().to_bytes(), signing_key.sign(&message).to_bytes());
            match at.checked_sub(64) {
                None => signature[at] ^= flip,
                Some(at) => key[at] ^= flip,
            }
            let right = agrees(&key, &message, &signature);
            prop_assert_eq!(right, flip == 0);
        }
    }
}
