//! From a publication to the bytes that one stream gets of it.

use crate::bindings::syncline::host::pubsub::{Class, Mode, Publication};
use crate::bindings::syncline::sync::socket::{Deliveries, Group, GroupOutcome, Part, Template};
use crate::front::Front;
use crate::log::{Level, log};
use crate::ports::Clock;

use super::waiting::Arrival;
use super::{Stream, bytes_of};

impl<C: Clock> Front<C> {
    /// Brings a publication to a stream that listens to it.
    pub(super) async fn deliver(&self, stream: &mut Stream<'_>, arrival: Arrival) {
        let Arrival { publication, calls_before } = arrival;
        let Some(subscription) = stream.request.listening.subscription(&publication.topic).cloned() else { return };
        let is_only_a_close = publication.message.is_empty() && publication.close.is_some();
        match subscription.mode {
            _ if is_only_a_close => {}
            Mode::ForwardText if std::str::from_utf8(&publication.message).is_err() => {
                log(Level::Error, Some(&stream.request.mount.name), "a publication that is not UTF-8 was not sent as text", "");
            }
            Mode::ForwardText | Mode::ForwardBinary => stream.write(&publication.message),
            Mode::Deliver | Mode::DeliverByCursor => {
                let by_cursor = subscription.mode == Mode::DeliverByCursor;
                let group = Group { name: subscription.group, cursor: subscription.cursor.filter(|_| by_cursor) };
                match self.deliveries(stream, &publication, group).await {
                    Some(deliveries) => {
                        let is_quiet = stream.calls == calls_before && stream.has_room();
                        self.fill(stream, &publication.topic, &deliveries, by_cursor, is_quiet);
                    }
                    None if publication.class == Class::MustDeliver => stream.close_now(stream.request.mount.plan.closes.failed.clone()),
                    None => {}
                }
            }
        }
        if let Some(close) = publication.close {
            stream.close(close);
        }
    }

    async fn deliveries(&self, stream: &mut Stream<'_>, publication: &Publication, group: Group) -> Option<Deliveries> {
        let mount = stream.request.mount;
        let groups = [group];
        let called = self.call(mount, |logic| logic.deliver(&mount.name, publication, &groups)).await.ok()?;
        Some(called.answer)
    }

    /// Does what the logic said of the stream's group. `is_quiet`: no call of the stream may know more than this.
    fn fill(&self, stream: &mut Stream<'_>, topic: &str, deliveries: &Deliveries, by_cursor: bool, is_quiet: bool) {
        match deliveries.outcomes.first() {
            None | Some(GroupOutcome::Skip) => {}
            Some(GroupOutcome::Send(indexes)) => {
                let templates = indexes.iter().filter_map(|index| deliveries.frames.get(usize::try_from(*index).ok()?));
                if by_cursor {
                    self.send_by_cursor(stream, topic, templates, is_quiet);
                } else {
                    self.send_each(stream, topic, templates);
                }
            }
            Some(GroupOutcome::Advance(_)) if by_cursor && !is_quiet => stream.alarm_within(0, self.clock.now_ms()),
            Some(GroupOutcome::Advance(cursor)) => {
                let current = stream.cursor(topic).unwrap_or(0);
                stream.request.listening.set_cursor(topic, current.max(*cursor));
            }
            Some(GroupOutcome::Leave(last)) => {
                stream.request.listening.unsubscribe(topic);
                stream.waiting.unsubscribed(topic);
                if let Some((frame, close)) = last.clone() {
                    stream.write(bytes_of(&frame));
                    stream.close(close);
                }
            }
        }
    }

    fn send_each<'d>(&self, stream: &mut Stream<'_>, topic: &str, templates: impl Iterator<Item = &'d Template>) {
        for template in templates {
            let cursor = stream.cursor(topic);
            if let Some(after) = template.cursor_after {
                if cursor.is_some_and(|cursor| cursor >= after) {
                    continue;
                }
                stream.request.listening.set_cursor(topic, after);
            }
            if let Some(delay_ms) = template.alarm_after_ms {
                stream.alarm_within(delay_ms, self.clock.now_ms());
            }
            stream.write_template(template, cursor);
        }
    }

    /// All of the frames and the cursor, or nothing: then the stream's alarm has it look for itself.
    fn send_by_cursor<'d>(&self, stream: &mut Stream<'_>, topic: &str, templates: impl Iterator<Item = &'d Template>, is_quiet: bool) {
        let cursor = stream.cursor(topic);
        let is_new = |template: &&Template| cursor.zip(template.cursor_after).is_none_or(|(cursor, after)| cursor < after);
        let templates: Vec<&Template> = templates.filter(is_new).collect();
        let alarm_ms = templates.iter().filter_map(|template| template.alarm_after_ms).min();
        if !is_quiet {
            return stream.alarm_within(alarm_ms.unwrap_or(0), self.clock.now_ms());
        }
        for template in &templates {
            stream.write_template(template, cursor);
        }
        if let Some(after) = templates.iter().filter_map(|template| template.cursor_after).max() {
            stream.request.listening.set_cursor(topic, after);
        }
        if let Some(delay_ms) = alarm_ms {
            stream.alarm_within(delay_ms, self.clock.now_ms());
        }
    }
}

impl Stream<'_> {
    fn cursor(&self, topic: &str) -> Option<u64> {
        self.request.listening.subscription(topic)?.cursor
    }

    /// Writes the frame of a template for a cursor.
    fn write_template(&mut self, template: &Template, cursor: Option<u64>) {
        let mut bytes = Vec::new();
        for part in &template.parts {
            match part {
                Part::Bytes(some) => bytes.extend_from_slice(some),
                Part::CursorDecimal => bytes.extend_from_slice(cursor.unwrap_or(0).to_string().as_bytes()),
                Part::CursorVarint => push_varint(&mut bytes, cursor.unwrap_or(0)),
            }
        }
        if !template.binary && std::str::from_utf8(&bytes).is_err() {
            return log(Level::Error, Some(&self.request.mount.name), "a frame that is not UTF-8 was not sent as text", "");
        }
        self.write(&bytes);
    }
}

/// A number as unsigned LEB128.
fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}
