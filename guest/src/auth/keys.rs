//! Keys that verify signatures: shared secrets, PEM, JWK and sets of them.

use ed25519_dalek::pkcs8::DecodePublicKey as _;
use ed25519_dalek::{Signature as EdSignature, VerifyingKey as EdKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature as EcSignature, VerifyingKey as EcKey};
use rsa::pkcs1::DecodeRsaPublicKey as _;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, Pkcs1v15Sign, RsaPublicKey};
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};

use super::jwt::Algorithm;
use crate::encoding::{base64url_array, base64url_decode};

/// DER of `DigestInfo` before a SHA-256 (RFC 8017, section 9.2).
const SHA256_PREFIX: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];
/// A shorter modulus can be factored.
const RSA_BITS_MIN: usize = 2048;

/// A key of one algorithm.
#[derive(Clone)]
enum Key {
    Secret(Vec<u8>),
    Rsa(RsaPublicKey),
    P256(EcKey),
    Ed25519(EdKey),
}

/// Keys, some with an id.
#[derive(Clone, Default)]
pub struct Keys(Vec<(Option<String>, Key)>);

impl std::fmt::Debug for Keys {
    /// Secrets are never shown.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} keys", self.0.len())
    }
}

impl Keys {
    /// The key of the settings: PEM or (for HS256) the secret itself as text, a JWK, or a set of them.
    pub fn of_settings(value: &Json, algorithm: Algorithm) -> Result<Self, String> {
        let keys = match value {
            Json::String(secret) if algorithm == Algorithm::Hs256 => {
                if secret.is_empty() {
                    return Err("must not be empty".into());
                }
                vec![(None, Key::Secret(secret.clone().into_bytes()))]
            }
            Json::String(pem) => vec![(None, of_pem(pem, algorithm)?)],
            Json::Object(map) if map.contains_key("keys") => return Self::of_set(value, algorithm),
            Json::Object(jwk) => {
                let key = of_jwk(jwk, algorithm).ok_or_else(|| format!("is no JWK for {}", algorithm.name()))?;
                vec![(key_id(jwk), key)]
            }
            _ => return Err("must be PEM, a secret, a JWK or a set of JWKs".into()),
        };
        Ok(Self(keys))
    }

    /// A JWK set (RFC 7517). Keys for another use or algorithm are passed over; there must be one left.
    pub fn of_set(set: &Json, algorithm: Algorithm) -> Result<Self, String> {
        let listed = set.get("keys").and_then(Json::as_array).ok_or("is no JWK set")?;
        let usable = |jwk: &Map<String, Json>| jwk.get("use").is_none_or(|of| of == "sig");
        let keys = listed.iter().filter_map(Json::as_object).filter(|jwk| usable(jwk));
        let keys: Vec<_> = keys.filter_map(|jwk| Some((key_id(jwk), of_jwk(jwk, algorithm)?))).collect();
        if keys.is_empty() { Err(format!("holds no key for {}", algorithm.name())) } else { Ok(Self(keys)) }
    }

    /// Whether a signature over `message` is good, by the keys with this id; by any, where neither it nor they name one.
    /// None: no key can be meant.
    pub fn verify(&self, key_id: Option<&str>, message: &[u8], signature: &[u8]) -> Option<bool> {
        let meant = |id: &Option<String>| match (id.as_deref(), key_id) {
            (Some(id), Some(wanted)) => id == wanted,
            _ => true,
        };
        let mut keys = self.0.iter().filter(|(id, _)| meant(id)).map(|(_, key)| key).peekable();
        keys.peek()?;
        Some(keys.any(|key| key.verifies(message, signature)))
    }
}

impl Keys {
    /// Bytes of the shortest shared secret among them.
    pub fn shortest_secret_bytes(&self) -> Option<usize> {
        let bytes = |(_, key): &(Option<String>, Key)| if let Key::Secret(secret) = key { Some(secret.len()) } else { None };
        self.0.iter().filter_map(bytes).min()
    }
}

impl Key {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Key::Secret(secret) => {
                Hmac::<Sha256>::new_from_slice(secret).is_ok_and(|mac| mac.chain_update(message).verify_slice(signature).is_ok())
            }
            Key::Rsa(key) => {
                let scheme = Pkcs1v15Sign { hash_len: Some(32), prefix: SHA256_PREFIX.into() };
                key.verify(scheme, &Sha256::digest(message), signature).is_ok()
            }
            Key::P256(key) => EcSignature::from_slice(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Key::Ed25519(key) => EdSignature::from_slice(signature).is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}

fn key_id(jwk: &Map<String, Json>) -> Option<String> {
    jwk.get("kid")?.as_str().map(str::to_owned)
}

fn of_pem(pem: &str, algorithm: Algorithm) -> Result<Key, String> {
    let pem = pem.trim();
    let key = match algorithm {
        Algorithm::Hs256 => None,
        Algorithm::Rs256 => RsaPublicKey::from_public_key_pem(pem).ok().or_else(|| RsaPublicKey::from_pkcs1_pem(pem).ok()).and_then(strong),
        Algorithm::Es256 => EcKey::from_public_key_pem(pem).ok().map(Key::P256),
        Algorithm::EdDsa => EdKey::from_public_key_pem(pem).ok().map(Key::Ed25519),
    };
    key.ok_or_else(|| format!("is no public key for {} in PEM (RSA keys have {RSA_BITS_MIN} bits or more)", algorithm.name()))
}

fn strong(key: RsaPublicKey) -> Option<Key> {
    (key.size() * 8 >= RSA_BITS_MIN).then_some(Key::Rsa(key))
}

/// A JWK as a key of this algorithm; none where it is for another.
fn of_jwk(jwk: &Map<String, Json>, algorithm: Algorithm) -> Option<Key> {
    if jwk.get("alg").is_some_and(|of| of != algorithm.name()) {
        return None;
    }
    let text = |name: &str| jwk.get(name).and_then(Json::as_str);
    let bytes = |name: &str| text(name).and_then(base64url_decode);
    match (algorithm, text("kty")?) {
        (Algorithm::Hs256, "oct") => bytes("k").filter(|secret| !secret.is_empty()).map(Key::Secret),
        (Algorithm::Rs256, "RSA") => {
            let number = |name| bytes(name).map(|bytes| BigUint::from_bytes_be(&bytes));
            RsaPublicKey::new(number("n")?, number("e")?).ok().and_then(strong)
        }
        (Algorithm::Es256, "EC") if text("crv") == Some("P-256") => {
            let point = [&[4][..], &bytes("x")?, &bytes("y")?].concat();
            EcKey::from_sec1_bytes(&point).ok().map(Key::P256)
        }
        (Algorithm::EdDsa, "OKP") if text("crv") == Some("Ed25519") => {
            EdKey::from_bytes(&base64url_array(text("x")?)?).ok().map(Key::Ed25519)
        }
        _ => None,
    }
}
