//! Publications that the component encodes: pokes at most every `poke.coalesceMs` per connection, and nudges for streams of changes.
//!
//! The cursor of a coalesced subscription holds the version that was told last, and in its highest bit whether the pause after
//! it still runs. In the pause nothing is sent; at its end, which is an alarm, the connection looks at the version itself. It
//! looks once more a pause later, since a publication that came during the first look was still judged by the old cursor.

use super::attachment::{Attachment, Transport};
use super::events::{self, NUDGE};
use crate::contract::exports::syncline::sync::socket::{GroupOutcome, Part, Template};
use crate::imports::{Frame, Level, Publication};
use crate::plasma::Call;
use crate::registry::{Alarm, Connection, Deliveries, Group, Outcome};

/// Set in a cursor while the pause runs.
const PAUSE: u64 = 1 << 62;

/// Encodes a publication for the groups that listen.
pub fn deliver(call: &Call<'_>, publication: &Publication, groups: &[Group]) -> Deliveries {
    let skip = || Deliveries { frames: Vec::new(), outcomes: groups.iter().map(|_| GroupOutcome::Skip).collect() };
    if publication.topic == call.changes_topic() {
        let nudge = text_template(NUDGE.into(), None, Some(0));
        return Deliveries { frames: vec![nudge], outcomes: groups.iter().map(|_| GroupOutcome::Send(vec![0])).collect() };
    }
    let version = std::str::from_utf8(&publication.message).ok().and_then(|text| text.parse::<u64>().ok());
    match (version, pause_ms(call)) {
        (Some(version), Some(pause_ms)) => pokes(version, pause_ms, groups),
        _ => skip(),
    }
}

fn pause_ms(call: &Call<'_>) -> Option<u64> {
    call.settings.poke.as_ref().map(|poke| poke.coalesce_ms).filter(|pause_ms| *pause_ms > 0)
}

fn pokes(version: u64, pause_ms: u64, groups: &[Group]) -> Deliveries {
    let encode = |transport| text_template(events::poke(transport, version), Some(version | PAUSE), Some(pause_ms));
    let outcome = |group: &Group| {
        let index = Transport::ALL.iter().position(|transport| transport.name() == group.name);
        let cursor = group.cursor.unwrap_or(0);
        match index.and_then(|index| u32::try_from(index).ok()) {
            Some(index) if cursor & PAUSE == 0 && cursor < version => GroupOutcome::Send(vec![index]),
            _ => GroupOutcome::Skip,
        }
    };
    Deliveries { frames: Transport::ALL.map(encode).into(), outcomes: groups.iter().map(outcome).collect() }
}

fn text_template(text: String, cursor_after: Option<u64>, alarm_after_ms: Option<u64>) -> Template {
    Template { binary: false, parts: vec![Part::Bytes(text.into_bytes())], cursor_after, alarm_after_ms }
}

/// The pause of a connection is over.
pub fn wake(call: &Call<'_>, connection: &Connection, attachment: &Attachment, outcome: &mut Outcome) {
    let topic = call.throttled_topic();
    let Some(pause_ms) = pause_ms(call) else { return };
    let Some((_, cursor)) = connection.cursors.iter().find(|(name, _)| *name == topic) else { return };
    let (told, paused) = (cursor & !PAUSE, cursor & PAUSE != 0);
    let version = match call.engine.version(call.imports) {
        Ok(version) => version,
        Err(failure) => {
            let fields = serde_json::json!({"problem": failure.to_string()}).to_string();
            call.imports.effects.log(Level::Warn, "plasma: the version could not be read; the connection looks again", &fields);
            set_alarm(call, attachment, outcome, pause_ms);
            return;
        }
    };
    if version > told {
        outcome.send.push(Frame::Text(events::poke(attachment.transport, version)));
        outcome.cursors.push((topic, version | PAUSE));
    } else if paused {
        outcome.cursors.push((topic, told));
    } else {
        return;
    }
    set_alarm(call, attachment, outcome, pause_ms);
}

/// The alarm goes off after the pause, or earlier where the credentials end.
fn set_alarm(call: &Call<'_>, attachment: &Attachment, outcome: &mut Outcome, pause_ms: u64) {
    let end_ms = attachment.expires_in_ms(call.imports.now_ms);
    outcome.alarm = Alarm::AfterMs(end_ms.map_or(pause_ms, |end_ms| end_ms.min(pause_ms)));
}
