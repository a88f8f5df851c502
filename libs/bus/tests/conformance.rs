//! One suite for the in-process bus and for NATS JetStream. NATS runs when `FERROFLOW_TEST_NATS` gives a URL.

use std::sync::Arc;
use std::time::Duration;

use ferroflow_bus::{EventBus, MemoryBus, NatsBus, Subscription};
use ferroflow_kernel::Event;

async fn buses() -> Vec<Arc<dyn EventBus>> {
    let mut all: Vec<Arc<dyn EventBus>> = vec![Arc::new(MemoryBus::default())];
    match std::env::var("FERROFLOW_TEST_NATS") {
        Ok(url) => all.push(Arc::new(NatsBus::connect(&url).await.unwrap())),
        Err(_) => eprintln!("SKIPPED nats: FERROFLOW_TEST_NATS is not set (cargo xtask test sets it)"),
    }
    all
}

fn unique() -> String {
    ferroflow_kernel::random_suffix(10)
}

fn event(kind: &str, n: usize) -> Event {
    Event::new(
        "test",
        kind,
        "s",
        1,
        jiff::Timestamp::UNIX_EPOCH,
        serde_json::json!({ "n": n }),
    )
}

async fn next(subscription: &mut Box<dyn Subscription>) -> ferroflow_bus::Delivery {
    tokio::time::timeout(Duration::from_secs(5), subscription.next())
        .await
        .expect("an event")
        .unwrap()
}

#[tokio::test]
async fn events_arrive_in_order_and_only_of_the_subject() {
    for bus in buses().await {
        let base = format!("ferroflow.t{}", unique());
        let mut subscription = bus.subscribe(&unique(), &format!("{base}.run.*")).await.unwrap();
        bus.publish(event(&format!("{base}.task.made"), 9)).await.unwrap();
        for n in 0..3 {
            bus.publish(event(&format!("{base}.run.made"), n)).await.unwrap();
        }
        for n in 0..3 {
            let delivery = next(&mut subscription).await;
            assert_eq!(delivery.event.data["n"], n);
            delivery.ack().await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_unacknowledged_event_comes_again() {
    for bus in buses().await {
        let subject = format!("ferroflow.t{}.run.made", unique());
        let mut subscription = bus.subscribe(&unique(), &subject).await.unwrap();
        bus.publish(event(&subject, 1)).await.unwrap();
        drop(next(&mut subscription).await);
        let again = next(&mut subscription).await;
        assert_eq!(again.event.data["n"], 1);
        again.ack().await.unwrap();
    }
}

#[tokio::test]
async fn a_repeated_id_is_dropped() {
    for bus in buses().await {
        let subject = format!("ferroflow.t{}.run.made", unique());
        let mut subscription = bus.subscribe(&unique(), &subject).await.unwrap();
        let first = event(&subject, 1);
        bus.publish(first.clone()).await.unwrap();
        bus.publish(first).await.unwrap();
        bus.publish(event(&subject, 2)).await.unwrap();
        for n in [1, 2] {
            let delivery = next(&mut subscription).await;
            assert_eq!(delivery.event.data["n"], n);
            delivery.ack().await.unwrap();
        }
    }
}

#[tokio::test]
async fn every_consumer_gets_its_own_copy_and_keeps_its_place() {
    for bus in buses().await {
        let subject = format!("ferroflow.t{}.run.made", unique());
        let (one, two) = (unique(), unique());
        let mut first = bus.subscribe(&one, &subject).await.unwrap();
        let mut second = bus.subscribe(&two, &subject).await.unwrap();
        bus.publish(event(&subject, 1)).await.unwrap();
        next(&mut first).await.ack().await.unwrap();
        drop(second);
        second = bus.subscribe(&two, &subject).await.unwrap();
        assert_eq!(next(&mut second).await.event.data["n"], 1);
    }
}
