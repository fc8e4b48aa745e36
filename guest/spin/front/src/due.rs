//! Work that is due: jobs and posts, a little after each request, and more at a tick.

use std::rc::Rc;

use crate::bindings::syncline::spin::adapter::Job;
use crate::front::{Deployment, Front, only_logged};
use crate::log::{Level, log, words};
use crate::mount::Mount;
use crate::ports::Clock;

/// Jobs that are taken at once.
const JOBS: u32 = 4;
/// Posts that are sent at once.
const POSTS: u32 = 4;
/// What is due is looked at so often while a long answer goes on.
pub(crate) const DUE_MS: u64 = 2000;
/// How long a request's instance works on after its answer.
const AFTER_REQUEST_MS: u64 = 500;

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) jobs: usize,
    pub(crate) posts_failed: usize,
}

impl<C: Clock> Front<C> {
    /// Does a little of what is due, if anything is.
    pub(crate) async fn do_a_little(&self, deployment: &Deployment) {
        match self.adapter.next_due() {
            Ok(Some(due_ms)) if due_ms <= self.clock.unix_ms() => {
                self.do_due(deployment, self.clock.now_ms().saturating_add(AFTER_REQUEST_MS)).await;
            }
            Ok(_) => {}
            Err(error) => log(Level::Warn, None, "what is due cannot be looked at", words(&error)),
        }
    }

    /// Does what is due until there is nothing more, or the time is up.
    pub(crate) async fn do_due(&self, deployment: &Deployment, until_ms: u64) -> Done {
        let mut done = Done::default();
        loop {
            // Leased before anything else is done: every request that finds something due comes here, and one is to do it.
            let jobs = match self.adapter.due_jobs(JOBS) {
                Ok(jobs) => jobs,
                Err(error) => {
                    log(Level::Warn, None, "jobs cannot be looked at", words(&error));
                    break;
                }
            };
            let is_last = jobs.is_empty();
            for job in jobs {
                done.jobs += 1;
                self.fire(deployment, &job, until_ms).await;
            }
            if is_last || self.clock.now_ms() >= until_ms {
                break;
            }
        }
        self.posts(deployment, &mut done).await;
        done
    }

    async fn fire(&self, deployment: &Deployment, job: &Job, until_ms: u64) {
        let Some(mount) = deployment.mount(&job.mount) else { return };
        if let Err(error) = self.ready(&mount).await {
            log(Level::Warn, Some(&mount.name), "the mount is not ready for its jobs", error);
            return only_logged(Some(&job.mount), "a job waits for its lease to end", self.adapter.job_failed(job));
        }
        let mut cursor = job.cursor.clone();
        let settled = loop {
            let fired = self.call(&mount, |logic| logic.fire(&job.mount, &job.name, &job.payload, cursor.as_deref())).await;
            match fired {
                Err(_) if cursor == job.cursor => break self.adapter.job_failed(job),
                // What was done of it stays done.
                Err(_) => break self.adapter.job_done(job, cursor.as_deref()),
                Ok(called) => {
                    cursor = called.answer;
                    if cursor.is_none() || self.clock.now_ms() >= until_ms {
                        break self.adapter.job_done(job, cursor.as_deref());
                    }
                }
            }
        };
        only_logged(Some(&job.mount), "a job may fire again, since it could not be settled", settled);
    }

    async fn posts(&self, deployment: &Deployment, done: &mut Done) {
        let failed = match self.adapter.deliver_posts(POSTS) {
            Ok(failed) => failed,
            Err(error) => return log(Level::Warn, None, "posts cannot be sent", words(&error)),
        };
        for post in failed {
            let Some(mount) = deployment.mount(&post.mount) else { continue };
            done.posts_failed += 1;
            let id = self.new_id();
            if let Err(error) = self.ready(&mount).await {
                log(Level::Warn, Some(&post.mount), "the mount is not ready to be told that a post failed", error);
            } else if self.call(&mount, |logic| logic.post_failed(&post.mount, id, &post)).await.is_err() {
                log(Level::Warn, Some(&post.mount), "the logic was not told that a post failed", &post.error);
            }
        }
    }

    /// An id for a connection or a request, that nothing else has.
    pub(crate) fn new_id(&self) -> u64 {
        // Positive as a signed number, which databases have.
        self.clock.random() >> 2
    }
}

impl Deployment {
    /// A mount by its name.
    pub(crate) fn mount(&self, name: &str) -> Option<Rc<Mount>> {
        self.mounts.iter().find(|mount| mount.name == name).cloned()
    }
}
