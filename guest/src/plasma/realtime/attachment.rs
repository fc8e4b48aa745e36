//! What is kept with a connection, so that any instance can serve it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::live::Live;
use crate::registry::Alarm;

/// Tells this format from those of other versions.
const FORMAT: &[u8] = b"p1";

/// The longest that a stream of changes, or live queries, go without a look of their own, where their credentials end.
const CHANGES_LOOK_MS: u64 = 10_000;

/// How frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Server-sent events.
    Sse,
    /// A WebSocket.
    Ws,
}

impl Transport {
    /// Both.
    pub const ALL: [Transport; 2] = [Transport::Sse, Transport::Ws];

    /// As it appears in topics, groups and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Sse => "sse",
            Transport::Ws => "ws",
        }
    }

    /// From a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transport| transport.name() == name)
    }
}

/// A stream of changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// For whom.
    pub client_group_id: String,
    /// Who that is.
    pub ctx: Map<String, Json>,
    /// Up to where the client is.
    pub cookie: Json,
    /// Bytes sent since the client was last known to have taken most of what was sent.
    #[serde(default)]
    pub unread_bytes: u64,
    /// Whether nothing more is sent until the client is known to have taken most of it.
    #[serde(default)]
    pub waits: bool,
    /// Whether there may be more for it then.
    #[serde(default)]
    pub more: bool,
}

impl Changes {
    /// Nothing was sent yet.
    pub fn new(client_group_id: String, ctx: Map<String, Json>, cookie: Json) -> Self {
        Self { client_group_id, ctx, cookie, unread_bytes: 0, waits: false, more: false }
    }
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// How frames travel.
    pub transport: Transport,
    /// When the credentials end, milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// Set where it gets changes instead of pokes.
    pub changes: Option<Changes>,
    /// Set where it may have live queries.
    #[serde(default)]
    pub live: Option<Live>,
}

impl Attachment {
    /// As the host keeps it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = FORMAT.to_vec();
        // Plain data with text keys always has a JSON form.
        bytes.extend(serde_json::to_vec(self).unwrap_or_default());
        bytes
    }

    /// None: of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes.strip_prefix(FORMAT)?).ok()
    }

    /// Milliseconds until the credentials end.
    pub fn expires_in_ms(&self, now_ms: u64) -> Option<u64> {
        self.expires_at_ms.map(|at| at.saturating_sub(now_ms))
    }

    /// The alarm that stands for the end of the credentials. With changes and live queries it is never far away: a nudge may come
    /// while a call runs, whose outcome then puts this alarm in the place of the nudge's.
    pub fn alarm(&self, now_ms: u64) -> Alarm {
        let looks = self.changes.is_some() || self.live.as_ref().is_some_and(Live::is_on);
        let far_ms = if looks { CHANGES_LOOK_MS } else { u64::MAX };
        self.expires_in_ms(now_ms).map_or(Alarm::Keep, |end_ms| Alarm::AfterMs(end_ms.min(far_ms)))
    }
}
