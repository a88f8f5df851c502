//! Spans of a short program without an async runtime, such as the launcher: kept in memory, sent once, at its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanExporter as _, SpanLinks,
};

use crate::TraceContext;
use crate::finished::SCOPE;

/// More spans than this are counted and not kept: a step may store very many files.
const MOST: usize = 1000;

#[derive(Debug)]
struct Kept {
    spans: Vec<SpanData>,
    dropped: u64,
}

/// Collects spans of one trace; one that is off costs nothing. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Option<Arc<Mutex<Kept>>>);

/// A span under way; it ends when it is dropped.
#[derive(Debug)]
pub struct LiveSpan(Option<Open>);

/// A span as the parent of others: it may be kept where the span itself is not.
#[derive(Debug, Clone, Default)]
pub struct Place(Option<(Arc<Mutex<Kept>>, SpanContext)>);

#[derive(Debug)]
struct Open {
    recorder: Arc<Mutex<Kept>>,
    context: SpanContext,
    data: SpanData,
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// A recorder that is on.
    pub fn on() -> Self {
        Self(Some(Arc::new(Mutex::new(Kept {
            spans: Vec::new(),
            dropped: 0,
        }))))
    }

    /// A recorder that is off.
    pub fn off() -> Self {
        Self(None)
    }

    /// Begins the first span of this program, as a child of what `parent` names.
    pub fn root(&self, name: impl Into<String>, parent: &TraceContext) -> LiveSpan {
        let parent = parent.span_context();
        LiveSpan(
            self.0
                .as_ref()
                .map(|kept| Open::new(kept, name.into(), &parent, true)),
        )
    }

    /// Sends what was collected to an OTLP collector (gRPC), within `limit`.
    ///
    /// # Errors
    /// Why it could not be sent; the spans are lost then.
    pub fn send(&self, endpoint: &str, resource: Vec<KeyValue>, limit: Duration) -> anyhow::Result<()> {
        let Some(kept) = &self.0 else { return Ok(()) };
        let (spans, dropped) = {
            let mut kept = lock(kept);
            (std::mem::take(&mut kept.spans), kept.dropped)
        };
        if spans.is_empty() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let sent = runtime.block_on(async {
            let mut exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(limit)
                .build()?;
            exporter.set_resource(&Resource::builder_empty().with_attributes(resource).build());
            match tokio::time::timeout(limit, exporter.export(spans)).await {
                Ok(sent) => Ok(sent?),
                Err(_) => anyhow::bail!("no answer within {limit:?}"),
            }
        });
        // a name that is still looked up must not hold the program
        runtime.shutdown_background();
        sent.map_err(|error: anyhow::Error| anyhow::anyhow!("{endpoint}: {error:#}"))?;
        anyhow::ensure!(
            dropped == 0,
            "{dropped} spans beyond the first {MOST} were not kept"
        );
        Ok(())
    }
}

impl Place {
    /// Begins a span here.
    pub fn child(&self, name: &str) -> LiveSpan {
        LiveSpan(
            self.0
                .as_ref()
                .map(|(kept, own)| Open::new(kept, name.to_owned(), own, false)),
        )
    }

    /// Begins a call to another program here.
    pub fn call(&self, name: impl FnOnce() -> String) -> LiveSpan {
        LiveSpan(self.0.as_ref().map(|(kept, own)| {
            let mut open = Open::new(kept, name(), own, false);
            open.data.span_kind = SpanKind::Client;
            open
        }))
    }
}

impl LiveSpan {
    /// A span that records nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// The span as the parent of others.
    pub fn place(&self) -> Place {
        Place(
            self.0
                .as_ref()
                .map(|own| (own.recorder.clone(), own.context.clone())),
        )
    }

    /// Where the span is; none when nothing is recorded.
    pub fn context(&self) -> Option<TraceContext> {
        TraceContext::from_span_context(&self.0.as_ref()?.context)
    }

    /// Adds what is known about it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            open.data.attributes.push(KeyValue::new(key, value));
        }
    }

    /// It failed.
    pub fn fail(&mut self, why: &str) {
        if let Some(open) = &mut self.0 {
            open.data.status = Status::error(why.to_owned());
        }
    }
}

impl Open {
    fn new(recorder: &Arc<Mutex<Kept>>, name: String, parent: &SpanContext, remote: bool) -> Self {
        let id: SpanId = RandomIdGenerator::default().new_span_id();
        let context = SpanContext::new(
            parent.trace_id(),
            id,
            parent.trace_flags(),
            false,
            parent.trace_state().clone(),
        );
        let now = SystemTime::now();
        let data = SpanData {
            span_context: context.clone(),
            parent_span_id: parent.span_id(),
            parent_span_is_remote: remote,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder(SCOPE).build(),
        };
        Self {
            recorder: recorder.clone(),
            context,
            data,
        }
    }
}

impl Drop for LiveSpan {
    fn drop(&mut self) {
        let Some(mut open) = self.0.take() else { return };
        open.data.end_time = SystemTime::now();
        let mut kept = lock(&open.recorder);
        // the last spans to end are the outermost; they are kept in any case
        if kept.spans.len() < MOST || open.data.span_kind == SpanKind::Internal {
            kept.spans.push(open.data);
        } else {
            kept.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    fn parent() -> TraceContext {
        TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "v=1").unwrap()
    }

    fn spans(recorder: &Recorder) -> Vec<SpanData> {
        lock(recorder.0.as_ref().unwrap()).spans.clone()
    }

    #[test]
    fn spans_are_one_trace_with_right_parents() {
        let recorder = Recorder::on();
        let root = recorder.root("run-step", &parent());
        let mut call = root.place().call(|| "PUT".to_owned());
        call.set("http.response.status_code", 500);
        call.fail("status 500");
        let call_context = call.context().unwrap();
        drop(call);
        drop(root);
        let spans = spans(&recorder);
        let (call, root) = (&spans[0], &spans[1]);
        assert_eq!(root.parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(call.parent_span_id, root.span_context.span_id());
        assert_eq!(
            call.span_context.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(call.status, Status::error("status 500"));
        assert_eq!(call_context.tracestate, "v=1");
        assert!(call.end_time <= root.end_time);
    }

    #[test]
    fn one_that_is_off_records_nothing() {
        let recorder = Recorder::off();
        let root = recorder.root("x", &parent());
        let call = root.place().call(|| unreachable!("no name is made"));
        assert_eq!((root.context(), call.context()), (None, None));
        recorder
            .send("http://127.0.0.1:1", Vec::new(), Duration::from_secs(1))
            .unwrap();
    }

    #[test]
    fn many_calls_are_counted_and_the_outer_span_is_kept() {
        let recorder = Recorder::on();
        let root = recorder.root("x", &parent());
        for _ in 0..MOST + 5 {
            root.place().call(|| "PUT".to_owned());
        }
        drop(root);
        assert_eq!(lock(recorder.0.as_ref().unwrap()).dropped, 5);
        assert_eq!(spans(&recorder).last().unwrap().name, "x");
    }

    #[test]
    fn a_collector_that_does_not_answer_is_given_up() {
        // connections are accepted by the kernel, and nobody ever reads from them
        let dead = TcpListener::bind("127.0.0.1:0").unwrap();
        let recorder = Recorder::on();
        drop(recorder.root("x", &parent()));
        let before = Instant::now();
        let endpoint = format!("http://{}", dead.local_addr().unwrap());
        let error = recorder
            .send(&endpoint, Vec::new(), Duration::from_millis(300))
            .unwrap_err();
        assert!(
            before.elapsed() < Duration::from_secs(3),
            "{:?}",
            before.elapsed()
        );
        assert!(error.to_string().starts_with(&endpoint), "{error}");
    }
}
