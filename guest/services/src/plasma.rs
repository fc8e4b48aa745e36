//! `syncline:app/plasma`.

use syncline_guest::plasma::server_db::WriteRefused;
use syncline_guest::plasma::service::Service;

use crate::bindings::exports::syncline::app::plasma::{Denial, Error, Guest, Written};
use crate::{Services, imports};

impl Guest for Services {
    fn query(query: String, parameters: String) -> Result<String, Error> {
        Ok(Service::of(imports())?.query(&query, &parameters)?)
    }

    fn get(table: String, key: String) -> Result<Option<String>, Error> {
        Ok(Service::of(imports())?.get(&table, &key)?)
    }

    fn insert(table: String, row: String) -> Result<(), Error> {
        Ok(Service::of(imports())?.insert(&table, &row)?)
    }

    fn upsert(table: String, row: String) -> Result<(), Error> {
        Ok(Service::of(imports())?.upsert(&table, &row)?)
    }

    fn update(table: String, key: String, set: String) -> Result<(), Error> {
        Ok(Service::of(imports())?.update(&table, &key, &set)?)
    }

    fn delete(table: String, key: String) -> Result<(), Error> {
        Ok(Service::of(imports())?.delete(&table, &key)?)
    }

    fn write(as_context: Option<String>, operations: String) -> Result<Written, Error> {
        let written = Service::of(imports())?.write(as_context.as_deref(), &operations)?;
        Ok(Written { version: written.version, changed: written.changed })
    }
}

impl From<WriteRefused> for Error {
    fn from(refused: WriteRefused) -> Self {
        match refused {
            WriteRefused::Authorization { table, action } => Error::Authorization(Denial { table, action: action.name().into() }),
            WriteRefused::Invalid(why) => Error::Invalid(why),
            WriteRefused::Failure(failure) => Error::Unavailable(failure.to_string()),
        }
    }
}
