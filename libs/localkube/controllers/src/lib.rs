//! What kube-controller-manager and kube-scheduler do, as ordinary controllers over a [`kube::Client`].
//!
//! Every controller reads from caches fed by one watch per kind ([`informer`]), gets keys from a
//! deduplicating queue ([`queue`]), and decides in pure functions that have tests of their own.
//! [`run`] starts all of them; it works against `localkube` and against a real API server alike.

mod accounts;
mod context;
mod deployment;
mod events;
mod hash;
mod informer;
mod job;
mod namespaces;
mod pods;
mod quantity;
mod queue;
mod replicaset;
mod scheduler;

use kube::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use context::ControllerConfig;
use context::Context;
use events::Events;

/// Runs all controllers and the scheduler until cancelled.
pub async fn run(client: Client, config: ControllerConfig, cancel: CancellationToken) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    let (events, writer) = Events::new(client.clone());
    let context = Context::new(client, config, events, cancel.clone());

    // Queues listen before the first list arrives, so that nothing is missed.
    let scheduler = scheduler::watch(&context);
    let jobs = job::watch(&context);
    let replica_sets = replicaset::watch(&context);
    let deployments = deployment::watch(&context);
    let accounts = accounts::watch(&context);
    let namespaces = namespaces::watch(&context);

    context.caches.start(&tasks, &cancel);
    tasks.spawn(writer.run(cancel.clone()));
    tokio::select! {
        () = cancel.cancelled() => {}
        () = context.caches.synced() => {
            tracing::info!("controllers are ready");
            tasks.spawn(scheduler::run(context.clone(), scheduler));
            tasks.spawn(job::run(context.clone(), jobs));
            tasks.spawn(replicaset::run(context.clone(), replica_sets));
            tasks.spawn(deployment::run(context.clone(), deployments));
            tasks.spawn(accounts::run(context.clone(), accounts));
            tasks.spawn(namespaces::run(context.clone(), namespaces));
        }
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}
