//! The adapter of one instance: what it was told, and the call that is under way. The rooms beside this one add what it does.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use crate::bindings::exports::syncline::spin::adapter;
use crate::call::Call;
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::ports::Ports;
use crate::redis::Announcer;
use crate::settings::Settings;
use crate::sql::{Answer, Database, Dialect, Error, Run, Value, Write};
use crate::store::tables;

/// What the adapter opened.
pub struct Opened {
    /// As it was told.
    pub settings: Settings,
    /// Where all rows are.
    pub database: Rc<Database>,
    /// Where objects are.
    pub objects: Objects,
    /// Tells Redis of publications.
    pub announcer: Option<Announcer>,
    /// Schemas that are known to be there.
    pub schemas: RefCell<HashSet<String>>,
}

/// See the module.
pub struct Back {
    /// The world.
    pub ports: Rc<Ports>,
    /// Views that the logic holds.
    pub views: Cell<usize>,
    /// Mounts that this instance knows.
    pub mounts: RefCell<BTreeMap<String, adapter::Mount>>,
    /// Of this instance.
    pub metrics: RefCell<Metrics>,
    /// Counts of attempts.
    pub guard: RefCell<Option<Guard>>,
    opened: RefCell<Option<Rc<Opened>>>,
    call: RefCell<Option<Call>>,
    serial: Cell<u64>,
}

impl Back {
    /// An adapter that was not told anything yet.
    pub fn new(ports: Ports) -> Self {
        Self {
            ports: Rc::new(ports),
            views: Cell::new(0),
            mounts: RefCell::default(),
            metrics: RefCell::default(),
            guard: RefCell::default(),
            opened: RefCell::default(),
            call: RefCell::default(),
            serial: Cell::new(0),
        }
    }

    /// Opens what the settings name, and makes the adapter's tables where there are none.
    pub fn open(&self, settings: adapter::Settings) -> Result<(), adapter::Error> {
        let settings = Settings::new(settings).map_err(|error| adapter::Error::Invalid(error.to_string()))?;
        if self.opened.borrow().as_ref().is_some_and(|opened| opened.settings == settings) {
            return Ok(());
        }
        let database = Rc::new(Database::new(Rc::clone(&self.ports), settings.place.clone()));
        tables::prepare(&database).map_err(unavailable)?;
        let objects = Objects::new(&self.ports, &database, &settings);
        let announcer = settings.redis.clone().map(|address| Announcer::new(Rc::clone(&self.ports), address));
        self.guard.replace(Some(Guard::new(Rc::clone(&self.ports), &settings.key_value)));
        let opened = Opened { settings, database, objects, announcer, schemas: RefCell::default() };
        self.opened.replace(Some(Rc::new(opened)));
        Ok(())
    }

    /// What was opened.
    pub fn opened(&self) -> Result<Rc<Opened>, Error> {
        self.opened.borrow().clone().ok_or_else(|| Error::Unavailable("the adapter was not opened".into()))
    }

    /// The same for the front adapter.
    pub fn opened_for_front(&self) -> Result<Rc<Opened>, adapter::Error> {
        self.opened().map_err(unavailable)
    }

    /// Makes a mount known.
    pub fn know(&self, mount: adapter::Mount) {
        self.mounts.borrow_mut().insert(mount.name.clone(), mount);
    }

    /// The names of the mounts that are known.
    pub fn mount_names(&self) -> Vec<String> {
        self.mounts.borrow().keys().cloned().collect()
    }

    /// A call begins. What the one before left open is undone.
    pub fn begin(&self, mount: &str, long: bool) {
        self.give_up();
        let Ok(opened) = self.opened() else { return };
        opened.database.keep(true);
        let transaction_ms = if long { opened.settings.long_ms } else { opened.settings.transaction_ms };
        self.call.replace(Some(Call::new(mount, transaction_ms)));
    }

    /// Undoes what is left of a call that never ended.
    fn give_up(&self) {
        if let Some(root) = self.call.take().and_then(|mut call| call.root.take())
            && let Err(error) = root.undo()
        {
            self.log_own("warn", "what an unfinished call did could not be undone", &[("error", &format!("{error:?}"))]);
        }
        self.views.set(0);
    }

    /// Takes the call that ends.
    pub fn take_call(&self) -> Option<Call> {
        self.call.take()
    }

    /// Works on the call that is under way.
    pub fn with_call<T>(&self, run: impl FnOnce(&Back, &mut Call) -> Result<T, Error>) -> Result<T, Error> {
        let mut call = self.call.borrow_mut();
        match call.as_mut() {
            Some(call) => run(self, call),
            None => Err(Error::Unavailable("no call is under way".into())),
        }
    }

    /// Works on the call where there is one.
    pub fn try_call<T>(&self, run: impl FnOnce(&mut Call) -> T) -> Option<T> {
        self.call.borrow_mut().as_mut().map(run)
    }

    /// Something was aborted.
    pub fn note_abort(&self) {
        self.try_call(Call::abort);
    }

    /// The call can only fail.
    pub fn fail_call(&self, why: String) {
        self.try_call(|call| call.fail(why));
    }

    /// A number that no transaction had.
    pub fn next_serial(&self) -> u64 {
        self.serial.set(self.serial.get() + 1);
        self.serial.get()
    }

    /// Now.
    pub fn now_ms(&self) -> u64 {
        self.ports.clock.now_ms()
    }

    /// Writes something of the adapter's own that lasts, whatever becomes of the call. While a transaction is open SQLite has no
    /// other writer, so there it goes along; `along`: elsewhere too, so that it is seen no sooner than the transaction.
    pub fn write_lasting(&self, call: &mut Call, write: Write, along: bool) -> Result<Answer, Error> {
        let opened = self.opened()?;
        let (template, parameters) = write;
        let done = match &mut call.root {
            Some(root) if along || opened.database.dialect() == Dialect::Sqlite => {
                root.execute_lasting(opened.database.own(template), parameters)
            }
            _ => opened.database.run(template, &parameters),
        };
        call.noted(done)
    }

    /// Reads something of the adapter's own, as this call sees it.
    pub fn read<T>(&self, call: &mut Call, read: impl FnOnce(Run<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let opened = self.opened()?;
        let done = match &mut call.root {
            Some(root) if opened.database.dialect() == Dialect::Sqlite => {
                read(&mut |template: &str, parameters: &[Value]| root.read_own(&opened.database.own(template), parameters))
            }
            _ => read(&mut |template: &str, parameters: &[Value]| opened.database.run(template, parameters)),
        };
        call.noted(done)
    }
}

/// An error of the database, for the front adapter.
pub fn unavailable(error: Error) -> adapter::Error {
    adapter::Error::Unavailable(match error {
        Error::Aborted => "the database is busy".into(),
        Error::Constraint((_, what)) | Error::InvalidStatement(what) | Error::Limit(what) | Error::Unavailable(what) => what,
    })
}
