//! `syncline:host/executor` over the [`crate::executor`] that the host was given.

use std::sync::Arc;

use parking_lot::Mutex;
use wasmtime::component::Resource;

use crate::executor::{self as sql, ExecutorError};
use crate::runtime::bindings::guest::syncline::host::executor::{
    ConstraintKind, DatabaseInfo, Dialect, Error, Host, HostSnapshot, HostTransaction, RowSet, Statement, Value,
};
use crate::runtime::limits::SNAPSHOTS_MAX;
use crate::runtime::state::{Call, OpenRoot, State};

/// A view that the component holds.
pub struct OpenSnapshot(Box<dyn sql::Snapshot>);

/// A view that is held between calls and lent to them one after the other.
#[derive(Clone, Default)]
pub(crate) struct HeldView(Arc<Mutex<Option<OpenSnapshot>>>);

impl std::fmt::Debug for HeldView {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("HeldView")
    }
}

/// A transaction that the component holds: the call's root transaction, or a savepoint in it.
pub enum OpenTransaction {
    /// The root transaction itself.
    Root,
    /// A second `begin` within the call.
    Nested {
        /// The savepoint that it is.
        savepoint: u32,
    },
}

impl Host for State {
    async fn describe(&mut self, database: String) -> wasmtime::Result<Result<DatabaseInfo, Error>> {
        let opened = self.mount()?.database(&database).await;
        Ok(opened.map(|database| database.info().into()).map_err(Error::from))
    }
}

impl HostSnapshot for State {
    async fn open(&mut self, database: String) -> wasmtime::Result<Result<Resource<OpenSnapshot>, Error>> {
        let call = self.call()?;
        if call.root.is_some() {
            return Ok(Err(Error::InvalidStatement("a snapshot cannot be opened within a transaction of the same call".into())));
        }
        let id = call.id;
        if self.snapshots >= SNAPSHOTS_MAX {
            return Ok(Err(Error::Limit(format!("more than {SNAPSHOTS_MAX} snapshots at the same time"))));
        }
        let call = self.call()?;
        // What it waits for must not wait for it.
        call.hold = None;
        if let Err(error) = self.mount()?.wait_until_durable(id, &database).await {
            return Ok(Err(error.into()));
        }
        let opened = match self.mount()?.database(&database).await {
            Ok(database) => database.snapshot().await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(snapshot) => {
                let handle = self.table().push(OpenSnapshot(snapshot))?;
                self.snapshots += 1;
                Ok(Ok(handle))
            }
            Err(error) => Ok(Err(self.noted(error))),
        }
    }

    async fn query(
        &mut self,
        snapshot: Resource<OpenSnapshot>,
        statement: Statement,
        row_limit: Option<u32>,
    ) -> wasmtime::Result<Result<RowSet, Error>> {
        let rows = self.table().get_mut(&snapshot)?.0.query(&statement.into(), row_limit).await;
        self.came_along();
        Ok(rows.map(RowSet::from).map_err(|error| self.noted(error)))
    }

    async fn drop(&mut self, snapshot: Resource<OpenSnapshot>) -> wasmtime::Result<()> {
        self.table().delete(snapshot)?;
        self.snapshots -= 1;
        Ok(())
    }
}

impl HostTransaction for State {
    async fn begin(&mut self, database: String) -> wasmtime::Result<Result<Resource<OpenTransaction>, Error>> {
        let name = self.mount()?.database_name(&database);
        if let Some(root) = &mut self.call()?.root {
            if root.database != name {
                return Ok(Err(second_database(&root.database.name)));
            }
            return match self.mark().await {
                Ok(savepoint) => Ok(Ok(self.table().push(OpenTransaction::Nested { savepoint })?)),
                Err(error) => Ok(Err(error)),
            };
        }
        let call = self.call()?;
        if let Some(written) = call.written.as_ref().filter(|written| **written != name) {
            return Ok(Err(second_database(&written.name)));
        }
        let id = call.id;
        // What this call did before may be lost already: then nothing it does now can leave any more.
        if self.mount()?.is_lost(id) {
            return Ok(Err(Error::Unavailable("data that this call rests on was lost".into())));
        }
        let opened = match self.mount()?.database(&database).await {
            Ok(database) => {
                let call = self.call()?;
                if call.several_inputs && call.hold.is_none() {
                    call.hold = Some(database.hold());
                }
                let is_long = call.is_long;
                let time = self.mount()?.transaction_time(is_long);
                database.begin_within(time).await
            }
            Err(error) => Err(error),
        };
        self.came_along();
        match opened {
            // While it waited for the writer, a group that it rests on may have been lost.
            Ok(transaction) if self.mount()?.is_lost(id) => {
                drop(transaction);
                Ok(Err(Error::Unavailable("data that this call rests on was lost".into())))
            }
            Ok(transaction) => {
                let places = self.mount()?.places(id);
                let call = self.call()?;
                if places > 0 {
                    // From here on effects belong to the place of this transaction.
                    call.bundles.resize_with(places + 1, Vec::new);
                }
                call.written = Some(name.clone());
                let effects_before = call.effect_count();
                call.root = Some(OpenRoot { database: name, transaction, effects_before, savepoints: Vec::new() });
                Ok(Ok(self.table().push(OpenTransaction::Root)?))
            }
            Err(error) => Ok(Err(self.noted(error))),
        }
    }

    async fn execute(&mut self, _transaction: Resource<OpenTransaction>, statement: Statement) -> wasmtime::Result<Result<RowSet, Error>> {
        if let Err(error) = self.admit(std::slice::from_ref(&statement))? {
            return Ok(Err(error));
        }
        let done = match self.root() {
            Ok(root) => root.transaction.execute(&statement.into(), None).await,
            Err(error) => return Ok(Err(error)),
        };
        self.came_along();
        Ok(done.map(RowSet::from).map_err(|error| self.noted(error)))
    }

    async fn execute_batch(
        &mut self,
        _transaction: Resource<OpenTransaction>,
        statements: Vec<Statement>,
    ) -> wasmtime::Result<Result<Vec<RowSet>, Error>> {
        if let Err(error) = self.admit(&statements)? {
            return Ok(Err(error));
        }
        let statements: Vec<sql::Statement> = statements.into_iter().map(Into::into).collect();
        let done = match self.root() {
            Ok(root) => root.transaction.execute_batch(&statements).await,
            Err(error) => return Ok(Err(error)),
        };
        self.came_along();
        Ok(done.map(|sets| sets.into_iter().map(RowSet::from).collect()).map_err(|error| self.noted(error)))
    }

    async fn savepoint(&mut self, _transaction: Resource<OpenTransaction>) -> wasmtime::Result<Result<u32, Error>> {
        Ok(self.mark().await)
    }

    async fn release(&mut self, _transaction: Resource<OpenTransaction>, savepoint: u32) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.keep_since(savepoint).await)
    }

    async fn rollback_to(&mut self, _transaction: Resource<OpenTransaction>, savepoint: u32) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.undo_since(savepoint).await)
    }

    async fn commit(&mut self, transaction: Resource<OpenTransaction>) -> wasmtime::Result<Result<(), Error>> {
        match self.table().delete(transaction)? {
            OpenTransaction::Nested { savepoint } => Ok(self.keep_since(savepoint).await),
            OpenTransaction::Root => {
                let mount = self.mount()?;
                let call = self.call()?;
                let id = call.id;
                let Some(OpenRoot { database, mut transaction, effects_before, .. }) = call.root.take() else {
                    return Ok(Err(not_open()));
                };
                let posts = call.posts();
                let written = match posts.is_empty() {
                    true => Ok(()),
                    false => mount.write_posts(&mut *transaction, &database.name, &posts).await,
                };
                let done = match written {
                    Ok(()) => {
                        let ended = &mut |group| {
                            mount.ended(id, &database, group);
                            if !posts.is_empty() {
                                mount.await_posts(&database.name, group);
                            }
                        };
                        transaction.commit(ended).await
                    }
                    Err(error) => {
                        transaction.rollback(&mut |group| mount.ended(id, &database, group)).await;
                        Err(error)
                    }
                };
                match done {
                    Ok(()) => {
                        self.call()?.committed += 1;
                        self.call()?.posts_written();
                    }
                    Err(_) => self.call()?.unsay(effects_before),
                }
                Ok(done.map_err(|error| self.noted(error)))
            }
        }
    }

    async fn drop(&mut self, transaction: Resource<OpenTransaction>) -> wasmtime::Result<()> {
        match self.table().delete(transaction)? {
            OpenTransaction::Nested { savepoint } => {
                // Released, too: what is still there counts as left open by whoever began it.
                let undone = match self.undo_since(savepoint).await {
                    Ok(()) => self.keep_since(savepoint).await,
                    failed => failed,
                };
                // Where even that fails the transaction is beyond use, and its commit says so.
                if let Err(error) = undone {
                    tracing::debug!(?error, "a nested transaction could not be undone");
                }
            }
            OpenTransaction::Root => self.end_root().await,
        }
        Ok(())
    }
}

impl State {
    /// Takes a view over from the instance that opened it.
    pub(crate) fn take_view(&mut self, view: Option<Resource<OpenSnapshot>>) -> wasmtime::Result<HeldView> {
        let taken = match view {
            Some(view) => {
                let view = self.table().delete(view)?;
                self.snapshots -= 1;
                Some(view)
            }
            None => None,
        };
        Ok(HeldView(Arc::new(Mutex::new(taken))))
    }

    /// Lends a view to this instance, until [`State::give_back_view`].
    pub(crate) fn lend_view(&mut self, view: &HeldView) -> wasmtime::Result<Option<Resource<OpenSnapshot>>> {
        let Some(view) = view.0.lock().take() else { return Ok(None) };
        self.snapshots += 1;
        Ok(Some(self.table().push(view)?))
    }

    /// The end of a loan.
    pub(crate) fn give_back_view(&mut self, view: &HeldView, lent: Option<Resource<OpenSnapshot>>) -> wasmtime::Result<()> {
        *view.0.lock() = match lent {
            Some(lent) => {
                let back = self.table().delete(lent)?;
                self.snapshots -= 1;
                Some(back)
            }
            None => None,
        };
        Ok(())
    }

    /// Rolls back what the call left open; what it saw has a place in the order all the same.
    pub(crate) async fn end_root(&mut self) {
        let Ok(mount) = self.mount() else { return };
        if let Some(call) = &mut self.call
            && let Some(OpenRoot { database, transaction, effects_before, .. }) = call.root.take()
        {
            call.unsay(effects_before);
            let id = call.id;
            transaction.rollback(&mut |group| mount.ended(id, &database, group)).await;
        }
    }

    /// A savepoint, with a mark of what has been let out so far.
    async fn mark(&mut self) -> Result<u32, Error> {
        let effects_before = self.call.as_ref().map_or(0, Call::effect_count);
        let root = self.root()?;
        match root.transaction.savepoint().await {
            Ok(savepoint) => {
                root.savepoints.push((savepoint, effects_before));
                Ok(savepoint)
            }
            Err(error) => Err(self.noted(error)),
        }
    }

    /// Forgets a savepoint and those after it, and keeps what was done since.
    pub(super) async fn keep_since(&mut self, savepoint: u32) -> Result<(), Error> {
        let root = self.root()?;
        match root.transaction.release(savepoint).await {
            Ok(()) => {
                root.savepoints.retain(|(open, _)| *open < savepoint);
                Ok(())
            }
            Err(error) => Err(self.noted(error)),
        }
    }

    /// Undoes what was written since a savepoint, and what was let out for it.
    pub(super) async fn undo_since(&mut self, savepoint: u32) -> Result<(), Error> {
        let root = self.root()?;
        if let Err(error) = root.transaction.rollback_to(savepoint).await {
            return Err(self.noted(error));
        }
        root.savepoints.retain(|(open, _)| *open <= savepoint);
        let mark = root.savepoints.last().filter(|(open, _)| *open == savepoint).map(|(_, effects_before)| *effects_before);
        if let (Some(effects_before), Some(call)) = (mark, &mut self.call) {
            call.unsay(effects_before);
        }
        Ok(())
    }

    /// Whether the quota of the mount lets statements run.
    fn admit(&mut self, statements: &[Statement]) -> wasmtime::Result<Result<(), Error>> {
        let Some(quota) = self.mount()?.quota().filter(|_| self.call.as_ref().is_some_and(|call| call.has_quota)) else {
            return Ok(Ok(()));
        };
        Ok(statements.iter().try_for_each(|statement| quota.admit_statement(&statement.sql)).map_err(Error::from))
    }

    fn root(&mut self) -> Result<&mut OpenRoot, Error> {
        self.call.as_mut().and_then(|call| call.root.as_mut()).ok_or_else(not_open)
    }

    /// An error as the component sees it; an abort is remembered, since the host then runs the call again.
    fn noted(&mut self, error: ExecutorError) -> Error {
        if error == ExecutorError::Aborted
            && let Some(call) = &mut self.call
        {
            call.aborted = true;
        }
        error.into()
    }
}

fn not_open() -> Error {
    Error::InvalidStatement("the transaction is not open any more".into())
}

fn second_database(written: &str) -> Error {
    Error::InvalidStatement(format!("this call writes database {written:?} already, and a call writes at most one"))
}

impl From<sql::DatabaseInfo> for DatabaseInfo {
    fn from(info: sql::DatabaseInfo) -> Self {
        let dialect = match info.dialect {
            sql::Dialect::Sqlite => Dialect::Sqlite,
            sql::Dialect::Postgres => Dialect::Postgres,
        };
        Self { dialect, table_prefix: info.table_prefix }
    }
}

impl From<ExecutorError> for Error {
    fn from(error: ExecutorError) -> Self {
        match error {
            ExecutorError::Aborted => Error::Aborted,
            ExecutorError::Constraint(kind, what) => {
                let kind = match kind {
                    sql::ConstraintKind::Unique => ConstraintKind::Unique,
                    sql::ConstraintKind::ForeignKey => ConstraintKind::ForeignKey,
                    sql::ConstraintKind::NotNull => ConstraintKind::NotNull,
                    sql::ConstraintKind::Check => ConstraintKind::Check,
                    sql::ConstraintKind::Other => ConstraintKind::Other,
                };
                Error::Constraint((kind, what))
            }
            ExecutorError::InvalidStatement(what) => Error::InvalidStatement(what),
            ExecutorError::Limit(what) => Error::Limit(what),
            ExecutorError::Unavailable(what) => Error::Unavailable(what),
        }
    }
}

impl From<Statement> for sql::Statement {
    fn from(statement: Statement) -> Self {
        let parameters = statement.parameters.into_iter().map(|value| match value {
            Value::Null => sql::Value::Null,
            Value::Integer(number) => sql::Value::Integer(number),
            Value::Real(number) => sql::Value::Real(number),
            Value::Text(text) => sql::Value::Text(text),
            Value::Blob(bytes) => sql::Value::Blob(bytes),
        });
        Self { parameters: parameters.collect(), sql: statement.sql }
    }
}

impl From<sql::RowSet> for RowSet {
    fn from(set: sql::RowSet) -> Self {
        let columns = u32::try_from(set.rows.columns()).unwrap_or(u32::MAX);
        Self { columns, cells: set.rows.into_cells(), changed: set.changed, truncated: set.truncated }
    }
}
