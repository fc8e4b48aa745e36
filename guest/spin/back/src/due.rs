//! Work that is due: jobs, posts, and what the front adapter asks of the tables besides.

use crate::back::{Back, unavailable};
use crate::bindings::exports::syncline::spin::adapter;
use crate::ports::Request;
use crate::sql::Error;
use crate::store::outbox::{self, Due};
use crate::store::{answers, jobs, places, presence, publications, starts};

/// Time for one attempt of a post, in milliseconds.
const ATTEMPT_MS: u64 = 5_000;

type Asked<T> = Result<T, adapter::Error>;

impl Back {
    /// Jobs that are due.
    pub fn due_jobs(&self, limit: u32) -> Asked<Vec<jobs::Job>> {
        let opened = self.opened_for_front()?;
        jobs::take(&opened.database, &self.mount_names(), self.now_ms(), limit).map_err(unavailable)
    }

    /// A job returned.
    pub fn job_done(&self, job: &jobs::Job, cursor: Option<&[u8]>) -> Asked<()> {
        jobs::done(&self.opened_for_front()?.database, job, cursor, self.now_ms()).map_err(unavailable)
    }

    /// A job failed.
    pub fn job_failed(&self, job: &jobs::Job) -> Asked<()> {
        jobs::failed(&self.opened_for_front()?.database, job, self.now_ms()).map_err(unavailable)
    }

    /// When something is due next.
    pub fn next_due(&self) -> Asked<Option<u64>> {
        jobs::next_due(&self.opened_for_front()?.database, &self.mount_names()).map_err(unavailable)
    }

    /// Sends posts that are due; those of which the logic is to be told.
    pub fn deliver_posts(&self, limit: u32) -> Asked<Vec<adapter::FailedPost>> {
        let opened = self.opened_for_front()?;
        let due = outbox::take(&opened.database, &self.mount_names(), self.now_ms(), limit).map_err(unavailable)?;
        let mut failed = Vec::new();
        for due in due {
            let allowed = self.mounts.borrow().get(&due.mount).is_some_and(|mount| mount.post_targets.contains(&due.post.url));
            let outcome = if allowed { self.attempt(&due) } else { Err("the plan does not allow the target any more".into()) };
            if let Some(post) = self.settle(&opened.database, due, allowed, outcome).map_err(unavailable)? {
                failed.push(post);
            }
        }
        Ok(failed)
    }

    fn attempt(&self, due: &Due) -> Result<(), String> {
        let mut headers = due.post.headers();
        headers.retain(|(name, _)| name != "x-syncline-post-id");
        headers.push(("x-syncline-post-id".into(), due.post.id.clone().into_bytes()));
        let request = Request {
            method: "POST",
            url: due.post.url.clone(),
            headers,
            body: due.post.body.clone(),
            timeout_ms: ATTEMPT_MS,
            answer_bytes_max: None,
        };
        let reply = self.ports.http.send(&request)?;
        if (200..300).contains(&reply.status) { Ok(()) } else { Err(format!("answered {}", reply.status)) }
    }

    /// Writes down what came of an attempt; the logic hears of the first failure and of the last.
    fn settle(
        &self,
        database: &crate::sql::Database,
        due: Due,
        allowed: bool,
        outcome: Result<(), String>,
    ) -> Result<Option<adapter::FailedPost>, Error> {
        let Err(error) = outcome else { return outbox::forget(database, &due.post.id).map(|()| None) };
        let attempts = due.attempts.saturating_add(1);
        let again = outbox::due_again(attempts, due.created_ms, self.now_ms(), self.ports.clock.random()).filter(|_| allowed);
        let count = attempts.to_string();
        let fields =
            [("mount", due.mount.as_str()), ("post", due.post.id.as_str()), ("attempts", count.as_str()), ("error", error.as_str())];
        match again {
            Some(due_ms) => {
                self.log_own("info", "a post failed and is tried again later", &fields);
                outbox::postpone(database, &due.post.id, attempts, due_ms)?;
            }
            None => {
                self.log_own("error", "a post failed and is given up", &fields);
                outbox::forget(database, &due.post.id)?;
            }
        }
        let given_up = again.is_none();
        if attempts > 1 && !given_up {
            return Ok(None);
        }
        Ok(Some(adapter::FailedPost { mount: due.mount, url: due.post.url, body: due.post.body, attempts, given_up, error }))
    }

    /// Whether a mount is started.
    pub fn claim_start(&self, mount: &str, revision: &str) -> Asked<adapter::Start> {
        starts::claim(&self.opened_for_front()?.database, mount, revision, self.now_ms()).map_err(unavailable)
    }

    /// A step of a start was done.
    pub fn started(&self, mount: &str, revision: &str, cursor: Option<&[u8]>) -> Asked<()> {
        starts::stepped(&self.opened_for_front()?.database, mount, revision, cursor, self.now_ms()).map_err(unavailable)
    }

    /// A step of a start failed.
    pub fn start_failed(&self, mount: &str) {
        let freed = self.opened_for_front().and_then(|opened| starts::failed(&opened.database, mount).map_err(unavailable));
        if let Err(error) = freed {
            // The lease ends by itself.
            self.log_own("warn", "a start that failed could not be given back", &[("mount", mount), ("error", &format!("{error:?}"))]);
        }
    }

    /// Publications of a mount.
    pub fn publications(&self, mount: &str, topics: &[String], after: u64, bytes_max: u64) -> Asked<publications::Found> {
        publications::after(&self.opened_for_front()?.database, mount, topics, after, bytes_max).map_err(unavailable)
    }

    /// The newest positions.
    pub fn positions(&self, mounts: &[String]) -> Asked<Vec<u64>> {
        let opened = self.opened_for_front()?;
        if let Some(announcer) = &opened.announcer {
            match announcer.positions(mounts, self.now_ms()) {
                Ok(Some(positions)) => return Ok(positions),
                Ok(None) => {}
                Err(error) if announcer.fails_anew() => {
                    self.log_own("warn", "Redis cannot be asked, so the database is", &[("error", &error)]);
                }
                Err(_) => {}
            }
        }
        publications::newest_of(&opened.database, mounts).map_err(unavailable)
    }

    /// Connections that somebody holds.
    pub fn renew(&self, mount: &str, connections: &[u64]) -> Asked<()> {
        presence::renew(&self.opened_for_front()?.database, mount, connections, self.now_ms()).map_err(unavailable)
    }

    /// Connections that have gone.
    pub fn gone(&self, mount: &str, connections: &[u64]) -> Asked<()> {
        presence::gone(&self.opened_for_front()?.database, mount, connections).map_err(unavailable)
    }

    /// Takes a place.
    pub fn hold(&self, name: &str, holder: &str, limit: u32, lease_ms: u64) -> Asked<bool> {
        places::hold(&self.opened_for_front()?.database, name, holder, limit, lease_ms, self.now_ms()).map_err(unavailable)
    }

    /// Gives a place back.
    pub fn release_place(&self, name: &str, holder: &str) -> Asked<()> {
        places::release(&self.opened_for_front()?.database, name, holder).map_err(unavailable)
    }

    /// What was answered before.
    pub fn recall(&self, key: &str) -> Asked<Option<Vec<u8>>> {
        answers::recall(&self.opened_for_front()?.database, key, self.now_ms()).map_err(unavailable)
    }

    /// Remembers an answer.
    pub fn remember(&self, key: &str, value: &[u8]) -> Asked<()> {
        answers::remember(&self.opened_for_front()?.database, key, value, self.now_ms()).map_err(unavailable)
    }
}
