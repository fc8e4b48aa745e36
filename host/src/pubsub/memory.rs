//! Publications within one operating-system process. Several hosts in it may share one [`MemoryPubSub`].

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;

use super::{PubSub, PubSubError, Publication, Receiver, probed};

/// The embedded default.
#[derive(Default)]
pub struct MemoryPubSub {
    receivers: RwLock<BTreeMap<u64, Arc<dyn Receiver>>>,
}

#[async_trait]
impl PubSub for MemoryPubSub {
    fn attach(&self, process: u64, receiver: Arc<dyn Receiver>) {
        self.receivers.write().insert(process, receiver);
    }

    fn detach(&self, process: u64) {
        self.receivers.write().remove(&process);
    }

    fn publish(&self, process: u64, mount: &str, publication: &Publication) {
        for (other, receiver) in self.receivers.read().iter() {
            if *other != process {
                receiver.receive(mount, publication.clone());
            }
        }
    }

    async fn ready(&self) -> Result<(), PubSubError> {
        probed(self).await
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::Class;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Seen(Mutex<Vec<String>>);

    impl Receiver for Seen {
        fn receive(&self, mount: &str, publication: Publication) {
            self.0.lock().push(format!("{mount}/{}", publication.topic));
        }

        fn missed(&self) {}
    }

    #[test]
    fn a_publication_reaches_the_others_and_not_its_own_process() {
        let (bus, first, second) = (MemoryPubSub::default(), Arc::new(Seen::default()), Arc::new(Seen::default()));
        bus.attach(1, first.clone());
        bus.attach(2, second.clone());
        let publication = Publication {
            topic: "t".into(),
            message: Default::default(),
            order: None,
            class: Class::MustDeliver,
            except: None,
            close: None,
        };
        bus.publish(1, "m", &publication);
        assert!(first.0.lock().is_empty());
        assert_eq!(*second.0.lock(), ["m/t"]);
        bus.detach(2);
        bus.publish(1, "m", &publication);
        assert_eq!(second.0.lock().len(), 1);
    }

    #[tokio::test]
    async fn a_probe_comes_back_and_leaves_nobody_behind() {
        let (bus, other) = (MemoryPubSub::default(), Arc::new(Seen::default()));
        bus.attach(1, other.clone());
        assert_eq!(bus.ready().await, Ok(()));
        assert_eq!(bus.receivers.read().len(), 1);
        assert!(other.0.lock()[0].starts_with("syncline/probe-"), "it took the way of all publications");
    }
}
