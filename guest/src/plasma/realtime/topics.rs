//! Topics, and what is published on them.
//!
//! | topic | who listens | what comes |
//! | --- | --- | --- |
//! | `plasma/v/sse`, `plasma/v/ws` | connections that are poked | the encoded poke |
//! | `plasma/v/throttled` | the same, where pokes are coalesced | the version |
//! | `plasma/v/changes` | streams of changes | the version |
//! | `plasma/v/live` | connections with live queries | the version and the tables that it changed |
//! | `plasma/cg/sse/<clientGroupID>`, `plasma/cg/ws/<clientGroupID>` | connections of the group that are poked | that there is more to pull |
//! | `plasma/alone/sse/<userId>`, `plasma/alone/ws/<userId>` | those of the user that named no group | the same |
//! | `plasma/waiting/cg/<clientGroupID>` | pulls of the group that wait | word that it was forgotten |
//! | `plasma/waiting/user/<userId>` | pulls of the user that wait | word that its credentials were revoked |
//! | `plasma/user/sse/<userId>`, `plasma/user/ws/<userId>` | every connection of the user, so that it can be found | the end of its credentials |

use super::attachment::Transport;
use super::events;
use super::live::{self, live_topic};
use crate::imports::{Class, Level, Order, Publication};
use crate::plasma::Call;
use crate::plasma::cookie::Cookie;
use crate::plasma::plan::{close, code};
use crate::plasma::settings::{Poke, Settings};

/// The row of versions: every publication about a version has its place in it.
pub const ORDER_KEY: &str = "v";

impl Call<'_> {
    /// The topic of pokes for a transport, encoded.
    pub fn poke_topic(&self, transport: Transport) -> String {
        poke_topic(self.settings, transport)
    }

    /// The topic of pokes that are coalesced.
    pub fn throttled_topic(&self) -> String {
        throttled_topic(self.settings)
    }

    /// The topic of streams of changes.
    pub fn changes_topic(&self) -> String {
        changes_topic(self.settings)
    }
}

fn poke_topic(settings: &Settings, transport: Transport) -> String {
    format!("{}/{}", settings.on_pushed.topic, transport.name())
}

fn throttled_topic(settings: &Settings) -> String {
    format!("{}/throttled", settings.on_pushed.topic)
}

fn changes_topic(settings: &Settings) -> String {
    format!("{}/changes", settings.on_pushed.topic)
}

/// The topics on which a version is told that nobody announced.
pub fn watched(settings: &Settings) -> Vec<String> {
    let Some(poke) = &settings.poke else { return Vec::new() };
    let mut topics = vec![live_topic(settings)];
    if settings.on_pushed.poke {
        match poke.coalesce_ms {
            0 => topics.extend(Transport::ALL.map(|transport| poke_topic(settings, transport))),
            _ => topics.push(throttled_topic(settings)),
        }
        if poke.data_mode {
            topics.push(changes_topic(settings));
        }
    }
    topics
}

/// The topic of what concerns the poked connections of a client group, of one transport.
pub fn group_topic(transport: Transport, client_group_id: &str) -> String {
    format!("plasma/cg/{}/{client_group_id}", transport.name())
}

/// The topic of what concerns the poked connections of a user that named no client group, of one transport.
pub fn alone_topic(transport: Transport, user_id: &str) -> String {
    format!("plasma/alone/{}/{user_id}", transport.name())
}

/// The topic by which connections of a user are found, of one transport.
pub fn user_topic(transport: Transport, user_id: &str) -> String {
    format!("plasma/user/{}/{user_id}", transport.name())
}

/// The topic that wakes pulls of a client group that wait.
pub fn waiting_group_topic(client_group_id: &str) -> String {
    format!("plasma/waiting/cg/{client_group_id}")
}

/// The topic that wakes pulls of a user that wait.
pub fn waiting_user_topic(user_id: &str) -> String {
    format!("plasma/waiting/user/{user_id}")
}

/// Wakes the requests that wait on a topic: they look by themselves.
fn wake(call: &Call<'_>, topic: String) {
    tell(call, topic, "look".into());
}

/// How many connections a user has.
pub fn connection_count(call: &Call<'_>, user_id: &str) -> usize {
    Transport::ALL.into_iter().map(|transport| call.imports.pubsub.members(&user_topic(transport, user_id)).len()).sum()
}

/// Tells everybody that a version is there. Of those that wait for a reader only the newest is sent.
pub fn publish_pokes(call: &Call<'_>, version: u64) {
    let Some(settings) = &call.settings.poke else { return };
    for poke in pokes(call, settings, version) {
        call.imports.pubsub.publish(poke);
    }
    call.count("plasma_pokes_total", &[], 1.0);
}

fn pokes(call: &Call<'_>, poke: &Poke, version: u64) -> Vec<Publication> {
    let publication = |topic: String, message: String| Publication {
        topic,
        message: message.into_bytes(),
        order: Some(Order { key: ORDER_KEY.into(), after: version.saturating_sub(1), sequence: version }),
        class: Class::Latest("poke".into()),
        except: None,
        close: None,
    };
    let mut pokes = match poke.coalesce_ms {
        0 => Transport::ALL.map(|transport| publication(call.poke_topic(transport), events::poke(transport, version))).into(),
        _ => vec![publication(call.throttled_topic(), version.to_string())],
    };
    if poke.data_mode {
        pokes.push(publication(call.changes_topic(), version.to_string()));
    }
    pokes
}

/// What there is to be told of the present, if it is beyond a version; 0: in any case.
pub fn refill(call: &Call<'_>, key: &str, after: u64) -> Vec<Publication> {
    let Some(poke) = call.settings.poke.as_ref().filter(|_| key == ORDER_KEY) else { return Vec::new() };
    let version = match call.engine.version(call.imports) {
        Ok(version) => version,
        Err(failure) => {
            let fields = serde_json::json!({"problem": failure.to_string()}).to_string();
            call.imports.effects.log(Level::Debug, "plasma: the version could not be read; it is looked at again", &fields);
            return Vec::new();
        }
    };
    if version == 0 || version <= after {
        return Vec::new();
    }
    let pokes = if call.settings.on_pushed.poke { pokes(call, poke, version) } else { Vec::new() };
    // In the row of versions, so that whoever asks knows how far it was answered.
    let order = Some(Order { key: ORDER_KEY.into(), after: version - 1, sequence: version });
    let look = Publication { order, class: Class::Latest("look".into()), ..live::publication(call, version, None) };
    std::iter::once(look).chain(pokes).collect()
}

/// Tells the connections of a client group that there is a next page; where this process has none, those of the user that named no
/// group. An unmodified client would not ask for it by itself. Streams of changes page by themselves, and do not pull.
pub fn more_to_pull(call: &Call<'_>, user_id: &str, client_group_id: &str, cookie: &Cookie) {
    let version = cookie.version();
    let is_here = |transport| !call.imports.pubsub.members(&group_topic(transport, client_group_id)).is_empty();
    let is_alone = !Transport::ALL.into_iter().any(is_here);
    for transport in Transport::ALL {
        let more = || events::more(transport, version);
        tell(call, group_topic(transport, client_group_id), more());
        if is_alone {
            tell(call, alone_topic(transport, user_id), more());
        }
    }
}

/// Has the connections of a client group, and its pulls that wait, look again.
pub fn poke_group(call: &Call<'_>, client_group_id: &str, version: u64) {
    if call.settings.poke.is_some() {
        for transport in Transport::ALL {
            tell(call, group_topic(transport, client_group_id), events::poke(transport, version));
        }
        tell(call, call.changes_topic(), version.to_string());
    }
    wake(call, waiting_group_topic(client_group_id));
}

/// Publishes without a place in the row of versions: there is no new one.
fn tell(call: &Call<'_>, topic: String, message: String) {
    call.imports.pubsub.publish(Publication {
        topic,
        message: message.into_bytes(),
        order: None,
        class: Class::Latest("look".into()),
        except: None,
        close: None,
    });
}

/// Ends every connection of a user, and has its pulls that wait look again. A stream has no close code: an event says why.
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
    wake(call, waiting_user_topic(user_id));
}
