//! `syncline:host/effects`: posts and metrics. The log and documents are rooms of their own.

use crate::back::Back;
use crate::bindings::exports::syncline::host::effects::{Metric, OutboundPost};
use crate::call::Effect;
use crate::store::outbox::{POST_BYTES_MAX, Post};

impl Back {
    /// Puts a POST into the outbox.
    pub fn post(&self, post: OutboundPost) {
        let Some(mount) = self.try_call(|call| call.mount.clone()) else { return };
        if !self.mounts.borrow().get(&mount).is_some_and(|known| known.post_targets.contains(&post.url)) {
            let host = post.url.split('/').nth(2).unwrap_or_default().to_owned();
            return self.log_own(
                "warn",
                "a post to a target that the plan does not allow was dropped",
                &[("mount", &mount), ("host", &host)],
            );
        }
        let id = format!("{:016x}{:016x}", self.ports.clock.random(), self.ports.clock.random());
        let (post, refused) = Post::new(id, post.url, &post.headers, post.body);
        if refused > 0 {
            self.log_own(
                "error",
                "headers of a post are not valid and were left out",
                &[("mount", &mount), ("count", &refused.to_string())],
            );
        }
        if post.bytes() > POST_BYTES_MAX {
            return self.fail_call(format!("a post has more than {POST_BYTES_MAX} bytes"));
        }
        self.try_call(|call| call.effect(Effect::Post(post)));
    }

    /// Adds to a metric.
    pub fn measure(&self, metric: Metric) {
        let mount = self.try_call(|call| call.mount.clone()).unwrap_or_default();
        self.metrics.borrow_mut().measure(&mount, metric);
    }

    /// The metrics of the mount.
    pub fn measured(&self) -> Vec<Metric> {
        let mount = self.try_call(|call| call.mount.clone()).unwrap_or_default();
        self.metrics.borrow().of(&mount)
    }
}
