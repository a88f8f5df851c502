//! One suite for every adapter: a local folder, memory, and the three clouds' emulators where their address is given
//! (`e2e/emulators/run.py` starts them and sets `FERROFLOW_TEST_S3`, `FERROFLOW_TEST_GCS`, `FERROFLOW_TEST_AZURE`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferroflow_blob::{
    Blob, BlobError, ByteRange, ListQuery, Mode, Options, PutOptions, list_all, open, put_bytes, resolve,
};
use futures::{StreamExt, TryStreamExt, stream};

fn create_only() -> PutOptions {
    PutOptions {
        mode: Mode::CreateOnly,
        ..PutOptions::default()
    }
}

async fn text(blob: &dyn Blob, key: &str) -> String {
    let bytes = blob.get(key, None).await.unwrap().bytes(1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn part(blob: &dyn Blob, key: &str, range: ByteRange) -> Result<String, BlobError> {
    let bytes = blob.get(key, Some(range)).await?.bytes(1 << 20).await?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

async fn keys(blob: &Arc<dyn Blob>, prefix: &str) -> Vec<String> {
    list_all(blob.clone(), prefix)
        .map_ok(|info| info.key)
        .try_collect()
        .await
        .unwrap()
}

async fn suite(blob: Arc<dyn Blob>) {
    written_bytes_come_back(&blob).await;
    create_only_has_one_winner(&blob).await;
    ranges(&blob).await;
    digests_are_checked(&blob).await;
    a_broken_body_leaves_nothing(&blob).await;
    large_bodies(&blob).await;
    listings(&blob).await;
    copies_and_deletes(&blob).await;
    bad_keys(&blob).await;
}

async fn written_bytes_come_back(blob: &Arc<dyn Blob>) {
    let stored = put_bytes(
        blob.as_ref(),
        "basic/a b#ü%2F.txt",
        "hello",
        PutOptions::default(),
    )
    .await
    .unwrap();
    assert_eq!(stored.size, 5);
    assert_eq!(
        stored.sha256,
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert_eq!(text(blob.as_ref(), "basic/a b#ü%2F.txt").await, "hello");
    let info = blob.head("basic/a b#ü%2F.txt").await.unwrap();
    assert_eq!((info.size, info.key.as_str()), (5, "basic/a b#ü%2F.txt"));
    assert_eq!(info.etag, stored.etag);
    put_bytes(
        blob.as_ref(),
        "basic/a b#ü%2F.txt",
        "other",
        PutOptions::default(),
    )
    .await
    .unwrap();
    assert_eq!(text(blob.as_ref(), "basic/a b#ü%2F.txt").await, "other");
    assert_ne!(
        blob.head("basic/a b#ü%2F.txt").await.unwrap().etag,
        stored.etag,
        "a new write has a new entity tag"
    );
    put_bytes(blob.as_ref(), "basic/empty", "", PutOptions::default())
        .await
        .unwrap();
    assert_eq!(text(blob.as_ref(), "basic/empty").await, "");
    assert!(matches!(
        blob.head("basic/none").await,
        Err(BlobError::NotFound { .. })
    ));
    assert!(matches!(
        blob.get("basic/none", None).await.map(|_| ()),
        Err(BlobError::NotFound { .. })
    ));
    assert!(
        matches!(blob.head("basic").await, Err(BlobError::NotFound { .. })),
        "a folder is not an object"
    );
}

async fn create_only_has_one_winner(blob: &Arc<dyn Blob>) {
    let writers = (0..16).map(|writer| {
        let blob = blob.clone();
        async move {
            put_bytes(
                blob.as_ref(),
                "once/outcome.json",
                format!("writer {writer}"),
                create_only(),
            )
            .await
        }
    });
    let results = futures::future::join_all(writers).await;
    let winners: Vec<usize> = (0..16).filter(|writer| results[*writer].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert_eq!(
        text(blob.as_ref(), "once/outcome.json").await,
        format!("writer {}", winners[0])
    );
    for result in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(matches!(result, BlobError::AlreadyExists { .. }), "{result}");
    }
}

async fn ranges(blob: &Arc<dyn Blob>) {
    put_bytes(blob.as_ref(), "range/x", "0123456789", PutOptions::default())
        .await
        .unwrap();
    let blob = blob.as_ref();
    assert_eq!(
        part(blob, "range/x", ByteRange::Bounded(2, 4)).await.unwrap(),
        "234"
    );
    assert_eq!(
        part(blob, "range/x", ByteRange::Bounded(8, 99)).await.unwrap(),
        "89"
    );
    assert_eq!(part(blob, "range/x", ByteRange::From(7)).await.unwrap(), "789");
    assert_eq!(part(blob, "range/x", ByteRange::Last(3)).await.unwrap(), "789");
    assert_eq!(
        part(blob, "range/x", ByteRange::Last(99)).await.unwrap(),
        "0123456789"
    );
    let outside = part(blob, "range/x", ByteRange::From(10)).await;
    assert!(
        matches!(outside, Err(BlobError::InvalidRange { size: 10, .. })),
        "{outside:?}"
    );
    let reading = blob.get("range/x", Some(ByteRange::Bounded(2, 4))).await.unwrap();
    assert_eq!(
        (reading.info.size, reading.range.clone()),
        (10, 2..5),
        "the size is that of the whole object"
    );
}

async fn digests_are_checked(blob: &Arc<dyn Blob>) {
    let wrong = PutOptions {
        sha256: Some("00".repeat(32)),
        ..PutOptions::default()
    };
    let error = put_bytes(blob.as_ref(), "digest/x", "abc", wrong)
        .await
        .unwrap_err();
    assert!(
        matches!(error, BlobError::Mismatch { what: "sha256", .. }),
        "{error}"
    );
    let short = PutOptions {
        size: Some(4),
        ..PutOptions::default()
    };
    let error = put_bytes(blob.as_ref(), "digest/x", "abc", short)
        .await
        .unwrap_err();
    assert!(
        matches!(error, BlobError::Mismatch { what: "size", .. }),
        "{error}"
    );
    assert!(
        matches!(blob.head("digest/x").await, Err(BlobError::NotFound { .. })),
        "nothing was written"
    );
}

async fn a_broken_body_leaves_nothing(blob: &Arc<dyn Blob>) {
    let broken = |key: &str| BlobError::Body {
        key: key.to_owned(),
        reason: "cut off".to_owned(),
    };
    let body = stream::iter(vec![Ok(Bytes::from_static(b"half")), Err(broken("broken/x"))]).boxed();
    let error = blob
        .put("broken/x", body, PutOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, BlobError::Body { .. }), "{error}");
    assert!(matches!(
        blob.head("broken/x").await,
        Err(BlobError::NotFound { .. })
    ));

    // the writer goes away in the middle: dropping the future must not leave a short object
    let body = stream::iter(vec![Ok(Bytes::from_static(b"half"))])
        .chain(stream::pending())
        .boxed();
    let put = blob.put("broken/y", body, PutOptions::default());
    assert!(
        tokio::time::timeout(Duration::from_millis(50), put)
            .await
            .is_err()
    );
    put_bytes(blob.as_ref(), "broken/z", "after", PutOptions::default())
        .await
        .unwrap();
    assert!(matches!(
        blob.head("broken/y").await,
        Err(BlobError::NotFound { .. })
    ));
    assert_eq!(keys(blob, "broken/").await, ["broken/z"]);
}

async fn large_bodies(blob: &Arc<dyn Blob>) {
    // more than one part, from chunks that divide no part
    let chunk = Bytes::from(vec![7_u8; 999_983]);
    let body = || {
        stream::iter((0..35).map({
            let chunk = chunk.clone();
            move |_| Ok(chunk.clone())
        }))
        .boxed()
    };
    let size = 35 * 999_983;
    let stored = blob.put("large/x", body(), create_only()).await.unwrap();
    assert_eq!(stored.size, size);
    assert_eq!(blob.head("large/x").await.unwrap().size, size);
    let again = blob.put("large/x", body(), create_only()).await;
    assert!(matches!(again, Err(BlobError::AlreadyExists { .. })), "{again:?}");
    let mut reading = blob.get("large/x", None).await.unwrap();
    let mut digest = ferroflow_blob::Digest::new();
    while let Some(chunk) = reading.body.next().await {
        digest.update(&chunk.unwrap());
    }
    assert_eq!(digest.finish(), stored.sha256);
    let wrong = PutOptions {
        sha256: Some("00".repeat(32)),
        ..PutOptions::default()
    };
    assert!(matches!(
        blob.put("large/y", body(), wrong).await,
        Err(BlobError::Mismatch { .. })
    ));
    assert!(matches!(
        blob.head("large/y").await,
        Err(BlobError::NotFound { .. })
    ));
}

async fn listings(blob: &Arc<dyn Blob>) {
    // `-` and `.` sort before `/`, so a walk by folders alone would get the order wrong
    let all = [
        "list/a-b",
        "list/a.txt",
        "list/a/1",
        "list/a/2/x",
        "list/a0",
        "list/b/c/d",
        "list/b/c/e",
        "list/z",
    ];
    for key in all.iter().rev() {
        put_bytes(blob.as_ref(), key, "x", PutOptions::default())
            .await
            .unwrap();
    }
    put_bytes(blob.as_ref(), "listing", "x", PutOptions::default())
        .await
        .unwrap();
    assert_eq!(keys(blob, "list/").await, all);
    assert_eq!(keys(blob, "list/a").await, all[..5]);
    assert_eq!(keys(blob, "list/a/").await, all[2..4]);
    assert_eq!(keys(blob, "nothing/").await, [""; 0]);

    // page by page, every limit, gives the same
    for limit in 1..=all.len() {
        for folders in [false, true] {
            let mut query = ListQuery {
                prefix: "list/".to_owned(),
                folders,
                limit,
                ..ListQuery::default()
            };
            let mut found = Vec::new();
            loop {
                let page = blob.list(query.clone()).await.unwrap();
                assert!(page.objects.len() + page.prefixes.len() <= limit);
                let mut entries: Vec<String> = page.objects.into_iter().map(|info| info.key).collect();
                entries.extend(page.prefixes);
                entries.sort();
                found.extend(entries);
                match page.next {
                    Some(next) => query.after = Some(next),
                    None => break,
                }
            }
            let expected: &[&str] = if folders {
                &[
                    "list/a-b",
                    "list/a.txt",
                    "list/a/",
                    "list/a0",
                    "list/b/",
                    "list/z",
                ]
            } else {
                &all
            };
            assert_eq!(found, expected, "limit {limit}, folders {folders}");
        }
    }
    let query = ListQuery {
        prefix: "list/a".to_owned(),
        folders: true,
        limit: 10,
        ..ListQuery::default()
    };
    assert_eq!(blob.list(query).await.unwrap().prefixes, ["list/a/"]);
    let query = ListQuery {
        prefix: "list/a/".to_owned(),
        folders: true,
        limit: 10,
        ..ListQuery::default()
    };
    assert_eq!(blob.list(query).await.unwrap().prefixes, ["list/a/2/"]);
}

async fn copies_and_deletes(blob: &Arc<dyn Blob>) {
    put_bytes(blob.as_ref(), "copy/a", "one", PutOptions::default())
        .await
        .unwrap();
    blob.copy("copy/a", "copy/deep/b", Mode::Overwrite).await.unwrap();
    put_bytes(blob.as_ref(), "copy/a", "two", PutOptions::default())
        .await
        .unwrap();
    assert_eq!(
        text(blob.as_ref(), "copy/deep/b").await,
        "one",
        "a copy does not follow its source"
    );
    let taken = blob.copy("copy/a", "copy/deep/b", Mode::CreateOnly).await;
    assert!(matches!(taken, Err(BlobError::AlreadyExists { .. })), "{taken:?}");
    let missing = blob.copy("copy/none", "copy/c", Mode::Overwrite).await;
    assert!(matches!(missing, Err(BlobError::NotFound { .. })), "{missing:?}");
    blob.delete("copy/deep/b").await.unwrap();
    blob.delete("copy/deep/b").await.unwrap();
    assert_eq!(keys(blob, "copy/").await, ["copy/a"]);
    let query = ListQuery {
        prefix: "copy/".to_owned(),
        folders: true,
        limit: 10,
        ..ListQuery::default()
    };
    assert!(
        blob.list(query).await.unwrap().prefixes.is_empty(),
        "a folder without objects does not exist"
    );
}

async fn bad_keys(blob: &Arc<dyn Blob>) {
    for key in ["", "../x", "a//b", "a/", ".staging/x"] {
        let put = put_bytes(blob.as_ref(), key, "x", PutOptions::default()).await;
        assert!(
            matches!(put, Err(BlobError::InvalidKey { .. })),
            "{key:?}: {put:?}"
        );
        assert!(
            matches!(blob.head(key).await, Err(BlobError::InvalidKey { .. })),
            "{key:?}"
        );
    }
}

#[tokio::test]
async fn local_folder() {
    let dir = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(dir.path()).unwrap();
    suite(open(url.as_str(), &Options::new()).unwrap()).await;
    let staged = std::fs::read_dir(dir.path().join(".staging")).unwrap().count();
    assert_eq!(staged, 0, "no staging file is left");
}

#[tokio::test]
async fn memory() {
    suite(open("memory:///", &Options::new()).unwrap()).await;
}

async fn emulator(variable: &str) {
    let Ok(text) = std::env::var(variable) else {
        eprintln!("SKIPPED: {variable} is not set (e2e/emulators/run.py starts the emulator and sets it)");
        return;
    };
    // `URL name=value name=value`
    let mut words = text.split_whitespace();
    let url = words.next().unwrap();
    let options = words.fold(Options::new(), |options, word| {
        let (name, value) = word.split_once('=').unwrap();
        options.set(name, value)
    });
    let url = format!("{url}/{}", uuid::Uuid::new_v4());
    suite(open(&url, &options).unwrap()).await;
}

#[tokio::test]
async fn s3_emulator() {
    emulator("FERROFLOW_TEST_S3").await;
}

#[tokio::test]
async fn gcs_emulator() {
    emulator("FERROFLOW_TEST_GCS").await;
}

#[tokio::test]
async fn azure_emulator() {
    emulator("FERROFLOW_TEST_AZURE").await;
}

#[tokio::test]
async fn a_folder_says_when_an_object_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(dir.path()).unwrap();
    let blob = open(url.as_str(), &Options::new()).unwrap();
    put_bytes(blob.as_ref(), "b/a", "x", PutOptions::default())
        .await
        .unwrap();
    for options in [PutOptions::default(), create_only()] {
        let below = put_bytes(blob.as_ref(), "b/a/c", "x", options.clone()).await;
        assert!(matches!(below, Err(BlobError::Conflict { .. })), "{below:?}");
        let above = put_bytes(blob.as_ref(), "b", "x", options).await;
        assert!(matches!(above, Err(BlobError::Conflict { .. })), "{above:?}");
    }
    let long = format!("b/{}", "x".repeat(300));
    let error = put_bytes(blob.as_ref(), &long, "x", PutOptions::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("longer than 255 bytes"), "{error}");
}

#[tokio::test]
async fn what_a_killed_write_left_is_hidden_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".staging")).unwrap();
    std::fs::write(dir.path().join(".staging/half"), "x").unwrap();
    let url = url::Url::from_directory_path(dir.path()).unwrap();
    let blob = open(url.as_str(), &Options::new()).unwrap();
    assert_eq!(keys(&blob, "").await, [""; 0]);
    assert_eq!(blob.clean(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(blob.clean(Duration::ZERO).await.unwrap(), 1);
}

#[tokio::test]
async fn a_uri_resolves_to_its_object() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.json"), "{}").unwrap();
    let uri = format!("file://{}/model.json", dir.path().display());
    let (blob, key) = resolve(&uri, &Options::new()).unwrap();
    assert_eq!(text(blob.as_ref(), &key).await, "{}");
}
