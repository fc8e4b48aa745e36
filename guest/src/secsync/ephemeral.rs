//! Relaying ephemeral messages (docs/protocols/secsync.md, section 5.3): checked once, composed once, no database.

use super::attachment::Attachment;
use super::deliver;
use super::frames::{Kind, Signed};
use super::policy::Action;
use super::receive::{Denied, permit};
use super::server_messages as messages;
use super::store::Call;
use super::verify;

/// Why an ephemeral message is dropped without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EphemeralMessageDropped {
    /// A field is missing or mistyped.
    #[error("bad shape")]
    Shape,
    /// It names another document than the connection's.
    #[error("it names another document")]
    ForeignDocument,
    /// The session may not send any, and `deny_ephemeral` is `drop`.
    #[error("no access")]
    Denied,
    /// The app did not answer.
    #[error("the app did not answer")]
    App,
    /// The author did not sign it.
    #[error("bad signature")]
    Signature,
}

/// Relays a message to all others on the document.
pub fn relay(call: &Call<'_>, attachment: &Attachment, message: &Signed<'_>) -> Result<Result<(), EphemeralMessageDropped>, Denied> {
    if message.doc_id != attachment.doc_id {
        return Ok(Err(EphemeralMessageDropped::ForeignDocument));
    }
    match permit(call, attachment, Action::SendEphemeralMessage, message) {
        Err(_) if call.settings.drop_denied_ephemeral => return Ok(Err(EphemeralMessageDropped::Denied)),
        permitted if permitted?.is_err() => return Ok(Err(EphemeralMessageDropped::App)),
        _ => {}
    }
    if call.settings.verify_signatures && !verify::is_signed(Kind::EphemeralMessage, message) {
        return Ok(Err(EphemeralMessageDropped::Signature));
    }
    deliver::publish_ephemeral(call, &message.doc_id, messages::ephemeral_message(&message.body()));
    Ok(Ok(()))
}
