//! What was answered is durable, and what could not be written was never there.

use std::time::Duration;

use futures::FutureExt as _;
use serde_json::json;
use tokio::sync::broadcast::error::TryRecvError;

use super::writer::TestJob;
use super::*;

struct Opened {
    store: Store,
    dir: tempfile::TempDir,
}

async fn open() -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("x.db"), WINDOW).await.unwrap();
    Opened { store, dir }
}

impl Opened {
    async fn again(self) -> Self {
        self.store.close().await;
        let store = Store::open(&self.dir.path().join("x.db"), WINDOW).await.unwrap();
        Self { store, dir: self.dir }
    }

    fn job(&self, job: TestJob) {
        assert!(self.store.jobs.send(Job::Test(job)).is_ok());
    }

    async fn sql(&self, text: &str) {
        let (done, wait) = oneshot::channel();
        self.job(TestJob::Sql(text.to_owned(), done));
        wait.await.unwrap();
    }

    /// No page more than now, or as many as are wanted.
    async fn disk_is_full(&self, full: bool) {
        let pages = if full { 1 } else { 1_000_000 };
        self.sql(&format!("PRAGMA max_page_count = {pages}")).await;
    }

    /// Writes wait until the answer is used.
    fn hold(&self) -> oneshot::Sender<()> {
        let (release, released) = oneshot::channel();
        self.job(TestJob::Hold(released));
        release
    }

    fn create(&self, name: &str, size: usize) -> tokio::task::JoinHandle<Result<Arc<Obj>, WriteError>> {
        let (store, key) = (self.store.clone(), key(name));
        let value = json!({"metadata": {"name": name}, "data": "x".repeat(size)});
        tokio::spawn(async move { store.put(key, Expect::Absent, value).await })
    }

    fn sees(&self, name: &str) -> bool {
        self.store.get("/configmaps", "ns", name).is_some()
    }

    async fn until_pending(&self, name: &str) {
        let pending = async {
            while !self.store.state.lock().pending.contains_key(&key(name)) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), pending)
            .await
            .unwrap();
    }
}

fn key(name: &str) -> Key {
    Key {
        resource: "/configmaps".into(),
        namespace: "ns".into(),
        name: name.into(),
    }
}

const LARGE: usize = 1 << 20;

fn broken(result: Result<Arc<Obj>, WriteError>) -> String {
    match result {
        Err(WriteError::Broken(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn writes_go_on_when_a_full_disk_has_space_again() {
    let s = open().await;
    let first = s.create("first", 10).await.unwrap().unwrap();
    let mut watch = s.store.watch(&"/configmaps".into(), first.rv).unwrap();
    s.disk_is_full(true).await;
    for _ in 0..3 {
        let why = broken(s.create("large", LARGE).await.unwrap());
        assert!(why.contains("full"), "{why}");
    }
    let value = json!({"metadata": {}, "data": "x".repeat(LARGE)});
    broken(s.store.put(key("first"), Expect::Version(first.rv), value).await);
    assert!(!s.sees("large"));
    assert_eq!(s.store.rv(), first.rv);
    assert_eq!(s.store.get("/configmaps", "ns", "first").unwrap().rv, first.rv);
    assert_eq!(watch.live.try_recv().unwrap_err(), TryRecvError::Empty);

    s.disk_is_full(false).await;
    let large = s.create("large", LARGE).await.unwrap().unwrap();
    assert!(s.sees("large"));
    assert_eq!(watch.live.try_recv().unwrap().rv, large.rv);
    assert_eq!(watch.live.try_recv().unwrap_err(), TryRecvError::Empty);

    let (rv, before) = s.store.list("/configmaps", None, None);
    let s = s.again().await;
    let (rv_after, after) = s.store.list("/configmaps", None, None);
    assert_eq!(rv, rv_after);
    let json = |all: &[Arc<Obj>]| all.iter().map(|o| o.bytes().clone()).collect::<Vec<_>>();
    assert_eq!(json(&before), json(&after));
}

#[tokio::test]
async fn what_builds_on_a_write_that_failed_fails_with_it() {
    let s = open().await;
    s.disk_is_full(true).await;
    let release = s.hold();
    let made = s.create("a", LARGE);
    s.until_pending("a").await;
    let seen = s.store.latest(&key("a"));
    let rv = seen.obj.as_ref().unwrap().rv;
    let changed = tokio::spawn({
        let store = s.store.clone();
        async move {
            store
                .put(key("a"), Expect::Version(rv), json!({"metadata": {}}))
                .await
        }
    });
    while s.store.latest(&key("a")).obj.unwrap().rv == rv {
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    broken(made.await.unwrap());
    broken(changed.await.unwrap());
    assert!(!s.store.stands(&seen).await);
    assert!(s.store.latest(&key("a")).obj.is_none());
    s.disk_is_full(false).await;
    s.create("a", 1).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_hears_that_an_object_exists_finds_it() {
    let s = open().await;
    let release = s.hold();
    let first = s.create("a", 1);
    s.until_pending("a").await;
    let mut second = s.create("a", 1);
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!((&mut second).now_or_never().is_none(), "answered too early");
        assert!(!s.sees("a"));
    }
    release.send(()).unwrap();
    assert!(matches!(second.await.unwrap(), Err(WriteError::Exists)));
    assert!(s.sees("a"));
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_second_create_is_done_when_the_first_could_not_be_written() {
    let s = open().await;
    s.sql("PRAGMA max_page_count = 20").await;
    let release = s.hold();
    let first = s.create("a", LARGE);
    s.until_pending("a").await;
    let second = s.create("a", 1);
    release.send(()).unwrap();
    broken(first.await.unwrap());
    let second = second.await.unwrap().unwrap();
    assert_eq!(s.store.get("/configmaps", "ns", "a").unwrap().rv, second.rv);
}

#[tokio::test]
async fn who_hears_that_an_object_is_gone_does_not_find_it() {
    let s = open().await;
    let a = s.create("a", 1).await.unwrap().unwrap();
    let release = s.hold();
    let removed = tokio::spawn({
        let (store, rv) = (s.store.clone(), a.rv);
        async move { store.remove(key("a"), rv, json!({"metadata": {}})).await }
    });
    s.until_pending("a").await;
    let seen = s.store.latest(&key("a"));
    assert!(seen.obj.is_none());
    assert!(s.sees("a"));
    assert!(s.store.stands(&seen).now_or_never().is_none());
    release.send(()).unwrap();
    assert!(s.store.stands(&seen).await);
    assert!(!s.sees("a"));
    removed.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_file_that_went_away_is_opened_again() {
    let s = open().await;
    s.create("a", 1).await.unwrap().unwrap();
    s.job(TestJob::Lose);
    broken(s.create("b", 1).await.unwrap());
    let written = async {
        loop {
            match s.create("b", 1).await.unwrap() {
                Ok(_) => return,
                Err(WriteError::Broken(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written)
        .await
        .unwrap();
    let s = s.again().await;
    assert!(s.sees("a") && s.sees("b"));
}

#[tokio::test]
async fn a_group_that_was_written_counts_though_its_commit_reported_an_error() {
    let s = open().await;
    let a = s.create("a", 1).await.unwrap().unwrap();
    s.store.close().await;
    let limits = Limits {
        changes: 10,
        bytes: 1 << 20,
    };
    let (mut db, _) = sqlite::Database::open(&s.dir.path().join("x.db"), limits)
        .await
        .unwrap();
    assert!(db.holds(a.rv).await.unwrap());
    assert!(!db.holds(a.rv + 1).await.unwrap());
    // a transaction that is left open does not count
    db.execute("BEGIN").await;
    db.execute("INSERT INTO changes SELECT rv + 1, kind, resource, namespace, name, data FROM changes")
        .await;
    assert!(!db.holds(a.rv + 1).await.unwrap());
}
