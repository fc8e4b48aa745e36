//! An executor that fails where the test says so, around the real one.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use syncline::executor::{
    Database, DatabaseInfo, DatabaseName, Ended, Executor, ExecutorError, GroupObserver, Hold, RowSet, Snapshot, Statement, Transaction,
    TransactionTime,
};
use tokio::sync::{Semaphore, watch};

use crate::DEADLINE;

/// Where a fault may happen.
pub enum Point<'a> {
    /// Before a transaction begins.
    Begin,
    /// Before a statement of a transaction.
    Execute(&'a Statement),
    /// Instead of a commit: the transaction is rolled back.
    Commit,
    /// Before a view is opened.
    Snapshot,
}

/// What happens at a point.
pub enum Verdict {
    /// What was asked for.
    Pass,
    /// An error.
    Fail(ExecutorError),
    /// What was asked for, once there is a permit.
    Wait(Arc<Semaphore>),
    /// What was asked for, or an error, after a while.
    Later(Duration, Option<ExecutorError>),
}

type Judge = Arc<dyn Fn(Point<'_>) -> Verdict + Send + Sync>;

/// See the module. Databases of the host itself never fail.
pub struct FaultyExecutor {
    inner: Box<dyn Executor>,
    judge: Judge,
    begun: watch::Sender<u64>,
    holds: bool,
}

struct FaultyDatabase {
    inner: Arc<dyn Database>,
    holds: bool,
    judge: Judge,
    begun: watch::Sender<u64>,
}

struct FaultyTransaction {
    inner: Box<dyn Transaction>,
    judge: Judge,
}

async fn ask(judge: &Judge, point: Point<'_>) -> Result<(), ExecutorError> {
    let verdict = judge(point);
    match verdict {
        Verdict::Pass => Ok(()),
        Verdict::Fail(error) => Err(error),
        Verdict::Wait(permits) => {
            let permit = tokio::time::timeout(DEADLINE, permits.acquire()).await.expect("whoever waits is let go");
            permit.expect("the semaphore lives").forget();
            Ok(())
        }
        Verdict::Later(delay, error) => {
            tokio::time::sleep(delay).await;
            error.map_or(Ok(()), Err)
        }
    }
}

impl FaultyExecutor {
    /// Around an executor.
    pub fn new(inner: impl Executor, judge: impl Fn(Point<'_>) -> Verdict + Send + Sync + 'static) -> Self {
        Self { inner: Box::new(inner), judge: Arc::new(judge), begun: watch::Sender::new(0), holds: false }
    }

    /// Passes holds on: groups linger as they do without this wrapper.
    pub fn with_holds(self) -> Self {
        Self { holds: true, ..self }
    }

    /// How many transactions were asked for; the number grows once the request is in the writer's queue.
    pub fn begun(&self) -> Begun {
        Begun(self.begun.subscribe())
    }
}

/// See [`FaultyExecutor::begun`].
pub struct Begun(watch::Receiver<u64>);

impl Begun {
    /// As many as now.
    pub fn count(&self) -> u64 {
        *self.0.borrow()
    }

    /// Waits until there are so many.
    pub async fn reach(&mut self, count: u64) {
        let waited = tokio::time::timeout(DEADLINE, self.0.wait_for(|begun| *begun >= count)).await;
        waited.expect("the transactions are asked for within the deadline").expect("the executor lives");
    }
}

#[async_trait]
impl Executor for FaultyExecutor {
    async fn open(&self, name: &DatabaseName, observer: Arc<dyn GroupObserver>) -> Result<Arc<dyn Database>, ExecutorError> {
        let inner = self.inner.open(name, observer).await?;
        if name.mount == "syncline" {
            return Ok(inner);
        }
        Ok(Arc::new(FaultyDatabase { inner, holds: self.holds, judge: Arc::clone(&self.judge), begun: self.begun.clone() }))
    }

    async fn ready(&self) -> Result<(), ExecutorError> {
        self.inner.ready().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Database for FaultyDatabase {
    fn info(&self) -> DatabaseInfo {
        self.inner.info()
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, ExecutorError> {
        ask(&self.judge, Point::Snapshot).await?;
        self.inner.snapshot().await
    }

    fn hold(&self) -> Hold {
        if self.holds { self.inner.hold() } else { Hold::default() }
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>, ExecutorError> {
        self.begin_within(TransactionTime::AsSet).await
    }

    async fn begin_within(&self, time: TransactionTime) -> Result<Box<dyn Transaction>, ExecutorError> {
        ask(&self.judge, Point::Begin).await?;
        let mut begin = self.inner.begin_within(time);
        let mut counted = false;
        let begun = poll_fn(|context| {
            let polled = begin.as_mut().poll(context);
            if !std::mem::replace(&mut counted, true) {
                self.begun.send_modify(|begun| *begun += 1);
            }
            match polled {
                Poll::Ready(begun) => Poll::Ready(begun),
                Poll::Pending => Poll::Pending,
            }
        });
        let inner = begun.await?;
        Ok(Box::new(FaultyTransaction { inner, judge: Arc::clone(&self.judge) }))
    }
}

#[async_trait]
impl Transaction for FaultyTransaction {
    async fn execute(&mut self, statement: &Statement, row_limit: Option<u32>) -> Result<RowSet, ExecutorError> {
        ask(&self.judge, Point::Execute(statement)).await?;
        self.inner.execute(statement, row_limit).await
    }

    async fn savepoint(&mut self) -> Result<u32, ExecutorError> {
        self.inner.savepoint().await
    }

    async fn release(&mut self, savepoint: u32) -> Result<(), ExecutorError> {
        self.inner.release(savepoint).await
    }

    async fn rollback_to(&mut self, savepoint: u32) -> Result<(), ExecutorError> {
        self.inner.rollback_to(savepoint).await
    }

    fn stop_clock(&mut self, stopped: bool) {
        self.inner.stop_clock(stopped);
    }

    async fn commit(self: Box<Self>, ended: Ended<'_>) -> Result<(), ExecutorError> {
        match ask(&self.judge, Point::Commit).await {
            Ok(()) => self.inner.commit(ended).await,
            Err(error) => {
                self.inner.rollback(ended).await;
                Err(error)
            }
        }
    }

    async fn rollback(self: Box<Self>, ended: Ended<'_>) {
        self.inner.rollback(ended).await;
    }
}
