//! Two processes and one Lease, against localkube's API server.

use std::time::Duration;

use ferroflow_reconcile::lease::{LeaseConfig, hold};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use localkube_apiserver::{ApiServer, ApiServerConfig, user};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const WITHIN: Duration = Duration::from_secs(20);

struct Holder {
    cancel: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Wants the Lease, says its name once it has it, and holds it until cancelled.
fn start(client: &Client, name: &'static str, leads: &mpsc::Sender<&'static str>) -> Holder {
    let config = LeaseConfig {
        identity: name.to_owned(),
        duration: Duration::from_secs(2),
        renew: Duration::from_millis(200),
        ..LeaseConfig::new("default", "one")
    };
    let cancel = CancellationToken::new();
    let (until, leads) = (cancel.clone(), leads.clone());
    let work = async move {
        leads.send(name).await?;
        until.cancelled().await;
        Ok(())
    };
    let task = tokio::spawn(hold(client.clone(), config, cancel.clone(), work));
    Holder { cancel, task }
}

async fn next(leads: &mut mpsc::Receiver<&'static str>) -> &'static str {
    tokio::time::timeout(WITHIN, leads.recv())
        .await
        .expect("nobody leads")
        .unwrap()
}

async fn server() -> (tempfile::TempDir, ApiServer, Client) {
    let folder = tempfile::tempdir().unwrap();
    let server = ApiServer::open(ApiServerConfig::new(folder.path()))
        .await
        .unwrap();
    let client = server.client(user("admin", &["system:masters"]), "default");
    (folder, server, client)
}

async fn holder(leases: &Api<Lease>) -> String {
    let spec = leases.get("one").await.unwrap().spec.unwrap();
    spec.holder_identity.unwrap_or_default()
}

#[tokio::test]
async fn the_second_follows_the_first() {
    let (_folder, _server, client) = server().await;
    let leases: Api<Lease> = Api::default_namespaced(client.clone());
    let (sender, mut leads) = mpsc::channel(4);

    let first = start(&client, "first", &sender);
    assert_eq!(next(&mut leads).await, "first");
    let second = start(&client, "second", &sender);

    // a clean stop gives the Lease back
    first.cancel.cancel();
    first.task.await.unwrap().unwrap();
    assert_eq!(next(&mut leads).await, "second");
    assert_eq!(holder(&leases).await, "second");

    // a holder that dies is followed once its record has rested long enough
    second.task.abort();
    assert!(second.task.await.unwrap_err().is_cancelled());
    let third = start(&client, "third", &sender);
    assert_eq!(next(&mut leads).await, "third");
    assert_eq!(holder(&leases).await, "third");
    third.cancel.cancel();
    third.task.await.unwrap().unwrap();
    assert_eq!(holder(&leases).await, "");
}

#[tokio::test]
async fn who_loses_the_lease_stops() {
    let (_folder, _server, client) = server().await;
    let leases: Api<Lease> = Api::default_namespaced(client.clone());
    let (sender, mut leads) = mpsc::channel(4);
    let held = start(&client, "first", &sender);
    assert_eq!(next(&mut leads).await, "first");

    let taken = json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 3600}});
    leases
        .patch("one", &PatchParams::default(), &Patch::Merge(taken))
        .await
        .unwrap();
    let ended = tokio::time::timeout(WITHIN, held.task).await.expect("it goes on");
    let error = ended.unwrap().unwrap_err().to_string();
    assert!(error.contains("was taken by another process"), "{error}");
    assert_eq!(holder(&leases).await, "thief", "what is another's is left alone");
}
