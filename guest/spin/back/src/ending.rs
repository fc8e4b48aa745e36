//! The end of a call: what it let out is written down, in one transaction, and told.

use std::collections::BTreeMap;

use crate::back::{Back, Opened, unavailable};
use crate::bindings::exports::syncline::host::pubsub::Publication;
use crate::bindings::exports::syncline::spin::adapter;
use crate::call::{Call, Change, Deferred, Effect};
use crate::ports::Request;
use crate::sql::{Error, Link};
use crate::store::{answers, keyvalue, outbox, places, presence, publications};

/// Old rows are removed in one of so many calls that publish.
const CLEANED_EVERY: u64 = 128;
/// The places of gateways that are told of publications; who holds one is a URL.
const WOKEN: &str = "woken";
/// Time for telling one of them.
const WAKE_MS: u64 = 500;

impl Back {
    /// A call ended.
    pub fn end(&self, failed: bool) -> Result<adapter::Ended, adapter::Error> {
        let Some(mut call) = self.take_call() else { return Err(adapter::Error::Unavailable("no call is under way".into())) };
        let opened = self.opened_for_front()?;
        self.views.set(0);
        let ended = self.let_out(&opened, &mut call, failed);
        opened.database.keep(false);
        if ended.as_ref().is_ok_and(|ended| !ended.again) {
            self.leave_guard();
        }
        ended.map_err(unavailable)
    }

    fn let_out(&self, opened: &Opened, call: &mut Call, failed: bool) -> Result<adapter::Ended, Error> {
        let undone = call.root.take().map_or(Ok(()), |root| root.undo());
        let again = call.again();
        let failure = call.failure().map(str::to_owned).or_else(|| again.clone().err());
        let again = again.unwrap_or(false) && call.failure().is_none();
        if again {
            return undone.map(|()| adapter::Ended {
                changes: Vec::new(),
                published: None,
                saw: None,
                again: true,
                refreshed: call.refreshed,
            });
        }
        if failed || failure.is_some() {
            call.keep_only_committed();
        }
        let written = self.write_rest(opened, call);
        if let (Some(announcer), Some(position)) = (&opened.announcer, call.published)
            && let Err(error) = announcer.announce(&call.mount, position)
            && announcer.fails_anew()
        {
            self.log_own("warn", "Redis cannot be told of publications", &[("error", &error)]);
        }
        if call.published.is_some() {
            self.wake_gateways(opened);
        }
        if call.published.is_some() && self.ports.clock.random().is_multiple_of(CLEANED_EVERY) {
            self.clean(opened, &call.mount);
        }
        undone?;
        written?;
        match failure {
            Some(why) => Err(Error::Unavailable(why)),
            None => Ok(adapter::Ended {
                changes: std::mem::take(&mut call.changes).into_iter().map(change).collect(),
                published: call.published,
                saw: call.saw,
                again: false,
                refreshed: call.refreshed,
            }),
        }
    }

    /// Tells gateways that there is something new. They look by themselves too, so nothing rests on it.
    fn wake_gateways(&self, opened: &Opened) {
        let Some(secret) = &opened.settings.gateway_secret else { return };
        let urls = places::holders(&opened.database, WOKEN, self.now_ms()).unwrap_or_else(|error| {
            self.log_own("warn", "gateways cannot be told of publications", &[("error", &error.to_string())]);
            Vec::new()
        });
        for url in urls {
            let authorization = ("authorization".to_owned(), format!("Bearer {}", secret.expose()).into_bytes());
            let (headers, body) = (vec![authorization], Vec::new());
            let request = Request { method: "POST", url: url.clone(), headers, body, timeout_ms: WAKE_MS, answer_bytes_max: None };
            let why = match self.ports.http.send(&request) {
                Ok(reply) if (200..300).contains(&reply.status) => continue,
                Ok(reply) => format!("answered {}", reply.status),
                Err(error) => error,
            };
            self.log_own("warn", "a gateway is not told of publications until it asks for it again", &[("url", &url), ("error", &why)]);
            if let Err(error) = places::release(&opened.database, WOKEN, &url) {
                self.log_own("warn", "a gateway keeps its place", &[("error", &error.to_string())]);
            }
        }
    }

    /// What leaves at the end, in one transaction.
    fn write_rest(&self, opened: &Opened, call: &mut Call) -> Result<(), Error> {
        let shown = presence_changes(opened, &call.mount, &call.changes)?;
        if call.outside.is_empty() && call.deferred.is_empty() && shown.is_empty() {
            return Ok(());
        }
        let (database, now_ms) = (&opened.database, self.now_ms());
        let position = database.write(|link| {
            for write in &shown {
                let write = match write {
                    Shown::Presence(topic, connection, bytes) => presence::show(&call.mount, topic, *connection, bytes, now_ms),
                    Shown::Nothing(topic, connection) => presence::hide(&call.mount, topic, *connection),
                };
                link.run(&database.own(write.0), &write.1)?;
            }
            for deferred in &call.deferred {
                let write = match deferred {
                    Deferred::Set { key, value, time_to_live_ms } => keyvalue::set(&call.mount, key, value, *time_to_live_ms, now_ms),
                    Deferred::Delete { key } => keyvalue::delete(&call.mount, key),
                    Deferred::DeleteObject { .. } => continue,
                };
                link.run(&database.own(write.0), &write.1)?;
            }
            self.write_effects(opened, link, &call.mount, &call.outside)
        })?;
        call.published = position.or(call.published);
        for deferred in &call.deferred {
            if let Deferred::DeleteObject { key } = deferred {
                self.remove_object(opened, &call.mount, key)?;
            }
        }
        Ok(())
    }

    /// Writes what leaves with a transaction into it, right before its commit; the position of its last publication.
    pub fn write_effects(&self, opened: &Opened, link: &dyn Link, mount: &str, effects: &[Effect]) -> Result<Option<u64>, Error> {
        let (database, now_ms) = (&opened.database, self.now_ms());
        for effect in effects {
            if let Effect::Post(post) = effect {
                let (template, parameters) = outbox::keep(mount, post, now_ms);
                link.run(&database.own(template), &parameters)?;
            }
        }
        // Last, for what is published is put in order under a lock.
        let publications: Vec<Publication> = effects
            .iter()
            .filter_map(|effect| if let Effect::Publish(publication) = effect { Some(publication.clone()) } else { None })
            .collect();
        publications::append(database, link, mount, now_ms, &publications)
    }

    /// Removes what is over. What cannot be removed now is the next time.
    pub fn clean(&self, opened: &Opened, mount: &str) {
        let (database, now_ms) = (&opened.database, self.now_ms());
        let removed = publications::remove_old(database, mount, now_ms)
            .and_then(|()| keyvalue::remove_old(database, now_ms))
            .and_then(|()| presence::remove_old(database, now_ms))
            .and_then(|()| places::remove_old(database, now_ms))
            .and_then(|()| answers::remove_old(database, now_ms))
            .and_then(|()| opened.objects.remove_abandoned(now_ms));
        if let Err(error) = removed {
            self.log_own("info", "old rows could not be removed now", &[("error", &format!("{error:?}"))]);
        }
    }
}

/// What becomes of a connection's presence on a topic.
enum Shown<'a> {
    Presence(&'a str, u64, &'a [u8]),
    Nothing(&'a str, u64),
}

/// The rows of presence that changes of subscriptions lead to, in order. Most connections never show anything: for those
/// nothing is written.
fn presence_changes<'a>(opened: &Opened, mount: &str, changes: &'a [Change]) -> Result<Vec<Shown<'a>>, Error> {
    let (mut shown, mut showing) = (Vec::new(), BTreeMap::new());
    for change in changes {
        let (topic, connection) = match change {
            Change::Subscribed(connection, subscription, _) => {
                if let Some(bytes) = &subscription.presence {
                    showing.insert(*connection, true);
                    shown.push(Shown::Presence(&subscription.topic, *connection, bytes));
                    continue;
                }
                (&subscription.topic, *connection)
            }
            Change::Unsubscribed(connection, topic) => (topic, *connection),
        };
        let may_show = match showing.get(&connection) {
            Some(may_show) => *may_show,
            None => presence::is_shown(&opened.database, mount, connection)?,
        };
        showing.insert(connection, may_show);
        if may_show {
            shown.push(Shown::Nothing(topic, connection));
        }
    }
    Ok(shown)
}

fn change(change: Change) -> adapter::Change {
    match change {
        Change::Subscribed(connection, subscription, position) => adapter::Change::Subscribed((connection, subscription, position)),
        Change::Unsubscribed(connection, topic) => adapter::Change::Unsubscribed((connection, topic)),
    }
}
