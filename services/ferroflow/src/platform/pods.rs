//! Which Pod has an address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ferroflow_auth::Principal;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use parking_lot::RwLock;
use tokio::sync::watch;

/// The Pods that have an address and have not ended. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pods {
    known: Arc<RwLock<Known>>,
    listed: watch::Sender<bool>,
}

#[derive(Default)]
struct Known {
    now: Book,
    /// What the list that is being read has so far.
    listing: Option<Book>,
}

/// Pods by uid, and the uids at each address, the latest last: an address passes on to the next Pod as soon as one has ended, whose last
/// events may come after that, and Pods of the host's network share one.
#[derive(Default)]
struct Book {
    pods: HashMap<String, (IpAddr, Principal)>,
    at: HashMap<IpAddr, Vec<String>>,
}

impl Book {
    fn apply(&mut self, pod: &Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        let resident = resident(pod);
        let same = |(address, _): &(IpAddr, Principal)| {
            self.pods.get(&uid).is_some_and(|(known, _)| known == address)
        };
        match resident {
            Some(resident) if same(&resident) => drop(self.pods.insert(uid, resident)),
            Some(resident) => {
                self.remove(&uid);
                self.at.entry(resident.0).or_default().push(uid.clone());
                self.pods.insert(uid, resident);
            }
            None => self.remove(&uid),
        }
    }

    fn remove(&mut self, uid: &str) {
        let Some((address, _)) = self.pods.remove(uid) else {
            return;
        };
        if let Some(there) = self.at.get_mut(&address) {
            there.retain(|other| other != uid);
            if there.is_empty() {
                self.at.remove(&address);
            }
        }
    }

    fn account(&self, address: IpAddr) -> Option<&Principal> {
        let latest = self.at.get(&address)?.last()?;
        self.pods.get(latest).map(|(_, account)| account)
    }
}

impl Default for Pods {
    fn default() -> Self {
        Self {
            known: Arc::default(),
            listed: watch::Sender::new(false),
        }
    }
}

impl Pods {
    /// Takes in an event of a watch of all Pods.
    pub fn observe(&self, event: &Event<Pod>) {
        let mut known = self.known.write();
        match event {
            Event::Init => known.listing = Some(Book::default()),
            Event::InitApply(pod) => {
                if let Some(listing) = &mut known.listing {
                    listing.apply(pod);
                }
            }
            Event::InitDone => {
                if let Some(listing) = known.listing.take() {
                    known.now = listing;
                }
                self.listed.send_replace(true);
            }
            Event::Apply(pod) => known.now.apply(pod),
            Event::Delete(pod) => known.now.remove(pod.metadata.uid.as_deref().unwrap_or_default()),
        }
    }

    /// Waits for the first whole list.
    pub async fn listed(&self) {
        let mut listed = self.listed.subscribe();
        // the sender is ours, so this cannot fail
        let _closed = listed.wait_for(|listed| *listed).await;
    }

    /// The account of the Pod at an address.
    pub fn at(&self, address: IpAddr) -> Option<Principal> {
        self.known.read().now.account(address).cloned()
    }
}

/// Address and account of a Pod that has one and has not ended.
fn resident(pod: &Pod) -> Option<(IpAddr, Principal)> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref());
    let namespace = pod.metadata.namespace.as_deref()?;
    Some((
        status.pod_ip.as_ref()?.parse().ok()?,
        Principal::service_account(namespace, account.unwrap_or("default")),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, phase: &str, ip: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": uid, "uid": uid},
            "spec": {"serviceAccountName": uid, "containers": []},
            "status": {"phase": phase, "podIP": ip},
        }))
        .unwrap()
    }

    fn at(pods: &Pods, ip: &str) -> Option<Principal> {
        pods.at(ip.parse().unwrap())
    }

    #[test]
    fn an_address_is_of_the_pod_that_runs_there() {
        let pods = Pods::default();
        pods.observe(&Event::Apply(pod("a", "Running", "127.1.0.1")));
        assert_eq!(
            at(&pods, "127.1.0.1"),
            Some(Principal::service_account("ns", "a"))
        );
        pods.observe(&Event::Apply(pod("b", "Pending", "127.1.0.1")));
        pods.observe(&Event::Apply(pod("a", "Succeeded", "127.1.0.1")));
        pods.observe(&Event::Delete(pod("a", "Succeeded", "127.1.0.1")));
        assert_eq!(
            at(&pods, "127.1.0.1"),
            Some(Principal::service_account("ns", "b"))
        );
        pods.observe(&Event::Apply(pod("b", "Failed", "127.1.0.1")));
        assert_eq!(at(&pods, "127.1.0.1"), None);
    }

    #[test]
    fn a_pod_that_moves_or_has_no_address_any_more_leaves_the_old_one() {
        let pods = Pods::default();
        pods.observe(&Event::Apply(pod("a", "Running", "127.1.0.1")));
        pods.observe(&Event::Apply(pod("a", "Running", "127.1.0.2")));
        assert_eq!(at(&pods, "127.1.0.1"), None);
        let mut gone = pod("a", "Failed", "x");
        gone.status.as_mut().unwrap().pod_ip = None;
        pods.observe(&Event::Apply(gone));
        assert_eq!(at(&pods, "127.1.0.2"), None);
    }

    #[test]
    fn late_news_of_an_old_pod_do_not_take_the_address_of_the_new_one() {
        let pods = Pods::default();
        for uid in ["a", "b", "a"] {
            pods.observe(&Event::Apply(pod(uid, "Running", "127.1.0.1")));
        }
        assert_eq!(
            at(&pods, "127.1.0.1"),
            Some(Principal::service_account("ns", "b"))
        );
        pods.observe(&Event::Delete(pod("b", "Running", "127.1.0.1")));
        assert_eq!(
            at(&pods, "127.1.0.1"),
            Some(Principal::service_account("ns", "a"))
        );
    }

    #[test]
    fn a_new_list_takes_the_place_of_what_was_known() {
        let pods = Pods::default();
        pods.observe(&Event::Apply(pod("a", "Running", "127.1.0.1")));
        pods.observe(&Event::Init);
        pods.observe(&Event::InitApply(pod("b", "Running", "127.1.0.2")));
        assert!(at(&pods, "127.1.0.1").is_some(), "until the list is whole");
        pods.observe(&Event::InitDone);
        assert_eq!(at(&pods, "127.1.0.1"), None);
        assert!(at(&pods, "127.1.0.2").is_some());
    }
}
