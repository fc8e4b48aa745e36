//! `syncline:app/secsync`.

use syncline_guest::secsync::service::{self, ServiceRefused};

use crate::bindings::exports::syncline::app::secsync::{Error, Guest};
use crate::{Services, imports};

impl Guest for Services {
    fn document(document_id: String) -> Result<Option<String>, Error> {
        service::document(imports(), &document_id).map_err(Error::from)
    }

    fn send(document_id: String, message: String, session_keys: Option<Vec<String>>) -> Result<(), Error> {
        service::send(imports(), &document_id, &message, session_keys.as_deref()).map_err(Error::from)
    }
}

impl From<ServiceRefused> for Error {
    fn from(refused: ServiceRefused) -> Self {
        match refused {
            ServiceRefused::Invalid(why) => Error::Invalid(why),
            ServiceRefused::Failed(failure) => Error::Unavailable(failure.to_string()),
        }
    }
}
