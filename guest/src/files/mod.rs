//! files: pages, scripts and pictures of a folder of the host, for whoever asks (docs/protocols/files.md).
//!
//! The host gives the files as objects (`folders` of the plan) and reads them; here it is decided which one a path means, and
//! with which headers it goes out. Small ones pass the component and are compressed; large ones are streamed past it.

use std::rc::Rc;

use crate::http::{header, text_response};
use crate::imports::{ConnectionId, Imports, RequestHead};
use crate::registry::{Admission, AdmitAccept, BodyPlan, Mount, Plan, Protocol, Request, Response, Work};

mod answer;
mod plan;
mod settings;
#[cfg(test)]
mod tests;

use settings::Settings;

/// The protocol.
pub struct Files;

impl Protocol for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn check(&self, settings: &str) -> Result<Plan, Vec<String>> {
        Ok(plan::plan(&Settings::parse(settings)?))
    }

    fn configure(&self, _mount: &str, settings: &str, _documents: Vec<(String, Vec<u8>)>) -> Result<Rc<dyn Mount>, String> {
        let settings = Settings::parse(settings).map_err(|problems| problems.join("; "))?;
        Ok(Rc::new(FilesMount { settings }))
    }
}

/// One mount. It keeps nothing.
struct FilesMount {
    settings: Settings,
}

impl Mount for FilesMount {
    fn admit(&self, _imports: Imports<'_>, _connection: ConnectionId, head: RequestHead) -> Admission {
        if matches!(head.method.as_str(), "GET" | "HEAD") {
            return Admission::Accept(AdmitAccept { body: BodyPlan::Inline(0), context: Vec::new(), work: Work::Usual });
        }
        let mut refusal = text_response(405, "method not allowed");
        refusal.headers.push(header("allow", "GET, HEAD"));
        Admission::Refuse(refusal)
    }

    fn handle(&self, imports: Imports<'_>, request: Request) -> Response {
        answer::answer(&self.settings, imports, &request.head)
    }
}
