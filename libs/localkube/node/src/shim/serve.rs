//! The shim's socket: agents come and go, the shim stays.

use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use super::pod::Shim;
use super::streams;
use crate::wire::{self, Reply, Request};

pub(super) async fn accept(shim: Rc<Shim>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(serve(shim.clone(), stream));
            }
            Err(error) => {
                eprintln!("shim: accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// The folder of a Pod is only its user's (0700), and so is the socket in it.
async fn serve(shim: Rc<Shim>, mut stream: UnixStream) {
    loop {
        let request = match wire::receive::<Request>(&mut stream).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => {
                eprintln!("shim: bad request: {error}");
                return;
            }
        };
        match request {
            Request::Watch => {
                let (mut reader, mut writer) = stream.into_split();
                let watcher = shim.clone();
                tokio::task::spawn_local(async move {
                    let mut states = watcher.published.subscribe();
                    states.mark_changed();
                    while states.changed().await.is_ok() {
                        let state = Box::new(states.borrow_and_update().clone());
                        if wire::send(&mut writer, &Reply::State(state)).await.is_err() {
                            return;
                        }
                    }
                    drop(writer.shutdown().await);
                });
                // Orders come on the same connection.
                while let Ok(Some(request)) = wire::receive::<Request>(&mut reader).await {
                    order(&shim, request);
                }
                return;
            }
            Request::Exec {
                container,
                argv,
                stdin,
                tty,
            } => {
                return streams::exec(&shim, stream, &container, argv, stdin, tty).await;
            }
            Request::Attach { container, stdin } => {
                return streams::attach(&shim, stream, &container, stdin).await;
            }
            other => order(&shim, other),
        }
    }
}

fn order(shim: &Rc<Shim>, request: Request) {
    match request {
        Request::Prepare(spec) => {
            let name = spec.name.clone();
            shim.specs.borrow_mut().insert(name.clone(), *spec);
            shim.update(|state| {
                if let Some(container) = state
                    .containers
                    .iter_mut()
                    .find(|container| container.name == name)
                {
                    container.prepared = true;
                }
            });
        }
        Request::Terminate { grace_seconds } => shim.terminate(grace_seconds),
        Request::Release => {
            shim.released.set(true);
            shim.wake();
        }
        Request::Watch | Request::Exec { .. } | Request::Attach { .. } => {
            eprintln!("shim: a stream needs a connection of its own");
        }
    }
}
