//! What must be up before the whole is.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The parts of a process and whether each is ready. Clones share it.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<BTreeMap<String, bool>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Readiness {
    /// Adds a part that is not ready yet, for example `tuning: experiment controller`.
    pub fn register(&self, part: impl Into<String>) -> Probe {
        let part = part.into();
        self.0.send_modify(|parts| {
            parts.insert(part.clone(), false);
        });
        Probe {
            part,
            readiness: self.clone(),
        }
    }

    /// The parts that are not ready.
    pub fn missing(&self) -> Vec<String> {
        self.0
            .borrow()
            .iter()
            .filter(|(_, ready)| !**ready)
            .map(|(part, _)| part.clone())
            .collect()
    }

    /// Waits until every registered part is ready.
    pub async fn wait(&self) {
        let mut parts = self.0.subscribe();
        let _closed = parts.wait_for(|parts| parts.values().all(|ready| *ready)).await;
    }
}

/// One part's own word on whether it is ready.
#[derive(Debug, Clone)]
pub struct Probe {
    part: String,
    readiness: Readiness,
}

impl Probe {
    /// This part is ready.
    pub fn ready(&self) {
        self.set(true);
    }

    /// This part is not ready (any more).
    pub fn not_ready(&self) {
        self.set(false);
    }

    fn set(&self, ready: bool) {
        self.readiness
            .0
            .send_if_modified(|parts| parts.insert(self.part.clone(), ready) != Some(ready));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_every_part_is() {
        let readiness = Readiness::default();
        let (a, b) = (readiness.register("a"), readiness.register("b"));
        a.ready();
        assert_eq!(readiness.missing(), ["b"]);
        b.ready();
        readiness.wait().await;
        a.not_ready();
        assert_eq!(readiness.missing(), ["a"]);
    }
}
