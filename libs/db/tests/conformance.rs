//! One suite for every engine, and the outbox relay's promise. PostgreSQL runs when `FERROFLOW_TEST_POSTGRES` gives a URL.

use std::sync::Arc;

use ferroflow_bus::{EventBus, MemoryBus};
use ferroflow_db::relay::Relay;
use ferroflow_db::{Db, DbError, DbOptions, params};
use ferroflow_kernel::{Error, Event};

const MIGRATION: &str = "
CREATE TABLE things (id {{identity}}, name TEXT NOT NULL UNIQUE, size BIGINT, weight DOUBLE PRECISION, body {{bytes}}, made TEXT);
CREATE INDEX things_size ON things (size);
";

struct Fixture {
    db: Db,
    options: DbOptions,
    _folder: tempfile::TempDir,
}

async fn engines() -> Vec<Fixture> {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec![DbOptions::sqlite(&folder.path().join("t.db"), "things")];
    match std::env::var("FERROFLOW_TEST_POSTGRES") {
        Ok(url) => {
            let name = format!("t{}", ferroflow_kernel::random_suffix(10));
            all.push(DbOptions::url(&url, &name));
        }
        Err(_) => {
            eprintln!("SKIPPED postgres: FERROFLOW_TEST_POSTGRES is not set (cargo xtask test sets it)");
        }
    }
    let mut fixtures = Vec::new();
    for options in all {
        let db = Db::open(&options, &[MIGRATION]).await.unwrap();
        fixtures.push(Fixture {
            db,
            options,
            _folder: tempfile::tempdir().unwrap(),
        });
    }
    std::mem::forget(folder);
    fixtures
}

#[tokio::test]
async fn values_come_back_as_they_went_in() {
    for Fixture { db, .. } in engines().await {
        let now: jiff::Timestamp = "2026-01-02T03:04:05.123456789Z".parse().unwrap();
        let mut tx = db.begin().await.unwrap();
        let sql =
            "INSERT INTO things (name, size, weight, body, made) VALUES ($1, $2, $3, $4, $5) RETURNING id";
        let values = params!["é'; DROP TABLE things", 5_i64, 0.5, vec![0_u8, 255], now];
        let id = tx
            .fetch_optional(sql, values)
            .await
            .unwrap()
            .unwrap()
            .int(0)
            .unwrap();
        tx.commit().await.unwrap();
        let sql = "SELECT id, name, size, weight, body, made FROM things";
        let row = db.fetch_optional(sql, params![]).await.unwrap().unwrap();
        assert_eq!(row.int(0).unwrap(), id);
        assert_eq!(row.text(1).unwrap(), "é'; DROP TABLE things");
        assert_eq!((row.int(2).unwrap(), row.real(3).unwrap()), (5, 0.5));
        assert_eq!(row.bytes(4).unwrap(), vec![0, 255]);
        assert_eq!(row.time(5).unwrap(), now);
    }
}

/// Runs one statement in a transaction of its own.
async fn execute(db: &Db, sql: &str, values: Vec<ferroflow_db::Value>) -> Result<u64, DbError> {
    let mut tx = db.begin().await?;
    let touched = tx.execute(sql, values).await?;
    tx.commit().await?;
    Ok(touched)
}

/// Appends events in a transaction of their own.
async fn append(db: &Db, events: &[&Event]) {
    let mut tx = db.begin().await.unwrap();
    for event in events {
        tx.append_event(event).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn nulls_are_nulls() {
    for Fixture { db, .. } in engines().await {
        let sql = "INSERT INTO things (name, size, weight, body) VALUES ($1, $2, $3, $4)";
        execute(&db, sql, params!["n", None::<i64>, None::<f64>, None::<Vec<u8>>])
            .await
            .unwrap();
        let row = db
            .fetch_optional("SELECT size, weight, body FROM things", params![])
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.opt_int(0).unwrap(), None);
        assert_eq!(row.opt_real(1).unwrap(), None);
        assert!(row.is_null(2).unwrap());
    }
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_nothing() {
    for Fixture { db, .. } in engines().await {
        let mut tx = db.begin().await.unwrap();
        tx.execute("INSERT INTO things (name) VALUES ('x')", params![])
            .await
            .unwrap();
        drop(tx);
        assert!(
            db.fetch_all("SELECT id FROM things", params![])
                .await
                .unwrap()
                .is_empty()
        );
    }
}

#[tokio::test]
async fn a_second_row_of_one_key_is_a_conflict() {
    for Fixture { db, .. } in engines().await {
        let insert = "INSERT INTO things (name) VALUES ('x')";
        execute(&db, insert, params![]).await.unwrap();
        assert!(execute(&db, insert, params![]).await.unwrap_err().is_conflict());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_increments_are_all_counted() {
    for Fixture { db, .. } in engines().await {
        execute(&db, "INSERT INTO things (name, size) VALUES ('n', 0)", params![])
            .await
            .unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let db = db.clone();
            tasks.spawn(async move {
                for _ in 0..10 {
                    while let Err(error) = db.retry(|| increment(&db)).await {
                        assert_eq!(Error::from(error).code(), ferroflow_kernel::Code::Aborted);
                    }
                }
            });
        }
        tasks.join_all().await;
        let row = db
            .fetch_optional("SELECT size FROM things", params![])
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.int(0).unwrap(), 40);
    }
}

async fn increment(db: &Db) -> Result<(), DbError> {
    let mut tx = db.begin().await?;
    let row = tx
        .fetch_optional("SELECT size FROM things WHERE name = 'n'", params![])
        .await?;
    let size = row.unwrap().int(0)?;
    tx.execute("UPDATE things SET size = $1 WHERE name = 'n'", params![size + 1])
        .await?;
    tx.commit().await
}

#[tokio::test]
async fn an_older_ferroflow_refuses_a_newer_database() {
    for Fixture { db, options, .. } in engines().await {
        let second = "CREATE TABLE more (id BIGINT);";
        drop(Db::open(&options, &[MIGRATION, second]).await.unwrap());
        let refused = Db::open(&options, &[MIGRATION]).await.unwrap_err();
        assert!(
            matches!(
                refused,
                DbError::Newer {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{refused}"
        );
        drop(db);
    }
}

fn event(n: usize) -> Event {
    let now = jiff::Timestamp::UNIX_EPOCH;
    Event::new(
        "test",
        "ferroflow.test.thing.made",
        format!("things/{n}"),
        1,
        now,
        serde_json::json!({ "n": n }),
    )
}

#[tokio::test]
async fn an_event_is_published_only_if_its_change_commits() {
    for Fixture { db, .. } in engines().await {
        let bus = Arc::new(MemoryBus::default());
        let mut subscription = bus.subscribe("c", "ferroflow.test.>").await.unwrap();
        let mut rolled_back = db.begin().await.unwrap();
        rolled_back.append_event(&event(0)).await.unwrap();
        drop(rolled_back);
        let kept = event(1);
        append(&db, &[&kept]).await;
        let relay = Relay::new(db.clone(), bus.clone());
        assert_eq!(relay.publish_batch().await.unwrap(), 1);
        assert_eq!(subscription.next().await.unwrap().event, kept);
    }
}

/// A bus that takes the event and then "crashes" before it can answer.
#[derive(Debug)]
struct CrashingBus(MemoryBus);

#[async_trait::async_trait]
impl EventBus for CrashingBus {
    async fn publish(&self, event: Event) -> Result<(), ferroflow_bus::BusError> {
        self.0.publish(event).await?;
        Err(ferroflow_bus::BusError::Server("crashed before answering".into()))
    }
    async fn subscribe(
        &self,
        name: &str,
        subject: &str,
    ) -> Result<Box<dyn ferroflow_bus::Subscription>, ferroflow_bus::BusError> {
        self.0.subscribe(name, subject).await
    }
}

#[tokio::test]
async fn the_relay_survives_a_crash_between_commit_and_publish_and_after_publish() {
    for Fixture { db, options, .. } in engines().await {
        let (first, second) = (event(1), event(2));
        append(&db, &[&first, &second]).await;
        let memory = MemoryBus::default();
        let mut subscription = memory.subscribe("c", "ferroflow.>").await.unwrap();
        // the process dies after the bus took the first event and before its row was deleted
        assert!(
            Relay::new(db.clone(), Arc::new(CrashingBus(memory.clone())))
                .publish_batch()
                .await
                .is_err()
        );
        db.close().await;
        // the next process finds both rows; the bus drops the repeated id
        let db = Db::open(&options, &[MIGRATION]).await.unwrap();
        assert_eq!(
            Relay::new(db.clone(), Arc::new(memory))
                .publish_batch()
                .await
                .unwrap(),
            2
        );
        for expected in [first, second] {
            let delivery = subscription.next().await.unwrap();
            assert_eq!(delivery.event, expected);
            for fresh in [true, false] {
                let mut tx = db.begin().await.unwrap();
                assert_eq!(tx.record_inbox("c", &delivery.event.id).await.unwrap(), fresh);
                tx.commit().await.unwrap();
            }
            delivery.ack().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_publishes_as_soon_as_a_change_commits() {
    for Fixture { db, .. } in engines().await {
        let bus = Arc::new(MemoryBus::default());
        let mut subscription = bus.subscribe("c", "ferroflow.>").await.unwrap();
        let cancel = tokio_util::sync::CancellationToken::new();
        let relay = tokio::spawn(Relay::new(db.clone(), bus).run(cancel.clone()));
        let event = event(1);
        append(&db, &[&event]).await;
        let wait = tokio::time::timeout(std::time::Duration::from_secs(2), subscription.next());
        assert_eq!(
            wait.await.expect("published within two seconds").unwrap().event,
            event
        );
        cancel.cancel();
        relay.await.unwrap();
    }
}
