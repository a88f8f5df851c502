//! Log lines as JSON: one object an event, with the ids of the trace that it belongs to.
//!
//! `timestamp`, `level`, `target` and `message` are always there, `trace_id` and `span_id` where something is traced; the event's
//! fields and those of the spans around it stand beside them under their own names.

use std::fmt::Debug;
use std::io::Write;
use std::time::SystemTime;

use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Writes events as lines of JSON to what `W` opens.
#[derive(Debug)]
pub(crate) struct JsonLogs<W> {
    open: W,
}

impl<W> JsonLogs<W> {
    pub(crate) fn new(open: W) -> Self {
        Self { open }
    }
}

/// Fields of a span.
struct SpanFields(Map<String, Value>);

/// Keys that the line itself has.
const RESERVED: &[&str] = &["timestamp", "level", "target", "message", "trace_id", "span_id"];

#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        // what is said to the tracer, such as otel.name, is not said again
        if !field.name().starts_with("otel.") {
            self.0.insert(field.name().to_owned(), value.into());
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        self.put(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }
}

fn now() -> String {
    let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{now:.6}")
}

impl<S, W, F> Layer<S> for JsonLogs<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: Fn() -> W + 'static,
    W: Write,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(fields.0));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(span) = context.span(id)
            && let Some(SpanFields(all)) = span.extensions_mut().get_mut()
        {
            all.extend(fields.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut fields = fields.0;
        // records of the log crate carry where they are from as fields
        let from = fields.remove("log.target");
        fields.retain(|name, _| !name.starts_with("log."));
        let metadata = event.metadata();
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), now().into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        line.insert(
            "target".to_owned(),
            from.unwrap_or_else(|| metadata.target().into()),
        );
        line.insert(
            "message".to_owned(),
            fields.remove("message").unwrap_or_else(|| "".into()),
        );
        let active = opentelemetry::Context::current();
        let span = active.span();
        if span.span_context().is_valid() {
            line.insert(
                "trace_id".to_owned(),
                span.span_context().trace_id().to_string().into(),
            );
            line.insert(
                "span_id".to_owned(),
                span.span_context().span_id().to_string().into(),
            );
        }
        let mut put = |name: String, value: Value| {
            let name = if RESERVED.contains(&name.as_str()) {
                format!("field.{name}")
            } else {
                name
            };
            line.insert(name, value);
        };
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            if let Some(SpanFields(all)) = span.extensions().get() {
                for (name, value) in all {
                    put(name.clone(), value.clone());
                }
            }
        }
        for (name, value) in fields {
            put(name, value);
        }
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        // nobody may be reading any more; what runs goes on all the same
        let _gone = (self.open)().write_all(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(work: impl FnOnce()) -> Vec<Value> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let provider = SdkTracerProvider::builder().build();
        let subscriber = tracing_subscriber::registry()
            .with(JsonLogs::new(move || writer.clone()))
            .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
        tracing::subscriber::with_default(subscriber, work);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_line_has_the_events_fields_those_of_its_spans_and_the_trace() {
        let lines = lines(|| {
            let outer = tracing::info_span!(
                "outer",
                run = "r1",
                task = tracing::field::Empty,
                otel.name = "no"
            );
            let _outer = outer.enter();
            outer.record("task", "root/a");
            tracing::warn!(attempt = 2_u32, level = "shadow", error = %"bad", "step failed");
        });
        let line = &lines[0];
        assert_eq!(line["message"], "step failed");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["attempt"], 2);
        assert_eq!(line["error"], "bad");
        assert_eq!(
            (line["run"].as_str(), line["task"].as_str()),
            (Some("r1"), Some("root/a"))
        );
        assert_eq!(line["field.level"], "shadow");
        assert!(line.get("otel.name").is_none());
        assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
        assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn outside_of_a_span_there_is_no_trace() {
        let lines = lines(|| tracing::info!("hello"));
        assert_eq!(lines[0]["message"], "hello");
        assert!(lines[0].get("trace_id").is_none());
    }
}
