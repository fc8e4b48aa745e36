//! What a store holds: the limits of an instance, and the call that it serves right now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::effect::Effect;
use super::environment::{Environment, wasi_context};
use super::gate::CallId;
use super::imports::app::App;
use super::instance::Invocation;
use super::limits::{self, HANDLES_MAX, Taken};
use super::mount::MountCore;
use super::outbox::Post;
use super::standard_error::StandardError;
use crate::executor::{DatabaseName, Hold, Transaction};

/// The store data of an instance of the logic, or of an app that the logic has called and that works on its call.
pub struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    limits: MemoryLimit,
    mount: Option<Arc<MountCore>>,
    app_code: Option<Arc<App>>,
    /// The call under way; none between calls and while settings are checked.
    pub(crate) call: Option<Call>,
    /// It serves a task: apps may take as long as that.
    pub(crate) in_task: bool,
    /// When whatever runs now must be over.
    pub(crate) deadline: Instant,
    /// So much later after each statement, in a call that may take long.
    pub(crate) patience: Option<Duration>,
    /// Snapshots that the instance holds.
    pub(crate) snapshots: usize,
    /// What it may still say in a panic.
    pub(crate) standard_error: StandardError,
}

/// The root transaction of a call.
pub(crate) struct OpenRoot {
    pub(crate) database: DatabaseName,
    pub(crate) transaction: Box<dyn Transaction>,
    /// Effects in the bundle when it began.
    pub(crate) effects_before: usize,
    /// Savepoints that are open, first first, with the effects in the bundle when each was made.
    pub(crate) savepoints: Vec<(u32, usize)>,
}

/// One call of the component: what it may still do, and what it has let out so far.
pub(crate) struct Call {
    pub(crate) id: CallId,
    /// The request that it serves.
    pub(crate) request: Option<u64>,
    pub(crate) root: Option<OpenRoot>,
    /// The one database that it writes.
    pub(crate) written: Option<DatabaseName>,
    /// Transactions committed.
    pub(crate) committed: u32,
    /// It did what cannot be repeated.
    pub(crate) unrepeatable: bool,
    /// A database asked for the call to be run again.
    pub(crate) aborted: bool,
    /// Effects by the transaction at whose place they leave.
    pub(crate) bundles: Vec<Vec<Effect>>,
    /// It is held to the quota of its mount.
    pub(crate) has_quota: bool,
    /// It may take long, and so may its transactions.
    pub(crate) is_long: bool,
    /// More than one input is handled: transactions may follow each other.
    pub(crate) several_inputs: bool,
    /// Keeps a group open for the next of its transactions.
    pub(crate) hold: Option<Hold>,
    /// Keys that it set or deleted: it sees its own changes at once.
    pub(crate) overlay: HashMap<String, Option<Vec<u8>>>,
    /// What its parts tell each other.
    pub(crate) notes: HashMap<String, Vec<u8>>,
    /// How much it has let out.
    pub(crate) taken: Taken,
    /// Lines that it has logged.
    pub(crate) log_lines: usize,
}

impl Call {
    /// A call that has done nothing yet.
    pub(crate) fn new(id: CallId, invocation: &Invocation) -> Self {
        Self {
            id,
            request: invocation.request(),
            root: None,
            written: None,
            committed: 0,
            unrepeatable: false,
            aborted: false,
            bundles: vec![Vec::new()],
            has_quota: invocation.has_quota(),
            is_long: invocation.is_long(),
            several_inputs: invocation.has_several_inputs(),
            hold: None,
            overlay: HashMap::new(),
            notes: HashMap::new(),
            taken: Taken::default(),
            log_lines: 0,
        }
    }

    /// Lets something out, once what the call rests on is durable; an error where it is too much for one call.
    pub(crate) fn effect(&mut self, effect: Effect) -> wasmtime::Result<()> {
        self.taken.add(limits::of_effect(&effect))?;
        match self.bundles.last_mut() {
            Some(bundle) => bundle.push(effect),
            None => self.bundles.push(vec![effect]),
        }
        Ok(())
    }

    /// How many effects there are at the current place.
    pub(crate) fn effect_count(&self) -> usize {
        self.bundles.last().map_or(0, Vec::len)
    }

    /// How far it has come, to be compared later.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            savepoint: self.root.as_ref().map(|root| root.savepoints.last().map_or(0, |(savepoint, _)| *savepoint)),
            committed: self.committed,
            bundles: self.bundles.len(),
            effects: self.effect_count(),
        }
    }

    /// Undoes what was let out since a mark, as far as no transaction was committed since.
    pub(crate) fn unsay_since(&mut self, mark: &Mark) {
        if self.committed == mark.committed {
            self.bundles.iter_mut().skip(mark.bundles).for_each(|bundle| bundle.retain(|effect| !effect.shares_fate()));
            if let Some(bundle) = mark.bundles.checked_sub(1).and_then(|last| self.bundles.get_mut(last)) {
                unsay(bundle, mark.effects);
            }
        }
    }

    /// Undoes what was let out at the current place since there were so many effects, as far as it shares the fate of
    /// what was written.
    pub(crate) fn unsay(&mut self, effects_before: usize) {
        if let Some(bundle) = self.bundles.last_mut() {
            unsay(bundle, effects_before);
        }
    }

    /// Posts that no commit has written down yet.
    pub(crate) fn posts(&self) -> Vec<Post> {
        let post = |effect: &Effect| if let Effect::Post(post) = effect { Some(post.clone()) } else { None };
        self.bundles.iter().flatten().filter_map(post).collect()
    }

    /// A commit has written them down.
    pub(crate) fn posts_written(&mut self) {
        self.bundles.iter_mut().for_each(|bundle| bundle.retain(|effect| !matches!(effect, Effect::Post(_))));
    }

    /// Whether it may be run again from the start.
    pub(crate) fn repeatable(&self) -> bool {
        self.committed == 0 && !self.unrepeatable
    }
}

fn unsay(bundle: &mut Vec<Effect>, effects_before: usize) {
    let since = bundle.split_off(effects_before.min(bundle.len()));
    bundle.extend(since.into_iter().filter(|effect| !effect.shares_fate()));
}

/// How far a call had come.
pub(crate) struct Mark {
    /// The last savepoint of the root transaction (0: it had none); none: no transaction was open.
    pub(crate) savepoint: Option<u32>,
    committed: u32,
    bundles: usize,
    effects: usize,
}

impl State {
    /// The data of a new store.
    pub(crate) fn new(mount: Arc<MountCore>, app: Arc<App>, memory_bytes: usize) -> Self {
        let unbound = Self::unbound(&mount.environment, memory_bytes);
        Self { mount: Some(mount), app_code: Some(app), ..unbound }
    }

    /// The data of a store that serves no mount: settings can be checked with it.
    pub(crate) fn unbound(environment: &Arc<dyn Environment>, memory_bytes: usize) -> Self {
        let standard_error = StandardError::default();
        Self {
            wasi: wasi_context(environment, &standard_error),
            table: resource_table(),
            limits: MemoryLimit::new(memory_bytes),
            mount: None,
            app_code: None,
            call: None,
            in_task: false,
            deadline: Instant::now(),
            patience: None,
            snapshots: 0,
            standard_error,
        }
    }

    /// Hands mount and call over to the store of an app that the call calls, or takes them back from it.
    pub(crate) fn hand_over(&mut self, other: &mut State) {
        std::mem::swap(&mut self.mount, &mut other.mount);
        std::mem::swap(&mut self.call, &mut other.call);
    }

    /// The instance serves a mount from now on, or none.
    pub(crate) fn serve(&mut self, mount: Option<Arc<MountCore>>) {
        self.mount = mount;
    }

    /// The mount that this instance serves. Without one there are no imports: whoever uses them traps.
    pub(crate) fn mount(&self) -> wasmtime::Result<Arc<MountCore>> {
        self.mount.clone().ok_or_else(no_mount)
    }

    /// The app of this instance's revision.
    pub(crate) fn app_code(&self) -> wasmtime::Result<Arc<App>> {
        self.app_code.clone().ok_or_else(no_mount)
    }

    /// Bytes of memory that the instance has grown to.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.limits.bytes
    }

    /// A statement has come to its end.
    pub(crate) fn came_along(&mut self) {
        if let Some(patience) = self.patience {
            self.deadline = Instant::now() + patience;
        }
    }

    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// The call under way. Imports are reached from within calls only; elsewhere they trap.
    pub(crate) fn call(&mut self) -> wasmtime::Result<&mut Call> {
        self.call.as_mut().ok_or_else(|| wasmtime::Error::msg("imports may be used within calls only"))
    }
}

fn no_mount() -> wasmtime::Error {
    wasmtime::Error::msg("imports may be used within calls of a mount only")
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Makes a store keep its limits: memory, what is handed over at once, and a deadline that is looked at with every tick of the epoch. In between
/// a busy call lets others run.
pub(crate) fn bound(store: &mut Store<State>, transfer_bytes_max: usize) {
    store.limiter(|state| &mut state.limits);
    store.set_hostcall_fuel(transfer_bytes_max);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|context: StoreContextMut<'_, State>| {
        if Instant::now() >= context.data().deadline {
            Ok(UpdateDeadline::Interrupt)
        } else {
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        }
    });
}

/// Handles of one instance; an import that would make one more traps.
fn resource_table() -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES_MAX);
    table
}

/// Elements that the tables of an instance may have together.
const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Bounds what an instance may take, and remembers what it took.
pub(crate) struct MemoryLimit {
    bytes_max: usize,
    bytes: usize,
    table_elements: usize,
}

impl MemoryLimit {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, table_elements: 0 }
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        // An instance may have several memories (composed parts); together they stay within the limit.
        let bytes = self.bytes + desired.saturating_sub(current);
        if bytes > self.bytes_max {
            return Ok(false);
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.table_elements + desired.saturating_sub(current);
        if elements > TABLE_ELEMENTS_MAX {
            return Ok(false);
        }
        self.table_elements = elements;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_memories_and_tables_share_one_limit() {
        let mut limit = MemoryLimit::new(100);
        assert!(limit.memory_growing(0, 60, None).unwrap());
        assert!(!limit.memory_growing(0, 60, None).unwrap());
        assert!(limit.memory_growing(60, 100, None).unwrap());
        assert!(!limit.memory_growing(0, 1, None).unwrap());
        assert!(limit.table_growing(0, TABLE_ELEMENTS_MAX, None).unwrap());
        assert!(!limit.table_growing(0, 1, None).unwrap());
        assert!(!limit.table_growing(TABLE_ELEMENTS_MAX, usize::MAX, None).unwrap());
    }
}
