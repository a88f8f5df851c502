//! What kube-controller-manager and kube-scheduler do, as ordinary controllers over a [`kube::Client`].
//!
//! Every controller reads from caches fed by one watch per kind ([`informer`]), gets keys from a
//! deduplicating queue ([`queue`]), and decides in pure functions that have tests of their own.
//! [`run`] starts all of them; it works against `localkube` and against a real API server alike.

mod accounts;
mod claim;
mod claims;
mod context;
mod cronjob;
mod deployment;
mod endpoints;
mod events;
mod gc;
mod hash;
mod informer;
mod job;
mod namespaces;
mod node;
mod pods;
mod quantity;
mod queue;
mod quotas;
mod replicaset;
mod scheduler;
mod statefulset;

use kube::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use context::Context;
pub use context::ControllerConfig;
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
    let endpoints = endpoints::watch(&context);
    let quotas = quotas::watch(&context);
    let nodes = node::watch(&context);
    let claims = claims::watch(&context);
    let cron_jobs = cronjob::watch(&context);
    let stateful_sets = statefulset::watch(&context);

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
            tasks.spawn(endpoints::run(context.clone(), endpoints));
            tasks.spawn(statefulset::run(context.clone(), stateful_sets));
            tasks.spawn(cronjob::run(context.clone(), cron_jobs));
            tasks.spawn(claims::run(context.clone(), claims));
            tasks.spawn(quotas::run(context.clone(), quotas));
            tasks.spawn(gc::run(context.clone()));
            tasks.spawn(node::run(context.clone()));
            tasks.spawn(node::run_taints(context.clone(), nodes));
        }
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}
