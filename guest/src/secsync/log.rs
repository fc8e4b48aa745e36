//! What is written to the log: refusals at `error`, what was saved at `debug`, failures of the server always
//! (docs/protocols/secsync.md, section 10). Never a ciphertext, never a session key.

use serde_json::json;

use super::failure::Failure;
use super::settings::Logging;
use super::store::Call;
use crate::imports::Level;

impl Call<'_> {
    /// A refusal that the client is told, or not even told.
    pub fn log_refusal(&self, doc_id: &str, what: &str, why: &dyn std::fmt::Display) {
        if self.settings.logging >= Logging::Error {
            let fields = json!({"docId": doc_id, "connection": self.connection, "what": what, "why": why.to_string()});
            self.imports.effects.log(Level::Error, "refused", &fields.to_string());
        }
    }

    /// Something that went well.
    pub fn log_debug(&self, doc_id: &str, what: &str) {
        if self.settings.logging >= Logging::Debug {
            let fields = json!({"docId": doc_id, "connection": self.connection, "what": what});
            self.imports.effects.log(Level::Debug, "done", &fields.to_string());
        }
    }

    /// A failure that ends a connection or a step of a job. An aborted transaction is none: the host tries again.
    pub fn log_failure(&self, what: &str, failure: &Failure) {
        let level = match failure {
            Failure::Aborted => return,
            Failure::Transient(_) => Level::Warn,
            Failure::Unexpected(_) => Level::Error,
        };
        let fields = json!({"connection": self.connection, "what": what, "why": failure.to_string()});
        self.imports.effects.log(level, "failed", &fields.to_string());
    }
}
