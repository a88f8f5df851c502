//! The unmodified `kfp` client against the service. It runs where `FERROFLOW_TEST_KFP_PYTHON` names a Python with
//! kfp 2.17 and kfp-kubernetes.

#[expect(dead_code, reason = "this test uses a part of it")]
mod support;

use std::path::Path;
use std::sync::Arc;

use ferroflow_auth::{Caller, Principal};
use support::{World, behave};

#[tokio::test(flavor = "multi_thread")]
async fn the_real_client_finds_everything_it_expects() {
    let Ok(python) = std::env::var("FERROFLOW_TEST_KFP_PYTHON") else {
        eprintln!("SKIPPED: FERROFLOW_TEST_KFP_PYTHON is not set (cargo xtask test sets it)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let world = World::open(folder.path(), Arc::new(behave)).await;
    let admin = Caller::new(Principal::user("admin"));
    let router = world.router.clone().layer(axum::Extension(admin));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kfp_client.py");
    let home = folder.path().to_owned();
    let output = tokio::task::spawn_blocking(move || {
        std::process::Command::new(python)
            .arg(script)
            .arg(url)
            .env("HOME", home)
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}
