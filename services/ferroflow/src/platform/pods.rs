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
    by_address: HashMap<IpAddr, Resident>,
    /// What the list that is being read has so far.
    listing: Option<HashMap<IpAddr, Resident>>,
}

struct Resident {
    uid: String,
    account: Principal,
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
            Event::Init => known.listing = Some(HashMap::new()),
            Event::InitApply(pod) => {
                if let Some(listing) = &mut known.listing {
                    apply(listing, pod);
                }
            }
            Event::InitDone => {
                if let Some(listing) = known.listing.take() {
                    known.by_address = listing;
                }
                self.listed.send_replace(true);
            }
            Event::Apply(pod) => apply(&mut known.by_address, pod),
            Event::Delete(pod) => leave(&mut known.by_address, pod),
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
        let known = self.known.read();
        known.by_address.get(&address).map(|pod| pod.account.clone())
    }
}

fn apply(by_address: &mut HashMap<IpAddr, Resident>, pod: &Pod) {
    match resident(pod) {
        Some((address, resident)) => drop(by_address.insert(address, resident)),
        None => leave(by_address, pod),
    }
}

/// An address passes on to the next Pod as soon as one has ended, whose last events may come after that.
fn leave(by_address: &mut HashMap<IpAddr, Resident>, pod: &Pod) {
    if let Some(address) = address(pod)
        && by_address
            .get(&address)
            .is_some_and(|there| Some(there.uid.as_str()) == pod.metadata.uid.as_deref())
    {
        by_address.remove(&address);
    }
}

fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

fn resident(pod: &Pod) -> Option<(IpAddr, Resident)> {
    let phase = pod.status.as_ref()?.phase.as_deref();
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref());
    let resident = Resident {
        uid: pod.metadata.uid.clone()?,
        account: Principal::service_account(pod.metadata.namespace.as_deref()?, account.unwrap_or("default")),
    };
    Some((address(pod)?, resident))
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
