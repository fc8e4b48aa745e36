//! `syncline:host/executor`: databases of the logic in the one database, and the transactions of a call.

mod names;
mod transaction;

pub use transaction::Root;

use crate::back::{Back, Opened};
use crate::call::Call;
use crate::sql::{DatabaseInfo, Dialect, Error, Limits, Link, Reader, RowSet, Statement, row_set};
use crate::store::publications;

/// Rows of a result, where the caller names no limit of its own.
const ROWS_MAX: u32 = 100_000;
/// Bytes of a result.
const RESULT_BYTES_MAX: u64 = 16 << 20;
/// Bytes of the results of one batch together.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Views that a call may hold at the same time.
const SNAPSHOTS_MAX: usize = 4;
/// How long a writer waits for its turn, in milliseconds.
const TURN_MS_MAX: u64 = 4_000;
/// How long a view may stay open, in milliseconds.
const SNAPSHOT_MS_MAX: u64 = 300_000;
/// Longer names are no names.
const NAME_BYTES_MAX: usize = 1024;

const LIMITS: Limits = Limits { rows_max: ROWS_MAX, bytes_max: RESULT_BYTES_MAX };

/// A transaction that the logic holds: that of the call, or a savepoint in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    serial: u64,
    savepoint: Option<u32>,
}

/// A view that the logic holds.
pub struct View {
    reader: Reader,
    until_ms: u64,
}

impl Back {
    /// Dialect and prefix of a database.
    pub fn describe(&self, name: &str) -> Result<DatabaseInfo, Error> {
        self.with_call(|_, call| {
            check_name(name)?;
            let opened = self.opened()?;
            let dialect = opened.database.dialect();
            let table_prefix = match dialect {
                Dialect::Sqlite => names::table_prefix(&call.mount, name),
                // Names of indexes cannot have one there; the schema is in the search path.
                Dialect::Postgres => String::new(),
            };
            Ok(DatabaseInfo { dialect, table_prefix })
        })
    }

    /// Opens a view of now.
    pub fn open_view(&self, name: &str) -> Result<View, Error> {
        self.with_call(|back, call| {
            check_name(name)?;
            if call.root.is_some() {
                return Err(Error::InvalidStatement("a snapshot cannot be opened within a transaction of the same call".into()));
            }
            if back.views.get() >= SNAPSHOTS_MAX {
                return Err(Error::Limit(format!("more than {SNAPSHOTS_MAX} snapshots at the same time")));
            }
            let opened = back.opened()?;
            let schema = back.schema(&opened, &call.mount, name)?;
            let reader = call.noted(opened.database.reader(schema.as_deref()))?;
            let newest = reader.link().and_then(|link| publications::newest(&opened.database, link, &call.mount));
            call.saw = Some(call.noted(newest)?);
            back.views.set(back.views.get() + 1);
            Ok(View { reader, until_ms: back.now_ms() + SNAPSHOT_MS_MAX })
        })
    }

    /// Reads in a view.
    pub fn query(&self, view: &View, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, Error> {
        if self.now_ms() > view.until_ms {
            return Err(Error::Limit("time of an open snapshot".into()));
        }
        // One more tells whether there are more.
        let rows_max = row_limit.unwrap_or(ROWS_MAX).saturating_add(1);
        let found = view.reader.link().and_then(|link| link.read_foreign(statement, rows_max));
        if found == Err(Error::Aborted) {
            self.note_abort();
        }
        row_set(&found?, row_limit, LIMITS)
    }

    /// A view is not needed any more.
    pub fn close_view(&self, view: View) {
        drop(view);
        self.views.set(self.views.get().saturating_sub(1));
    }

    /// Begins the transaction of the call, or a savepoint in it.
    pub fn begin_transaction(&self, name: &str) -> Result<Handle, Error> {
        self.with_call(|back, call| {
            check_name(name)?;
            call.check()?;
            if let Some(root) = &mut call.root {
                if root.name != name {
                    return Err(second_database(&root.name));
                }
                let (serial, done) = (root.serial, root.savepoint(back.now_ms()));
                return call.noted(done).map(|savepoint| Handle { serial, savepoint: Some(savepoint) });
            }
            if let Some(written) = call.written.as_deref().filter(|written| *written != name) {
                return Err(second_database(written));
            }
            let begun = back.begin_root(call, name);
            let (root, newest) = call.noted(begun)?;
            call.saw = Some(newest);
            let serial = root.serial;
            (call.root, call.written) = (Some(root), Some(name.to_owned()));
            Ok(Handle { serial, savepoint: None })
        })
    }

    /// Begins, and finds the newest position that it sees: whatever writes the same comes after it.
    fn begin_root(&self, call: &Call, name: &str) -> Result<(Root, u64), Error> {
        let opened = self.opened()?;
        let schema = self.schema(&opened, &call.mount, name)?;
        let link = opened.database.take()?;
        opened.database.begin(&*link)?;
        if let Some(schema) = &schema
            && let Err(error) = take_turn(&*link, schema, name, call.transaction_ms)
        {
            opened.database.undo(link);
            return Err(error);
        }
        let newest = match publications::newest(&opened.database, &*link, &call.mount) {
            Ok(newest) => newest,
            Err(error) => {
                opened.database.undo(link);
                return Err(error);
            }
        };
        let until_ms = self.now_ms().saturating_add(call.transaction_ms);
        Ok((Root::begin(opened.database.clone(), link, self.next_serial(), name, until_ms)?, newest))
    }

    /// The schema of a database in PostgreSQL, made where there is none.
    fn schema(&self, opened: &Opened, mount: &str, name: &str) -> Result<Option<String>, Error> {
        if opened.database.dialect() == Dialect::Sqlite {
            return Ok(None);
        }
        let schema = names::schema(mount, name);
        if opened.schemas.borrow().contains(&schema) {
            return Ok(Some(schema));
        }
        let there = opened.database.run("SELECT 1 FROM pg_namespace WHERE nspname = ?", &[schema.as_str().into()])?;
        if there.rows.is_empty() {
            opened.database.write(|link| {
                let key = names::lock_key(&schema, name);
                link.run("SELECT CAST(pg_advisory_xact_lock($1) AS text)", &[key.into()])?;
                link.run(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"), &[])?;
                // By which our own host knows its schemas.
                link.run(&format!("COMMENT ON SCHEMA {schema} IS 'syncline format 1: {schema}'"), &[])
            })?;
        }
        opened.schemas.borrow_mut().insert(schema.clone());
        Ok(Some(schema))
    }

    /// Runs statements of a transaction, up to the first that fails.
    pub fn execute(&self, handle: Handle, statements: &[Statement]) -> Result<Vec<RowSet>, Error> {
        self.with_root(handle, |back, root| {
            let (mut sets, mut bytes) = (Vec::with_capacity(statements.len()), 0);
            for statement in statements {
                let set = row_set(&root.execute(statement, back.now_ms())?, None, LIMITS)?;
                bytes += set.cells.len();
                if bytes > BATCH_BYTES_MAX {
                    return Err(Error::Limit("size of the results of a batch".into()));
                }
                sets.push(set);
            }
            Ok(sets)
        })
    }

    /// Sets a savepoint.
    pub fn savepoint(&self, handle: Handle) -> Result<u32, Error> {
        self.with_root(handle, |back, root| root.savepoint(back.now_ms()))
    }

    /// Forgets one.
    pub fn release(&self, handle: Handle, savepoint: u32) -> Result<(), Error> {
        self.with_root(handle, |back, root| root.release(savepoint, back.now_ms()))
    }

    /// Goes back to one.
    pub fn rollback_to(&self, handle: Handle, savepoint: u32) -> Result<(), Error> {
        self.with_root(handle, |_, root| root.rollback_to(savepoint))
    }

    /// Ends a transaction well.
    pub fn commit(&self, handle: Handle) -> Result<(), Error> {
        if let Some(savepoint) = handle.savepoint {
            return self.release(handle, savepoint);
        }
        self.with_call(|back, call| {
            let Some(root) = call.root.take_if(|root| root.serial == handle.serial) else { return Err(not_open()) };
            let done = back.commit_root(call, root);
            call.noted(done)
        })
    }

    fn commit_root(&self, call: &mut Call, mut root: Root) -> Result<(), Error> {
        if let Err(error) = call.check() {
            root.undo()?;
            return Err(error);
        }
        let opened = self.opened()?;
        let effects = std::mem::take(&mut root.effects);
        let written = self.write_effects(&opened, root.link(), &call.mount, &effects);
        let position = match written {
            Ok(position) => position,
            Err(error) => {
                root.undo()?;
                return Err(error);
            }
        };
        root.commit(self.now_ms())?;
        call.committed(position);
        Ok(())
    }

    /// The logic lets go of a transaction: what it did since is undone, unless it was committed.
    pub fn drop_transaction(&self, handle: Handle) {
        let undone = match handle.savepoint {
            Some(savepoint) => self.rollback_to(handle, savepoint).and_then(|()| self.release(handle, savepoint)),
            None => self.with_call(|_, call| match call.root.take_if(|root| root.serial == handle.serial) {
                Some(root) => root.undo(),
                None => Ok(()),
            }),
        };
        match undone {
            // It was committed, or the transaction around it ended before it.
            Ok(()) | Err(Error::InvalidStatement(_)) => {}
            Err(error) => self.fail_call(format!("a transaction could not be undone: {error:?}")),
        }
    }

    fn with_root<T>(&self, handle: Handle, run: impl FnOnce(&Back, &mut Root) -> Result<T, Error>) -> Result<T, Error> {
        self.with_call(|back, call| {
            let Some(root) = call.root.as_mut().filter(|root| root.serial == handle.serial) else { return Err(not_open()) };
            let done = run(back, root);
            call.noted(done)
        })
    }
}

/// Becomes the only writer of a database in PostgreSQL, with its names in the search path.
fn take_turn(link: &dyn Link, schema: &str, name: &str, transaction_ms: u64) -> Result<(), Error> {
    let key = names::lock_key(schema, name);
    let idle_ms = transaction_ms.saturating_add(TURN_MS_MAX).min(i32::MAX.cast_unsigned().into());
    let statement_ms = transaction_ms.clamp(1, i32::MAX.cast_unsigned().into());
    let sql = "SELECT set_config('search_path', $1, true), set_config('syncline.writer', $2, true), set_config('lock_timeout', $3, true), \
               set_config('idle_in_transaction_session_timeout', $4, true), set_config('statement_timeout', $5, true), \
               CAST(pg_advisory_xact_lock($6) AS text)";
    let parameters = [
        schema.into(),
        key.to_string().into(),
        TURN_MS_MAX.to_string().into(),
        idle_ms.to_string().into(),
        statement_ms.to_string().into(),
        key.into(),
    ];
    match link.run(sql, &parameters) {
        Ok(_) => Ok(()),
        // Its turn did not come: the call may be made again.
        Err(Error::Limit(_)) => Err(Error::Aborted),
        Err(error) => Err(error),
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::InvalidStatement(format!("the name of a database has more than {NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn not_open() -> Error {
    Error::InvalidStatement("the transaction is not open any more".into())
}

fn second_database(written: &str) -> Error {
    Error::InvalidStatement(format!("this call writes database {written:?} already, and a call writes at most one"))
}
