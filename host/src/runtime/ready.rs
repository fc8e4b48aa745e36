//! Whether the backends work right now.

use std::time::Duration;

use tokio::time::timeout;

use super::{Backends, Runtime};

/// A backend that has not answered after this long does not work right now.
const ANSWER_MAX: Duration = Duration::from_secs(2);

impl Runtime {
    /// Asks every backend whether it works; what does not, by name. See [`Backends::ready`].
    pub async fn ready(&self) -> Vec<(&'static str, String)> {
        self.backends.ready().await
    }
}

impl Backends {
    /// Asks all at once whether they work; what does not, by name. Returns within two seconds.
    pub async fn ready(&self) -> Vec<(&'static str, String)> {
        let (executor, objects, keyvalue, pubsub) = tokio::join!(
            answer("executor", self.executor.ready()),
            answer("objects", self.storage.objects.ready()),
            answer("keyvalue", self.storage.keyvalue.ready()),
            answer("pubsub", self.pubsub.ready()),
        );
        [executor, objects, keyvalue, pubsub].into_iter().flatten().collect()
    }
}

async fn answer<E: std::fmt::Display>(name: &'static str, asked: impl Future<Output = Result<(), E>>) -> Option<(&'static str, String)> {
    match timeout(ANSWER_MAX, asked).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some((name, error.to_string())),
        Err(_) => Some((name, format!("no answer within {} ms", ANSWER_MAX.as_millis()))),
    }
}
