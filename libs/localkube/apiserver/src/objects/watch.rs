//! Watches: lines of JSON, one event each.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::read::{Filter, parse_version, too_large};
use super::{is_stored_form, present};
use crate::error::{ApiError, ApiResult};
use crate::handler::Ctx;
use crate::request::Form;
use crate::server::ApiServer;
use crate::store::{Change, ChangeKind, Obj, Subscription, WatchError};

const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// Without `timeoutSeconds` a watch ends after about this long, as the real server's do.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

struct Watcher {
    ctx: Ctx,
    filter: Filter,
    rows_only: std::sync::atomic::AtomicBool,
}

fn expired(asked: u64, oldest: u64) -> ApiError {
    ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
}

/// Answers a watch request.
pub(crate) fn watch(server: &ApiServer, ctx: &Ctx) -> ApiResult<Response> {
    let filter = Filter::of(ctx)?;
    let store = &server.inner.store;
    let namespace = (!ctx.ns().is_empty()).then(|| ctx.ns());
    let bookmarks = ctx.query.flag("allowWatchBookmarks");
    let initial = ctx.query.get("sendInitialEvents").map(|v| v == "true");
    let asked = ctx
        .query
        .non_empty("resourceVersion")
        .map(version)
        .transpose()?
        .filter(|v| *v != 0);
    check_list_options(ctx, initial)?;
    let (first, subscription, ends_initial) = match (initial, asked) {
        (Some(true), _) | (None, None) => {
            if let Some(asked) = asked
                && asked > store.rv()
            {
                return Err(too_large(asked, store.rv()));
            }
            let (objects, subscription) = store.list_and_watch(&ctx.res.storage, namespace);
            (objects, subscription, initial == Some(true))
        }
        (Some(false), None) => (
            Vec::new(),
            store.list_and_watch(&ctx.res.storage, namespace).1,
            false,
        ),
        (_, Some(asked)) => match store.watch(&ctx.res.storage, asked) {
            Ok(subscription) => (Vec::new(), subscription, false),
            Err(WatchError::Expired { asked, oldest }) => {
                return Ok(stream_of_error(ctx, &expired(asked, oldest)));
            }
            Err(WatchError::Future { asked, current }) => return Err(too_large(asked, current)),
        },
    };
    let timeout = ctx
        .query
        .number("timeoutSeconds")
        .and_then(|s| u64::try_from(s).ok())
        .filter(|s| *s > 0)
        .map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let (out, receive) = mpsc::channel::<Bytes>(64);
    let mut plain = ctx.with(&ctx.res, "watch", &ctx.info.namespace, "");
    plain.accept = ctx.accept;
    let watcher = Watcher {
        ctx: plain,
        filter,
        rows_only: false.into(),
    };
    let task = run(
        server.clone(),
        watcher,
        first,
        subscription,
        out,
        bookmarks,
        ends_initial,
        timeout,
    );
    let stop = server.inner.stop.clone();
    server.inner.tasks.spawn(async move {
        tokio::select! {
            () = task => {}
            () = stop.cancelled() => {}
        }
    });
    let stream = tokio_stream::wrappers::ReceiverStream::new(receive);
    let body = Body::from_stream(futures::StreamExt::map(stream, Ok::<_, Infallible>));
    Ok(response(body))
}

/// The version to watch from; one that is none is answered with 500, as the real server does.
fn version(text: &str) -> ApiResult<u64> {
    parse_version(text).map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        ApiError::new(
            500,
            "",
            format!("resourceVersion: Invalid value: {text:?}: {why}"),
            json!({}),
        )
    })
}

fn check_list_options(ctx: &Ctx, initial: Option<bool>) -> ApiResult<()> {
    let matching = ctx.query.non_empty("resourceVersionMatch");
    let invalid = |text: &str| {
        Err(ApiError::new(
            422,
            "Invalid",
            format!("ListOptions.meta.k8s.io \"\" is invalid: {text}"),
            json!({"group": "meta.k8s.io", "kind": "ListOptions"}),
        ))
    };
    match (initial, matching) {
        (Some(_), None) => invalid(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (Some(_), Some(m)) if m != "NotOlderThan" => invalid(&format!(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan: {m}"
        )),
        (None, Some(_)) => invalid(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        _ => Ok(()),
    }
}

fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

fn stream_of_error(_ctx: &Ctx, error: &ApiError) -> Response {
    response(Body::from(format!(
        "{}\n",
        json!({"type": "ERROR", "object": *error.body})
    )))
}

async fn run(
    server: ApiServer,
    watcher: Watcher,
    first: Vec<Arc<Obj>>,
    subscription: Subscription,
    out: mpsc::Sender<Bytes>,
    bookmarks: bool,
    ends_initial: bool,
    timeout: Duration,
) {
    let deadline = Instant::now() + timeout;
    let Subscription {
        backlog,
        mut live,
        rv,
    } = subscription;
    for obj in first {
        let value = present(&watcher.ctx.res, &obj);
        if watcher.filter.matches(&watcher.ctx, &value)
            && out.send(watcher.line("ADDED", &obj, &value)).await.is_err()
        {
            return;
        }
    }
    if ends_initial && bookmarks && out.send(watcher.bookmark(rv, true)).await.is_err() {
        return;
    }
    for change in backlog {
        if let Some(line) = watcher.event(&change)
            && out.send(line).await.is_err()
        {
            return;
        }
    }
    let mut next_bookmark = Instant::now() + BOOKMARK_EVERY;
    let mut sent = rv;
    loop {
        // The version is read first: what is in the channel after that is newer or is sent before the bookmark.
        let durable = server.inner.store.rv();
        match live.try_recv() {
            Ok(change) => {
                sent = change.rv;
                if let Some(line) = watcher.event(&change)
                    && out.send(line).await.is_err()
                {
                    return;
                }
                continue;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Closed) => return,
            Err(TryRecvError::Lagged(_)) => {
                let Some(again) = watcher.catch_up(&server, sent, &out).await else {
                    return;
                };
                (live, sent) = again;
                continue;
            }
        }
        if bookmarks && Instant::now() >= next_bookmark {
            next_bookmark = Instant::now() + BOOKMARK_EVERY;
            if out.send(watcher.bookmark(durable, false)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            biased;
            received = live.recv() => match received {
                Ok(change) => {
                    sent = change.rv;
                    if let Some(line) = watcher.event(&change) && out.send(line).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Closed) => return,
                Err(RecvError::Lagged(_)) => {
                    let Some(again) = watcher.catch_up(&server, sent, &out).await else {
                        return;
                    };
                    (live, sent) = again;
                }
            },
            () = out.closed() => return,
            () = tokio::time::sleep_until(deadline) => return,
            () = tokio::time::sleep_until(next_bookmark), if bookmarks => {}
        }
    }
}

type Live = tokio::sync::broadcast::Receiver<Arc<Change>>;

impl Watcher {
    /// Sends what a slow watcher missed, from the window; it goes on with what is answered. `None` when nobody listens any more or the
    /// window has forgotten it, of which the watcher is told.
    async fn catch_up(
        &self,
        server: &ApiServer,
        sent: u64,
        out: &mpsc::Sender<Bytes>,
    ) -> Option<(Live, u64)> {
        let missed = match server.inner.store.watch(&self.ctx.res.storage, sent) {
            Ok(missed) => missed,
            Err(
                WatchError::Expired { asked, oldest }
                | WatchError::Future {
                    asked,
                    current: oldest,
                },
            ) => {
                let error = expired(asked, oldest);
                let line = format!("{}\n", json!({"type": "ERROR", "object": *error.body}));
                // whether anybody hears it or not, this watch ends
                let _gone = out.send(line.into()).await;
                return None;
            }
        };
        for change in missed.backlog {
            if let Some(line) = self.event(&change) {
                out.send(line).await.ok()?;
            }
        }
        Some((missed.live, missed.rv))
    }

    /// The line of a change, `None` when the watcher does not see it.
    fn event(&self, change: &Change) -> Option<Bytes> {
        if self.ctx.res.namespaced
            && !self.ctx.info.namespace.is_empty()
            && change.key.namespace != self.ctx.info.namespace
        {
            return None;
        }
        if self.filter.is_empty() {
            let kind = match change.kind {
                ChangeKind::Added => "ADDED",
                ChangeKind::Modified => "MODIFIED",
                ChangeKind::Deleted => "DELETED",
            };
            return Some(
                if self.ctx.accept.form == Form::Object && is_stored_form(&self.ctx.res, &change.obj) {
                    self.stored_line(kind, &change.obj)
                } else {
                    self.line(kind, &change.obj, &present(&self.ctx.res, &change.obj))
                },
            );
        }
        let now = present(&self.ctx.res, &change.obj);
        let matches = self.filter.matches(&self.ctx, &now);
        let before = change.prev.as_ref().map(|p| present(&self.ctx.res, p));
        let matched = match (&before, change.kind) {
            (Some(v), _) => self.filter.matches(&self.ctx, v),
            (None, ChangeKind::Added) => false,
            // Unknown after a restart: a deletion that the client does not need does no harm.
            (None, _) => true,
        };
        match (change.kind, matched, matches) {
            (ChangeKind::Deleted, true, _) => Some(self.line("DELETED", &change.obj, &now)),
            (ChangeKind::Deleted, false, _) | (_, false, false) => None,
            (_, false, true) => Some(self.line("ADDED", &change.obj, &now)),
            (_, true, true) => Some(self.line("MODIFIED", &change.obj, &now)),
            (_, true, false) => {
                // What the watcher loses is the last state that it could see, at the version of the change.
                let mut last = before.unwrap_or(now);
                last["metadata"]["resourceVersion"] = change.rv.to_string().into();
                Some(self.value_line("DELETED", &last))
            }
        }
    }

    fn line(&self, kind: &str, obj: &Obj, value: &Value) -> Bytes {
        if self.ctx.accept.form == Form::Object && is_stored_form(&self.ctx.res, obj) {
            return self.stored_line(kind, obj);
        }
        self.value_line(kind, value)
    }

    fn stored_line(&self, kind: &str, obj: &Obj) -> Bytes {
        let mut out = BytesMut::with_capacity(obj.bytes().len() + 120);
        out.put_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        super::with_kind(&self.ctx.res, obj.bytes(), &mut out);
        out.put_slice(b"}\n");
        out.freeze()
    }

    fn value_line(&self, kind: &str, value: &Value) -> Bytes {
        let shown = match self.ctx.accept.form {
            Form::Object => value.clone(),
            Form::Metadata => crate::table::partial(value),
            Form::Table => {
                let first = !self.rows_only.swap(true, std::sync::atomic::Ordering::Relaxed);
                let meta = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
                crate::table::table(&self.ctx, &[value], &meta, first)
            }
        };
        raw_line(kind, shown.to_string().as_bytes())
    }

    fn bookmark(&self, rv: u64, ends_initial: bool) -> Bytes {
        let mut meta = json!({"resourceVersion": rv.to_string(), "creationTimestamp": null});
        if ends_initial {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.ctx.accept.form {
            Form::Table => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": null, "rows": []})
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            Form::Object => {
                let mut object = json!({"kind": self.ctx.res.kind, "apiVersion": self.ctx.res.api_version(), "metadata": meta});
                // Typed clients decode bookmarks as objects of the kind and need its required parts.
                for field in ["spec", "status"] {
                    if self.ctx.res.custom().is_none() && needs(&self.ctx, field) {
                        object[field] = json!({});
                    }
                }
                object
            }
        };
        raw_line("BOOKMARK", object.to_string().as_bytes())
    }
}

fn needs(ctx: &Ctx, field: &str) -> bool {
    match &ctx.res.behaviour {
        crate::registry::Behaviour::Builtin {
            definition: Some(name),
            ..
        } => ctx
            .defs
            .get(name)
            .is_some_and(|d| d.properties.contains_key(field)),
        _ => false,
    }
}

fn raw_line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}
