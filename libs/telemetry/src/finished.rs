//! Spans that are told when they are over, with an id that was chosen when they began: what takes longer than a process
//! lives, such as a run or a step.

use std::cell::Cell;
use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanId, SpanKind, Status, TraceContextExt as _, TraceId, Tracer as _,
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use crate::TraceContext;

/// Name of the tracer, which is `otel.scope.name`.
pub(crate) const SCOPE: &str = "ferroflow";

thread_local! {
    static CHOSEN: Cell<Option<SpanId>> = const { Cell::new(None) };
}

/// Random ids, except for the span whose id [`record`] has chosen.
#[derive(Debug, Default)]
pub(crate) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        self.0.new_trace_id()
    }

    fn new_span_id(&self) -> SpanId {
        CHOSEN.take().unwrap_or_else(|| self.0.new_span_id())
    }
}

/// A span that is over.
#[derive(Debug, Clone)]
pub struct FinishedSpan<'a> {
    /// What it is.
    pub name: String,
    /// Where it is in the trace: made with [`TraceContext::with_span_id`] of its trace.
    pub context: &'a TraceContext,
    /// The span that it belongs to.
    pub parent: &'a TraceContext,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What is known about it.
    pub attributes: Vec<KeyValue>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Exports a span that is over; does nothing where nothing is traced.
pub fn record(span: FinishedSpan<'_>) {
    let builder = SpanBuilder::from_name(span.name)
        .with_kind(SpanKind::Internal)
        .with_start_time(span.start)
        .with_attributes(span.attributes);
    let parent = span.parent.otel();
    if !parent.span().span_context().is_valid() {
        return;
    }
    CHOSEN.set(Some(span.context.span_context().span_id()));
    let mut recorded = opentelemetry::global::tracer(SCOPE).build_with_context(builder, &parent);
    CHOSEN.take();
    if let Some(error) = span.error {
        recorded.set_status(Status::error(error));
    }
    recorded.end_with_timestamp(span.end);
}
