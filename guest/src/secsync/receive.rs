//! What a connection sends, frame by frame (docs/protocols/secsync.md, sections 4.1, 5 and 7).
//!
//! Invariant: each frame is handled wholly before the next, and each save is a transaction of its own.

use super::attachment::Attachment;
use super::ephemeral::{self, EphemeralMessageDropped};
use super::failure::Failure;
use super::frames::{self, BadFrame, ClientFrame, Kind, Signed, SnapshotFrame, UpdateFrame};
use super::hooks::{self, AppFell};
use super::plan::close;
use super::policy::Action;
use super::server_messages::{self as messages, NO_CODE, POLICY_VIOLATION, RefusedUpdate, TRY_AGAIN_LATER};
use super::snapshot::{self, SnapshotRefused};
use super::store::Call;
use super::update::{self, Decision, UpdateRefused};
use crate::imports::Frame;
use crate::registry::{Connection, Input, Outcome};

/// The session lacks the right for an action: `unauthorized`, then the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no access")]
pub struct Denied;

/// `hasAccess` for a frame. An app that fell has not said no: the frame alone is refused.
pub fn permit(call: &Call<'_>, attachment: &Attachment, action: Action, signed: &Signed<'_>) -> Result<Result<(), AppFell>, Denied> {
    match hooks::has_access(call, action, &attachment.session_key, &attachment.doc_id, Some(&signed.pub_key)) {
        Ok(true) => Ok(Ok(())),
        Ok(false) => Err(Denied),
        Err(fell) => Ok(Err(fell)),
    }
}

/// What becomes of a frame.
#[derive(Debug)]
enum Handled {
    Reply(String),
    Silence,
    Unauthorized,
    Bad(BadFrame),
    PutOff(u64),
}

/// Handles what a connection sent, in order.
pub fn receive(call: &Call<'_>, connection: &Connection, inputs: &[Input]) -> Outcome {
    let mut outcome = Outcome::default();
    if connection.failure.is_some() {
        // The call failed elsewhere, perhaps after a commit: the delta of a new connection tells the client what holds.
        outcome.close = Some(close(TRY_AGAIN_LATER));
        return outcome;
    }
    let Some(before) = Attachment::decode(&connection.attachment) else {
        call.log_failure("attachment", &Failure::Transient("of another version".into()));
        outcome.close = Some(close(TRY_AGAIN_LATER));
        return outcome;
    };
    let mut attachment = before.clone();
    for (index, input) in inputs.iter().enumerate() {
        // Alarms, pages and tasks are not asked for.
        let Input::Frame(frame) = input else { continue };
        let handled = handle(call, &mut attachment, frame);
        if !matches!(handled, Ok(Handled::Bad(_))) {
            attachment.bad_frames = 0;
        }
        match handled {
            Ok(Handled::Reply(reply)) => outcome.send.push(messages::frame(reply)),
            Ok(Handled::Silence) => {}
            Ok(Handled::Unauthorized) => {
                outcome.send.push(messages::frame(messages::UNAUTHORIZED));
                outcome.close = Some(close(NO_CODE));
            }
            Ok(Handled::Bad(why)) => {
                call.log_refusal(&attachment.doc_id, "frame", &why);
                attachment.bad_frames = attachment.bad_frames.saturating_add(1);
                if call.settings.max_bad_frames > 0 && attachment.bad_frames >= call.settings.max_bad_frames {
                    outcome.close = Some(close(POLICY_VIOLATION));
                }
            }
            Ok(Handled::PutOff(delay_ms)) => {
                outcome.defer = Some((u32::try_from(index).unwrap_or(u32::MAX), delay_ms));
                break;
            }
            Err(failure) => {
                call.log_failure("frame", &failure);
                outcome.close = Some(close(failure.close_code()));
            }
        }
        if outcome.close.is_some() {
            break;
        }
    }
    if attachment != before {
        outcome.attachment = Some(attachment.encode());
    }
    outcome
}

fn handle(call: &Call<'_>, attachment: &mut Attachment, frame: &Frame) -> Result<Handled, Failure> {
    let text = match frame {
        Frame::Text(text) => text.as_str(),
        Frame::Binary(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(_) => return Ok(Handled::Bad(BadFrame::NotUtf8)),
        },
    };
    let mut frame = match frames::parse(text) {
        Ok(frame) => frame,
        Err(bad) => return Ok(Handled::Bad(bad)),
    };
    let echo = RefusedUpdate::of(&frame.public_data);
    match hooks::public_data(call, attachment, frame.kind, std::mem::take(&mut frame.public_data)) {
        Ok(public_data) => frame.public_data = public_data,
        Err(_) => return Ok(bad_shape(call, attachment, frame.kind, &echo)),
    }
    match frame.kind {
        Kind::Snapshot => handle_snapshot(call, attachment, frame),
        Kind::Update => handle_update(call, attachment, frame, &echo),
        Kind::EphemeralMessage => Ok(handle_ephemeral_message(call, attachment, frame)),
    }
}

/// The answer to a frame that lacks something, or has it in another shape.
fn bad_shape(call: &Call<'_>, attachment: &Attachment, kind: Kind, echo: &RefusedUpdate) -> Handled {
    match kind {
        Kind::Snapshot => refused_snapshot(call, attachment, SnapshotRefused::Shape),
        Kind::Update => {
            call.log_refusal(&attachment.doc_id, "update", &UpdateRefused::Shape);
            Handled::Reply(echo.update_save_failed(false))
        }
        Kind::EphemeralMessage => dropped(call, attachment, EphemeralMessageDropped::Shape),
    }
}

fn refused_snapshot(call: &Call<'_>, attachment: &Attachment, why: SnapshotRefused) -> Handled {
    call.log_refusal(&attachment.doc_id, "snapshot", &why);
    Handled::Reply(messages::SNAPSHOT_SAVE_FAILED.to_owned())
}

fn handle_snapshot(call: &Call<'_>, attachment: &Attachment, frame: ClientFrame<'_>) -> Result<Handled, Failure> {
    let Ok(snapshot) = SnapshotFrame::read(frame, call.settings) else {
        return Ok(refused_snapshot(call, attachment, SnapshotRefused::Shape));
    };
    match snapshot::check(call, attachment, &snapshot) {
        Err(denied) => Ok(unauthorized(call, attachment, "snapshot", denied)),
        Ok(Err(refused)) => Ok(refused_snapshot(call, attachment, refused)),
        Ok(Ok(())) => {
            let (reply, refused) = snapshot::save(call, attachment, &snapshot)?;
            match refused {
                Some(why) => call.log_refusal(&attachment.doc_id, "snapshot", &why),
                None => call.log_debug(&attachment.doc_id, "snapshot-saved"),
            }
            Ok(Handled::Reply(reply))
        }
    }
}

fn handle_update(call: &Call<'_>, attachment: &mut Attachment, frame: ClientFrame<'_>, echo: &RefusedUpdate) -> Result<Handled, Failure> {
    let Ok(update) = UpdateFrame::read(frame, call.settings) else { return Ok(bad_shape(call, attachment, Kind::Update, echo)) };
    let decision = match update::check(call, attachment, &update) {
        Err(denied) => return Ok(unauthorized(call, attachment, "update", denied)),
        Ok(Err(refused)) => Decision::Refuse(refused),
        Ok(Ok(())) => update::save(call, attachment, &update)?,
    };
    let (pub_key, ref_snapshot_id, clock) = (&update.signed.pub_key, &update.ref_snapshot_id, update.clock);
    match decision {
        Decision::Save | Decision::AlreadySaved => {
            attachment.accepted(pub_key, ref_snapshot_id);
            call.log_debug(&attachment.doc_id, "update-saved");
            Ok(Handled::Reply(messages::update_saved(ref_snapshot_id, clock)))
        }
        Decision::PutOff(delay_ms) => Ok(Handled::PutOff(delay_ms)),
        Decision::Refuse(why) => {
            call.log_refusal(&attachment.doc_id, "update", &why);
            let follows_refused = attachment.refused(pub_key, ref_snapshot_id, clock);
            if why == UpdateRefused::NewSnapshotRequired {
                return Ok(Handled::Reply(echo.update_save_failed(true)));
            }
            let quiet = follows_refused && call.settings.quiet_pipelined_refusals;
            Ok(if quiet { Handled::Silence } else { Handled::Reply(echo.update_save_failed(false)) })
        }
    }
}

fn handle_ephemeral_message(call: &Call<'_>, attachment: &Attachment, frame: ClientFrame<'_>) -> Handled {
    let relayed = match frames::read_ephemeral_message(frame, call.settings) {
        Ok(message) => ephemeral::relay(call, attachment, &message),
        Err(_) => Ok(Err(EphemeralMessageDropped::Shape)),
    };
    match relayed {
        Err(denied) => unauthorized(call, attachment, "ephemeral message", denied),
        Ok(Err(why)) => dropped(call, attachment, why),
        Ok(Ok(())) => Handled::Silence,
    }
}

fn dropped(call: &Call<'_>, attachment: &Attachment, why: EphemeralMessageDropped) -> Handled {
    call.log_refusal(&attachment.doc_id, "ephemeral message", &why);
    Handled::Silence
}

fn unauthorized(call: &Call<'_>, attachment: &Attachment, what: &str, denied: Denied) -> Handled {
    call.log_refusal(&attachment.doc_id, what, &denied);
    Handled::Unauthorized
}
