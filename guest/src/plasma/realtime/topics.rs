//! Topics, and what is published on them.
//!
//! | topic | who listens | what comes |
//! | --- | --- | --- |
//! | `plasma/v/sse`, `plasma/v/ws` | connections that are poked | the encoded poke |
//! | `plasma/v/throttled` | the same, where pokes are coalesced | the version |
//! | `plasma/v/changes` | streams of changes | the version |
//! | `plasma/v/live` | connections with live queries | the version and the tables that it changed |
//! | `plasma/cg/<clientGroupID>` | every connection of the group, so that it can be found | nothing |
//! | `plasma/user/sse/<userId>`, `plasma/user/ws/<userId>` | every connection of the user, so that it can be found | the end of its credentials |

use super::attachment::Transport;
use super::events;
use crate::imports::{Class, Frame, Member, Order, Publication};
use crate::plasma::Call;
use crate::plasma::cookie::Cookie;
use crate::plasma::plan::{close, code};

/// The row of versions: every publication about a version has its place in it.
pub const ORDER_KEY: &str = "v";

/// What a connection shows of itself: its transport, and whether it named a client group or gets changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// How frames travel.
    pub transport: Transport,
    /// Whether it named a client group.
    pub of_group: bool,
    /// Whether it gets changes instead of pokes.
    pub of_changes: bool,
}

impl Presence {
    /// As the host keeps it.
    pub fn encode(self) -> Vec<u8> {
        let flag = |set: bool, letter: char| if set { letter.to_string() } else { String::new() };
        format!("{} {}{}", self.transport.name(), flag(self.of_group, 'g'), flag(self.of_changes, 'c')).into_bytes()
    }

    fn of(member: &Member) -> Option<Self> {
        let (transport, flags) = std::str::from_utf8(&member.presence).ok()?.split_once(' ')?;
        Some(Self { transport: Transport::named(transport)?, of_group: flags.contains('g'), of_changes: flags.contains('c') })
    }
}

impl Call<'_> {
    /// The topic of pokes for a transport, encoded.
    pub fn poke_topic(&self, transport: Transport) -> String {
        format!("{}/{}", self.settings.on_pushed.topic, transport.name())
    }

    /// The topic of pokes that are coalesced.
    pub fn throttled_topic(&self) -> String {
        format!("{}/throttled", self.settings.on_pushed.topic)
    }

    /// The topic of streams of changes.
    pub fn changes_topic(&self) -> String {
        format!("{}/changes", self.settings.on_pushed.topic)
    }
}

/// The topic by which connections of a client group are found.
pub fn group_topic(client_group_id: &str) -> String {
    format!("plasma/cg/{client_group_id}")
}

/// The topic by which connections of a user are found, of one transport.
pub fn user_topic(transport: Transport, user_id: &str) -> String {
    format!("plasma/user/{}/{user_id}", transport.name())
}

/// How many connections a user has.
pub fn connection_count(call: &Call<'_>, user_id: &str) -> usize {
    Transport::ALL.into_iter().map(|transport| call.imports.pubsub.members(&user_topic(transport, user_id)).len()).sum()
}

/// Tells everybody that a version is there. Of those that wait for a reader only the newest is sent.
pub fn publish_pokes(call: &Call<'_>, version: u64) {
    let Some(poke) = &call.settings.poke else { return };
    let publish = |topic: String, message: String| {
        call.imports.pubsub.publish(Publication {
            topic,
            message: message.into_bytes(),
            order: Some(Order { key: ORDER_KEY.into(), after: version.saturating_sub(1), sequence: version }),
            class: Class::Latest("poke".into()),
            except: None,
            close: None,
        });
    };
    if poke.coalesce_ms > 0 {
        publish(call.throttled_topic(), version.to_string());
    } else {
        for transport in Transport::ALL {
            publish(call.poke_topic(transport), events::poke(transport, version));
        }
    }
    if poke.data_mode {
        publish(call.changes_topic(), version.to_string());
    }
    call.count("plasma_pokes_total", &[], 1.0);
}

/// Tells the connections of a client group that there is a next page; where there are none, those of the user that named no
/// group. An unmodified client would not ask for it by itself.
pub fn more_to_pull(call: &Call<'_>, user_id: &str, client_group_id: &str, cookie: &Cookie) {
    let version = match cookie {
        Cookie::Null => 0,
        Cookie::Version(version) => *version,
        Cookie::Loading(loading) => loading.v,
    };
    // Streams of changes page by themselves, and do not pull: they are nobody who could be told.
    let poked = |topic: &str| members(call, topic).into_iter().filter(|(_, presence)| !presence.of_changes);
    let mut found: Vec<_> = poked(&group_topic(client_group_id)).collect();
    if found.is_empty() {
        let of_user = Transport::ALL.into_iter().flat_map(|transport| poked(&user_topic(transport, user_id)));
        found = of_user.filter(|(_, presence)| !presence.of_group).collect();
    }
    for (connection, presence) in found {
        call.imports.pubsub.send(connection, events::more(presence.transport, version));
    }
}

/// Has the connections of a client group look again.
pub fn poke_group(call: &Call<'_>, client_group_id: &str, version: u64) {
    for (connection, presence) in members(call, &group_topic(client_group_id)) {
        if !presence.of_changes {
            call.imports.pubsub.send(connection, Frame::Text(events::poke(presence.transport, version)));
        }
    }
    if call.settings.poke.is_some() {
        // Without a place in the row of versions: there is no new one.
        call.imports.pubsub.publish(Publication {
            topic: call.changes_topic(),
            message: version.to_string().into_bytes(),
            order: None,
            class: Class::Latest("look".into()),
            except: None,
            close: None,
        });
    }
}

/// Ends every connection of a user. A stream has no close code: an event says why.
pub fn revoke(call: &Call<'_>, user_id: &str) {
    for transport in Transport::ALL {
        let message = if transport == Transport::Sse { events::unauthorized().into_bytes() } else { Vec::new() };
        call.imports.pubsub.publish(Publication {
            topic: user_topic(transport, user_id),
            message,
            order: None,
            class: Class::MustDeliver,
            except: None,
            close: Some(close(code::UNAUTHORIZED)),
        });
    }
}

fn members(call: &Call<'_>, topic: &str) -> Vec<(u64, Presence)> {
    let members = call.imports.pubsub.members(topic);
    members.iter().filter_map(|member| Some((member.connection, Presence::of(member)?))).collect()
}
