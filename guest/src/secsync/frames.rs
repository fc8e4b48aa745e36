//! Frames from clients (docs/protocols/secsync.md, sections 3.1, 4.1 and 7).
//!
//! Three steps: [`parse`] finds out what a frame wants to be, [`SnapshotFrame::read`] and its siblings check its shape and
//! give typed fields, `verify.rs` checks what is signed. Large texts stay borrowed from the frame.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::settings::Settings;
use super::verify;

/// Longer ids cannot be keys of every database (PostgreSQL's index entries end at 2704 bytes).
pub const ID_BYTES_MAX: usize = 2000;
/// Real keys have 43 bytes; this holds where shapes are not checked.
const PUB_KEY_BYTES_MAX: usize = 500;

/// Whether every database can hold a text as a key of so many bytes.
pub fn is_key_text(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.contains('\0')
}

/// What a frame is, by its `publicData`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has a `snapshotId`.
    Snapshot,
    /// It has a `refSnapshotId`.
    Update,
    /// It has neither.
    EphemeralMessage,
}

impl Kind {
    /// What precedes the signed text of this kind (section 3.3).
    pub fn signature_context(self) -> &'static str {
        match self {
            Self::Snapshot => "secsync_snapshot",
            Self::Update => "secsync_update",
            Self::EphemeralMessage => "secsync_ephemeral_message",
        }
    }

    /// Its name for apps.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Update => "update",
            Self::EphemeralMessage => "ephemeral-message",
        }
    }

    fn base_fields(self) -> &'static [&'static str] {
        match self {
            Self::Snapshot => &["docId", "pubKey", "snapshotId", "parentSnapshotId", "parentSnapshotProof", "parentSnapshotUpdateClocks"],
            Self::Update => &["docId", "pubKey", "refSnapshotId", "clock"],
            Self::EphemeralMessage => &["docId", "pubKey"],
        }
    }
}

/// Why a frame is ignored; these are counted towards `max_bad_frames`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// A binary frame that is no text.
    #[error("not UTF-8")]
    NotUtf8,
    /// No JSON object.
    #[error("not a JSON object")]
    NotAnObject,
    /// `publicData` is missing, no object, or nested too deeply.
    #[error("no usable publicData")]
    NoPublicData,
}

/// A frame does not have the shape of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field is missing or mistyped")]
pub struct BadShape;

/// A frame whose `publicData` is an object; nothing else is known of it yet.
#[derive(Debug)]
pub struct ClientFrame<'a> {
    /// What it wants to be.
    pub kind: Kind,
    /// All fields as sent.
    pub public_data: Map<String, Value>,
    ciphertext: Option<&'a RawValue>,
    nonce: Option<&'a RawValue>,
    signature: Option<&'a RawValue>,
    additional_server_data: Option<&'a RawValue>,
}

/// Reads a frame as far as its kind.
pub fn parse(text: &str) -> Result<ClientFrame<'_>, BadFrame> {
    let top: TopLevel<'_> = serde_json::from_str(text).map_err(|_| BadFrame::NotAnObject)?;
    let public_data: Map<String, Value> =
        top.public_data.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or(BadFrame::NoPublicData)?;
    let kind = if is_truthy(public_data.get("snapshotId")) {
        Kind::Snapshot
    } else if is_truthy(public_data.get("refSnapshotId")) {
        Kind::Update
    } else {
        Kind::EphemeralMessage
    };
    let TopLevel { ciphertext, nonce, signature, additional_server_data, .. } = top;
    Ok(ClientFrame { kind, public_data, ciphertext, nonce, signature, additional_server_data })
}

/// As JavaScript sees it.
fn is_truthy(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(value)) => *value,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(_) | Value::Object(_)) => true,
    }
}

/// What all three kinds consist of, with `publicData` cut to the known fields and canonical.
#[derive(Debug)]
pub struct Signed<'a> {
    /// `docId`.
    pub doc_id: String,
    /// `pubKey` of the author.
    pub pub_key: String,
    /// `ciphertext`, base64.
    pub ciphertext: Cow<'a, str>,
    /// `nonce`, base64.
    pub nonce: Cow<'a, str>,
    /// `signature`, base64.
    pub signature: Cow<'a, str>,
    /// Canonical JSON of `publicData`: what is signed, stored and relayed.
    pub public_json: String,
}

impl Signed<'_> {
    /// The JSON object that is stored and relayed: ciphertext, nonce, publicData, signature.
    pub fn body(&self) -> String {
        let length = self.ciphertext.len() + self.nonce.len() + self.public_json.len() + self.signature.len();
        let mut body = String::with_capacity(length + 64);
        body.push_str(r#"{"ciphertext":"#);
        push_json_text(&mut body, &self.ciphertext);
        body.push_str(r#","nonce":"#);
        push_json_text(&mut body, &self.nonce);
        body.push_str(r#","publicData":"#);
        body.push_str(&self.public_json);
        body.push_str(r#","signature":"#);
        push_json_text(&mut body, &self.signature);
        body.push('}');
        body
    }
}

/// Appends a text as JSON, escaped as canonical JSON escapes it.
pub fn push_json_text(out: &mut String, text: &str) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::String(text.to_owned()).to_string());
    }
}

/// A snapshot of the right shape.
#[derive(Debug)]
pub struct SnapshotFrame<'a> {
    /// What is signed.
    pub signed: Signed<'a>,
    /// `snapshotId`, not empty.
    pub snapshot_id: String,
    /// `parentSnapshotId`; empty for a first snapshot.
    pub parent_snapshot_id: String,
    /// `parentSnapshotProof`.
    pub parent_snapshot_proof: String,
    /// `parentSnapshotUpdateClocks`.
    pub parent_snapshot_update_clocks: BTreeMap<String, f64>,
    /// `additionalServerData`, JSON text: for the server only, never sent to a client.
    pub additional_server_data: Option<&'a str>,
}

impl<'a> SnapshotFrame<'a> {
    /// Checks and types a frame.
    pub fn read(frame: ClientFrame<'a>, settings: &Settings) -> Result<Self, BadShape> {
        let additional_server_data = frame.additional_server_data.map(RawValue::get);
        let (signed, public_data) = read_signed(frame, settings)?;
        let snapshot_id = text_field(&public_data, "snapshotId")?;
        let parent_snapshot_id = text_field(&public_data, "parentSnapshotId")?;
        let parent_snapshot_proof = text_field(&public_data, "parentSnapshotProof")?;
        let clocks = public_data.get("parentSnapshotUpdateClocks").and_then(clocks).ok_or(BadShape)?;
        if settings.verify_shape && !verify::is_base64_of::<32>(&parent_snapshot_proof) {
            return Err(BadShape);
        }
        if !is_key_text(&snapshot_id, ID_BYTES_MAX) || !is_key_text(&parent_snapshot_id, ID_BYTES_MAX) {
            return Err(BadShape);
        }
        Ok(Self {
            signed,
            snapshot_id,
            parent_snapshot_id,
            parent_snapshot_proof,
            parent_snapshot_update_clocks: clocks,
            additional_server_data,
        })
    }
}

/// An update of the right shape.
#[derive(Debug)]
pub struct UpdateFrame<'a> {
    /// What is signed.
    pub signed: Signed<'a>,
    /// `refSnapshotId`, not empty.
    pub ref_snapshot_id: String,
    /// `clock`, below 2^53.
    pub clock: u64,
}

impl<'a> UpdateFrame<'a> {
    /// Checks and types a frame.
    pub fn read(frame: ClientFrame<'a>, settings: &Settings) -> Result<Self, BadShape> {
        let (signed, public_data) = read_signed(frame, settings)?;
        let ref_snapshot_id = text_field(&public_data, "refSnapshotId")?;
        if !is_key_text(&ref_snapshot_id, ID_BYTES_MAX) {
            return Err(BadShape);
        }
        let clock = public_data.get("clock").and_then(Value::as_f64).and_then(integer_clock).ok_or(BadShape)?;
        Ok(Self { signed, ref_snapshot_id, clock })
    }
}

/// An ephemeral message of the right shape.
pub fn read_ephemeral_message<'a>(frame: ClientFrame<'a>, settings: &Settings) -> Result<Signed<'a>, BadShape> {
    Ok(read_signed(frame, settings)?.0)
}

/// A clock as JavaScript has it: an integer from 0 to 2^53 - 1, however it was written.
pub fn integer_clock(number: f64) -> Option<u64> {
    const SAFE_MAX: f64 = 9_007_199_254_740_991.0;
    (number.fract() == 0.0 && (0.0..=SAFE_MAX).contains(&number)).then_some(number as u64)
}

/// An object of numbers; none if it is anything else.
pub fn clocks(value: &Value) -> Option<BTreeMap<String, f64>> {
    value.as_object()?.iter().map(|(author, clock)| Some((author.clone(), clock.as_f64()?))).collect()
}

fn read_signed<'a>(frame: ClientFrame<'a>, settings: &Settings) -> Result<(Signed<'a>, Map<String, Value>), BadShape> {
    let mut public_data = frame.public_data;
    if !settings.schemas.of(frame.kind).apply(frame.kind.base_fields(), &mut public_data) {
        return Err(BadShape);
    }
    let signed = Signed {
        doc_id: text_field(&public_data, "docId")?,
        pub_key: text_field(&public_data, "pubKey")?,
        ciphertext: raw_text(frame.ciphertext)?,
        nonce: raw_text(frame.nonce)?,
        signature: raw_text(frame.signature)?,
        public_json: serde_json_canonicalizer::to_string(&public_data).map_err(|_| BadShape)?,
    };
    let well_formed = !settings.verify_shape || verify::has_well_formed_fields(&signed);
    if !well_formed || !is_key_text(&signed.pub_key, PUB_KEY_BYTES_MAX) {
        return Err(BadShape);
    }
    Ok((signed, public_data))
}

fn text_field(public_data: &Map<String, Value>, name: &str) -> Result<String, BadShape> {
    match public_data.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(BadShape),
    }
}

fn raw_text(raw: Option<&RawValue>) -> Result<Cow<'_, str>, BadShape> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let text: Text<'_> = serde_json::from_str(raw.ok_or(BadShape)?.get()).map_err(|_| BadShape)?;
    Ok(text.0)
}

/// The keys of a frame that matter; of a repeated key the last one counts, as in JavaScript.
#[derive(Default)]
struct TopLevel<'a> {
    ciphertext: Option<&'a RawValue>,
    nonce: Option<&'a RawValue>,
    signature: Option<&'a RawValue>,
    public_data: Option<&'a RawValue>,
    additional_server_data: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for TopLevel<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevelVisitor;
        impl<'de> Visitor<'de> for TopLevelVisitor {
            type Value = TopLevel<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut top = TopLevel::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "ciphertext" => top.ciphertext = Some(map.next_value()?),
                        "nonce" => top.nonce = Some(map.next_value()?),
                        "signature" => top.signature = Some(map.next_value()?),
                        "publicData" => top.public_data = Some(map.next_value()?),
                        "additionalServerData" => top.additional_server_data = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(top)
            }
        }
        deserializer.deserialize_map(TopLevelVisitor)
    }
}
