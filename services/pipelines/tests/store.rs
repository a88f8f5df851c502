//! One suite for the rows on SQLite and PostgreSQL. PostgreSQL runs when `FERROFLOW_TEST_POSTGRES` gives a URL.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_db::{Db, DbOptions};
use ferroflow_kernel::Code;
use ferroflow_pipelines::Pipelines;
use ferroflow_pipelines::domain::run::{AttemptState, CacheFact, Outputs, TaskKind, TaskState};
use ferroflow_pipelines::store::{
    AttemptRow, Changes, ExperimentRow, ListQuery, PipelineRow, Predicate, PredicateValue, RecurringRow,
    RunRow, RunUpdate, Sort, StateChange, Store, TaskRow, VersionRow,
};
use ferroflow_telemetry::TraceContext;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

async fn stores() -> Vec<(Store, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec![DbOptions::sqlite(&folder.path().join("t.db"), "pipelines")];
    match std::env::var("FERROFLOW_TEST_POSTGRES") {
        Ok(url) => all.push(DbOptions::url(
            &url,
            &format!("t{}", ferroflow_kernel::random_suffix(10)),
        )),
        Err(_) => {
            eprintln!("SKIPPED postgres: FERROFLOW_TEST_POSTGRES is not set (cargo xtask test sets it)");
        }
    }
    let mut stores = Vec::new();
    for options in all {
        stores.push((
            Store::new(Db::open(&options, Pipelines::MIGRATIONS).await.unwrap()),
            tempfile::tempdir().unwrap(),
        ));
    }
    std::mem::forget(folder);
    stores
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

fn experiment(id: &str, name: &str, second: i64) -> ExperimentRow {
    ExperimentRow {
        id: id.into(),
        namespace: "ns".into(),
        display_name: name.into(),
        description: "d".into(),
        archived: false,
        created_at: at(second),
        last_run_created_at: at(0),
    }
}

fn run(id: &str, experiment: &str, second: i64) -> RunRow {
    RunRow {
        id: id.into(),
        namespace: "ns".into(),
        experiment_id: experiment.into(),
        display_name: format!("run {id}"),
        description: String::new(),
        archived: false,
        state: TaskState::Pending,
        error: None,
        pipeline_name: "p".into(),
        spec: json!({"a": [1, 2.5, "é"]}),
        pipeline_id: String::new(),
        version_id: String::new(),
        parameters: BTreeMap::from([("x".into(), json!(1))]),
        runtime_config: json!({}),
        pipeline_root: "s3://b".into(),
        service_account: String::new(),
        resource_name: "p-1".into(),
        recurring_run_id: String::new(),
        created_by: "me".into(),
        created_at: at(second),
        scheduled_at: at(second),
        finished_at: at(0),
        history: vec![StateChange {
            update_time: at(second),
            state: TaskState::Pending,
            error: None,
        }],
        terminate: false,
        revision: 1,
        trace: TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=1"),
    }
}

fn query(predicates: Vec<Predicate>, sort: Option<(&str, bool)>, page_size: usize) -> ListQuery {
    let sort = sort.map(|(key, descending)| Sort {
        key: key.into(),
        descending,
    });
    ListQuery {
        predicates,
        sort,
        page_size,
        page_token: String::new(),
    }
}

fn is(key: &str, operation: &str, value: &str) -> Predicate {
    Predicate {
        key: key.into(),
        operation: operation.into(),
        value: PredicateValue::Text(value.into()),
    }
}

#[tokio::test]
async fn experiments_have_unique_names_and_archive_their_runs() {
    for (store, _folder) in stores().await {
        store
            .create_experiment(&experiment("e1", "one", 1))
            .await
            .unwrap();
        let again = store
            .create_experiment(&experiment("e2", "one", 2))
            .await
            .unwrap_err();
        assert_eq!(
            (again.code(), again.message()),
            (Code::AlreadyExists, "experiment one already exists")
        );
        assert_eq!(store.experiment("nope").await.unwrap_err().code(), Code::NotFound);
        store.create_run(&run("r1", "e1", 5)).await.unwrap();
        assert_eq!(store.experiment("e1").await.unwrap().last_run_created_at, at(5));
        store.archive_experiment("e1", true).await.unwrap();
        assert!(store.experiment("e1").await.unwrap().archived && store.run("r1").await.unwrap().archived);
        store.archive_experiment("e1", false).await.unwrap();
        assert!(!store.experiment("e1").await.unwrap().archived);
        assert!(store.run("r1").await.unwrap().archived, "runs stay archived");
        store.delete_experiment("e1").await.unwrap();
        assert!(store.run("r1").await.is_ok());
    }
}

#[tokio::test]
async fn lists_are_filtered_ordered_and_paged() {
    for (store, _folder) in stores().await {
        for i in 0..7 {
            store
                .create_run(&run(
                    &format!("r{i}"),
                    if i % 2 == 0 { "even" } else { "odd" },
                    10 - i,
                ))
                .await
                .unwrap();
        }
        let mut seen = Vec::new();
        let mut ask = query(vec![], Some(("created_at", true)), 3);
        loop {
            let page = store.list_runs("ns", "", &ask).await.unwrap();
            assert_eq!(page.total_size, Some(7));
            seen.extend(page.items.iter().map(|r| r.id.clone()));
            if page.next_page_token.is_empty() {
                break;
            }
            ask.page_token = page.next_page_token;
        }
        assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4", "r5", "r6"]);
        let other = ListQuery { sort: None, ..ask };
        assert!(
            store.list_runs("ns", "", &other).await.is_err(),
            "the token belongs to another order"
        );
        for (predicate, want) in [
            (is("display_name", "EQUALS", "run r3"), 1),
            (is("name", "NOT_EQUALS", "run r3"), 6),
            (is("name", "IS_SUBSTRING", "r3"), 1),
            (is("name", "IS_SUBSTRING", "%"), 0),
            (is("created_at", "GREATER_THAN", "8"), 2),
            (is("created_at", "LESS_THAN_EQUALS", "1970-01-01T00:00:05Z"), 2),
            (is("state", "EQUALS", "PENDING"), 7),
            (is("name", "EQUALS", "' OR 1=1 --"), 0),
        ] {
            let page = store
                .list_runs("ns", "", &query(vec![predicate.clone()], None, 20))
                .await
                .unwrap();
            assert_eq!(page.items.len(), want, "{predicate:?}");
        }
        assert_eq!(
            store
                .list_runs("ns", "odd", &query(vec![], None, 20))
                .await
                .unwrap()
                .items
                .len(),
            3
        );
        assert!(
            store
                .list_runs("other", "", &query(vec![], None, 20))
                .await
                .unwrap()
                .items
                .is_empty()
        );
        let unknown = store
            .list_runs("ns", "", &query(vec![is("secret", "EQUALS", "x")], None, 20))
            .await
            .unwrap_err();
        assert!(
            unknown
                .message()
                .starts_with("filter or sort_by: no field \"secret\"; known are id"),
            "{unknown}"
        );
    }
}

#[tokio::test]
async fn pipelines_keep_their_versions() {
    for (store, _folder) in stores().await {
        let tags = BTreeMap::from([("team".to_owned(), "a_b%".to_owned())]);
        let pipeline = PipelineRow {
            id: "p1".into(),
            namespace: "ns".into(),
            name: "n".into(),
            display_name: "N".into(),
            description: String::new(),
            created_at: at(1),
            tags,
        };
        let version = |id: &str, second: i64| VersionRow {
            id: id.into(),
            pipeline_id: "p1".into(),
            name: id.into(),
            display_name: id.into(),
            description: String::new(),
            created_at: at(second),
            code_source_url: String::new(),
            package_url: String::new(),
            spec: json!({"root": {}}),
            tags: BTreeMap::new(),
        };
        store
            .create_pipeline(&pipeline, Some(&version("v1", 1)))
            .await
            .unwrap();
        store.create_version(&version("v2", 2)).await.unwrap();
        assert_eq!(
            store.create_version(&version("v2", 3)).await.unwrap_err().code(),
            Code::AlreadyExists
        );
        assert_eq!(store.version("p1", "").await.unwrap().id, "v2", "the newest");
        assert_eq!(store.pipeline_by_name("ns", "n").await.unwrap(), pipeline);
        let tagged = |value: &str| query(vec![is("tags.team", "EQUALS", value)], None, 20);
        assert_eq!(
            store
                .list_pipelines("ns", &tagged("a_b%"))
                .await
                .unwrap()
                .items
                .len(),
            1
        );
        assert_eq!(
            store
                .list_pipelines("ns", &tagged("aXb%"))
                .await
                .unwrap()
                .items
                .len(),
            0
        );
        let refused = store.delete_pipeline("p1", false).await.unwrap_err();
        assert_eq!(
            refused.message(),
            "pipeline p1 has 2 versions; delete them first or pass cascade=true"
        );
        store.delete_pipeline("p1", true).await.unwrap();
        assert_eq!(
            store.version("p1", "v1").await.unwrap_err().code(),
            Code::NotFound
        );
    }
}

fn attempt(number: u32, state: &str) -> AttemptRow {
    AttemptRow {
        path: "root/a".into(),
        number,
        pod_name: format!("pod-{number}"),
        pod_uid: None,
        state: state.into(),
        message: (state == "FAILED").then(|| "no luck".into()),
        outputs: (state == "SUCCEEDED").then(Outputs::default),
        folder: "s3://b/f".into(),
        created_at: at(3),
        ended_at: (state != "STARTED").then(|| at(4)),
    }
}

#[tokio::test]
async fn a_tick_is_one_transaction_and_facts_come_back() {
    for (store, _folder) in stores().await {
        store.create_run(&run("r1", "e", 1)).await.unwrap();
        let outputs = Arc::new(Outputs {
            parameters: BTreeMap::from([("o".into(), json!(2))]),
            ..Outputs::default()
        });
        let task = TaskRow {
            path: "root/a".into(),
            task_id: "t".into(),
            parent: Some("root".into()),
            name: "a".into(),
            display_name: "a".into(),
            kind: TaskKind::Container,
            state: TaskState::Running,
            cached: false,
            message: None,
            inputs: Outputs::default(),
            outputs: Outputs::default(),
            after: vec!["b".into()],
            iteration: Some(3),
            position: 1,
            created_at: at(2),
            started_at: Some(at(3)),
            ended_at: None,
            history: vec![],
            execution_id: None,
        };
        let changes = Changes {
            run: Some(RunUpdate {
                state: TaskState::Running,
                error: None,
                finished_at: at(0),
                history: vec![],
            }),
            tasks: vec![task.clone()],
            cache: vec![
                ("root/a".into(), "k".into(), None),
                ("root/c".into(), "k2".into(), Some(outputs.clone())),
            ],
            started: vec![(attempt(0, "STARTED"), Some("k".into()))],
            lineage: vec![("root/a".into(), TaskState::Running)],
            ..Changes::default()
        };
        store.apply("r1", "ns", "p", at(3), &changes).await.unwrap();
        assert_eq!(store.tasks("r1").await.unwrap(), std::slice::from_ref(&task));
        store
            .pods_created("r1", &[("root/a".into(), 0, "uid".into())])
            .await
            .unwrap();
        assert_eq!(
            store.attempts("r1").await.unwrap()[0].pod_uid.as_deref(),
            Some("uid")
        );
        let observed = store.observed("r1").await.unwrap();
        assert_eq!(observed["root/a"].cache, CacheFact::Miss);
        assert_eq!(observed["root/a"].attempts[0].state, AttemptState::Started);
        assert_eq!(observed["root/c"].cache, CacheFact::Hit(outputs.clone()));
        assert_eq!(store.cache_keys("r1").await.unwrap()["root/a"], "k");
        // The same attempt cannot be decided on twice.
        assert!(store.apply("r1", "ns", "p", at(3), &changes).await.is_err());

        let changes = Changes {
            ended: vec![attempt(0, "FAILED")],
            remembered: vec![("k2".into(), "root/c".into(), outputs)],
            run: Some(RunUpdate {
                state: TaskState::Failed,
                error: Some("x".into()),
                finished_at: at(9),
                history: vec![],
            }),
            ..Changes::default()
        };
        store.apply("r1", "ns", "p", at(4), &changes).await.unwrap();
        assert_eq!(
            store.observed("r1").await.unwrap()["root/a"].attempts[0].state,
            AttemptState::Failed("no luck".into())
        );
        assert!(store.cached("ns", "p", "k2").await.unwrap().is_some());
        assert!(
            store.cached("other", "p", "k2").await.unwrap().is_none(),
            "a cache is a namespace's own"
        );
        assert!(store.active_runs().await.unwrap().is_empty());

        store.retry_run("r1", at(10)).await.unwrap();
        assert_eq!(store.observed("r1").await.unwrap()["root/a"].forgiven, 1);
        let active = store.active_runs().await.unwrap();
        assert_eq!(
            active.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
            ["r1"]
        );
        let pending = store.pending_lineage(10).await.unwrap();
        assert_eq!((pending[0].1.as_str(), pending[0].2.as_str()), ("r1", "root/a"));
        store
            .lineage_done(
                pending[0].0,
                "r1",
                "root/a",
                Some(7),
                &BTreeMap::from([("s3://u".into(), 8)]),
            )
            .await
            .unwrap();
        assert!(store.pending_lineage(10).await.unwrap().is_empty());
        assert_eq!(store.tasks("r1").await.unwrap()[0].execution_id, Some(7));
        assert_eq!(
            store.artifact_ids("r1").await.unwrap(),
            BTreeMap::from([("s3://u".into(), 8)])
        );
        store.delete_run("r1").await.unwrap();
        assert!(
            store.tasks("r1").await.unwrap().is_empty() && store.attempts("r1").await.unwrap().is_empty()
        );
    }
}

#[tokio::test]
async fn schedules_are_due_in_order() {
    for (store, _folder) in stores().await {
        for (id, next) in [("late", 50), ("soon", 10), ("off", 5)] {
            let row = RecurringRow {
                id: id.into(),
                namespace: "ns".into(),
                experiment_id: "e".into(),
                display_name: id.into(),
                created_at: at(1),
                updated_at: at(1),
                enabled: id != "off",
                spec: json!({}),
                next_at: at(next),
                last_at: at(0),
                fired: 0,
            };
            store.create_recurring(&row).await.unwrap();
        }
        let due: Vec<String> = store
            .due_recurring(at(20))
            .await
            .unwrap()
            .into_iter()
            .map(|r| r.id)
            .collect();
        assert_eq!(due, ["soon"]);
        assert_eq!(store.next_recurring().await.unwrap(), Some(at(10)));
    }
}
