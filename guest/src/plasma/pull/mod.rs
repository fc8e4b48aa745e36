//! Pull: what changed for a client since its cookie.
//!
//! A page is read from the log: entries that are the newest of their row, in version order, and the rows as they are now. What
//! became visible or invisible without having changed is found from the before-images of the rows that it depends on
//! (`visibility.rs`), so nothing is kept per client but its cookie.

mod held;
mod page;
mod partial;
mod patch;
mod statements;
mod visibility;

use std::collections::BTreeMap;

pub use page::list_of;
pub use partial::{PartialShown, QUERIES_MAX, Shown, SyncedQuery};
pub use statements::{PullStatements, compile_rows_where, has_key, push_list};

use super::cookie::{Cookie, Loading};
use super::engine::{Caller, DATABASE, Dialect, Engine};
use super::failure::Failure;
use super::query::QueryRefused;
use super::regions::Regions;
use super::store::changes::{self, Head};
use super::store::clients::{self, Group};
use crate::imports::{Imports, Query, Transaction};
use crate::sql::Sql;
use page::{Reader, Who};
use patch::{Change, Patch};
use visibility::{Flip, Flips};

/// A pull after the checks of its shape.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// In which dialect the patch is to be.
    pub dialect: Dialect,
    /// Whose.
    pub client_group_id: String,
    /// Up to where the client is.
    pub cookie: Cookie,
    /// Rows of a page; a version is never cut.
    pub rows_max: usize,
    /// Whose rows are wanted; none: all that there are.
    pub queries: Vec<SyncedQuery>,
}

/// What to tell the client.
#[derive(Clone, Debug)]
pub struct PullReply {
    /// Where it is then. Equal to that of the request where nothing is new.
    pub cookie: Cookie,
    /// `lastMutationIDChanges`
    pub last_mutation_ids: BTreeMap<String, u64>,
    /// A JSON array, encoded.
    pub patch: String,
    /// Rows put.
    pub puts: u64,
    /// Rows deleted.
    pub dels: u64,
    /// Whether there is more to pull at once.
    pub has_more: bool,
    /// Whether the client begins anew, though it had a cookie.
    pub reset: bool,
    /// The version of the database that was read.
    pub version: u64,
}

/// Why a pull was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PullRefused {
    /// 403 `client-group-owner`.
    #[error("the client group belongs to another user")]
    ClientGroupOwner,
    /// The server has lost the client's state.
    #[error("the client group is unknown, or ahead of the server")]
    ClientStateNotFound,
    /// One of the queries cannot be synced: 400 `invalid-request`.
    #[error(transparent)]
    Query(QueryRefused),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<QueryRefused> for PullRefused {
    fn from(refused: QueryRefused) -> Self {
        match refused {
            QueryRefused::Failure(failure) => Self::Failure(failure),
            other => Self::Query(other),
        }
    }
}

/// What must be written before a pull can be answered.
enum Admission {
    /// Nothing.
    Ready {
        /// Whether the client begins anew.
        reset: bool,
    },
    /// The group: it is new, its `ctx` is another, or it was not seen for a while.
    Write,
}

/// Where the log is.
struct Log {
    head: Head,
    /// The last version of each region, where there are several.
    regions: Regions,
}

/// Times that a pull begins anew because the `ctx` of its group changed meanwhile.
const TRIES: usize = 4;

impl Engine {
    /// What is new for a client. Reads one view; writes only where the group must be noted.
    pub fn pull(&self, imports: Imports<'_>, caller: &Caller, request: &PullRequest) -> Result<PullReply, PullRefused> {
        let sql = self.sql(imports)?;
        let (shown, parameters) = self.shown_by(imports, caller, &request.queries)?;
        let caller = partial::caller_with(caller, &request.queries);
        let caller: &Caller = &caller;
        let who = Who { context: &caller.context, parameters: &parameters, shown: &shown };
        for _ in 0..TRIES {
            let view = imports.executor.snapshot(DATABASE).map_err(Failure::from)?;
            let (head, mut regions, group) = clients::head_and_group(sql, view.as_ref(), &request.client_group_id)?;
            if regions.is_empty() && matches!(request.cookie, Cookie::OfRegions(_)) {
                // From when there were several, or from elsewhere.
                regions = changes::regions(sql, view.as_ref())?;
            }
            let log = Log { head, regions };
            match self.admit(imports, &log, group.as_ref(), caller, request)? {
                Admission::Ready { reset } => return self.read(sql, view.as_ref(), &log, who, request, reset),
                Admission::Write => {
                    drop(view);
                    self.note_group(imports, caller, request)?;
                }
            }
        }
        Err(Failure::Unavailable("the context of the client group keeps changing".into()).into())
    }

    fn admit(
        &self,
        imports: Imports<'_>,
        log: &Log,
        group: Option<&Group>,
        caller: &Caller,
        request: &PullRequest,
    ) -> Result<Admission, PullRefused> {
        let head = log.head;
        let cookie = request.cookie.loading(&log.regions);
        if group.is_some_and(|group| group.user_id != caller.user_id) {
            return Err(PullRefused::ClientGroupOwner);
        }
        let Some(group) = group else {
            return if request.cookie == Cookie::Null { Ok(Admission::Write) } else { Err(PullRefused::ClientStateNotFound) };
        };
        // The database is older than what the client has seen: it was restored.
        if cookie.p > head.version || request.cookie.is_ahead_of(&log.regions) {
            return Err(PullRefused::ClientStateNotFound);
        }
        let stale_ms = self.options.client_group_ttl_ms / 10;
        let is_stale = imports.now_ms.saturating_sub(group.seen_ms) > stale_ms;
        if is_stale || group.context_digest.as_ref() != Some(&caller.context_digest) {
            return Ok(Admission::Write);
        }
        let covered = cookie.v.max(cookie.s);
        let reset = request.cookie != Cookie::Null && (covered < head.min_version || covered < group.reset_version);
        Ok(Admission::Ready { reset })
    }

    /// Notes that the group pulled, and with which `ctx`. Another one than before takes a version of its own, without rows and
    /// without a poke: cookies from before it get a reset, those from after it do not.
    fn note_group(&self, imports: Imports<'_>, caller: &Caller, request: &PullRequest) -> Result<(), PullRefused> {
        let sql = self.sql(imports)?;
        let group_id = &request.client_group_id;
        let transaction = self.begin(imports)?;
        let view: &dyn Transaction = transaction.as_ref();
        let (_, _, group) = clients::head_and_group(sql, view, group_id)?;
        if group.as_ref().is_some_and(|group| group.user_id != caller.user_id) {
            return Err(PullRefused::ClientGroupOwner);
        }
        let mut statements = vec![clients::touch_group(sql, group_id, &caller.user_id, imports.now_ms)];
        let known = group.as_ref().and_then(|group| group.context_digest.as_deref());
        if known != Some(&caller.context_digest) {
            // A group that never pulled was never shown anything under another one.
            let first = known.is_none();
            let reset_version = if first { 0 } else { changes::head_to_write(sql, view)?.last + 1 };
            statements.push(clients::set_context(sql, group_id, &caller.context_digest, reset_version));
            if !first {
                statements.push(changes::set_version(sql, &self.options.region, reset_version));
            }
        }
        transaction.execute_batch(statements).map_err(Failure::from)?;
        transaction.commit().map_err(Failure::from)?;
        Ok(())
    }

    /// Reads a page.
    fn read(
        &self,
        sql: &Sql,
        view: &dyn Query,
        log: &Log,
        who: Who<'_>,
        request: &PullRequest,
        reset: bool,
    ) -> Result<PullReply, PullRefused> {
        let (head, regions) = (log.head, &log.regions);
        let asked = request.cookie.loading(regions);
        if !reset && request.cookie != Cookie::Null && asked.v == head.version {
            return Ok(nothing_new(request.cookie.clone(), head.version));
        }
        let mut reader = Reader { sql, view, who, held: None };
        let is_held = head.version < head.last;
        if is_held && !reset && request.cookie != Cookie::Null && reader.depends_on_what_changed_after(head.version)? {
            // What was visible below an open range cannot be compared with what was before.
            return Ok(nothing_new(request.cookie.clone(), head.version));
        }
        let mut reset = reset;
        let mut patch = Patch::new(request.dialect);
        let mut from = asked;
        if !reset && request.cookie != Cookie::Null {
            match reader.flips(&from, head.version) {
                Ok(Flips::None) => {}
                Ok(Flips::Rows(rows)) => {
                    for Flip { table, key, version, row } in &rows {
                        patch.push(Change { table, key, version: *version, row: row.as_deref() })?;
                    }
                    from.p = head.version;
                }
                Ok(Flips::Unknown) | Err(Failure::Limit(_)) => reset = true,
                Err(failure) => return Err(failure.into()),
            }
        }
        if reset || request.cookie == Cookie::Null {
            patch = Patch::new(request.dialect);
            patch.clear();
            from = Loading { order: asked.order, v: 0, s: head.version, p: head.version };
        }
        reader.held = if is_held { reader.held_after(from.v, head.version)? } else { None };
        let settled = if reader.held.is_some() { head.version } else { changes::settled_up_to(sql, view, from.v, head)? };
        let page = reader.page_within_limits(&from, settled, request.rows_max, &mut patch)?;
        let is_on_the_way = page.has_more || settled < head.version;
        let cookie = request.cookie.advance(regions, if is_on_the_way { [page.reached, from.s, from.p] } else { [head.version; 3] });
        // No server issued an order so large that none is left above it: the client begins with a cookie of its own again.
        let cookie = cookie.ok_or(PullRefused::ClientStateNotFound)?;
        let range = (from.v, page.reached, request.cookie.seen_up_to(regions));
        let last_mutation_ids = clients::last_mutation_ids(sql, view, &request.client_group_id, range)?;
        let (puts, dels) = (patch.puts, patch.dels);
        let (patch, has_more, version) = (patch.finish(), page.has_more, head.version);
        Ok(PullReply { cookie, last_mutation_ids, patch, puts, dels, has_more, reset, version })
    }
}

fn nothing_new(cookie: Cookie, version: u64) -> PullReply {
    let (last_mutation_ids, patch) = (BTreeMap::new(), "[]".into());
    PullReply { cookie, last_mutation_ids, patch, puts: 0, dels: 0, has_more: false, reset: false, version }
}
