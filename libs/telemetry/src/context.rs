//! A place in a trace that outlives the process which was there: kept in a row, handed to a Pod.

use std::collections::HashMap;
use std::str::FromStr as _;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// W3C trace context: which trace, which span of it, and what vendors added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// `00-<trace id>-<span id>-<flags>`.
    pub traceparent: String,
    /// `vendor=value,..`; mostly empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tracestate: String,
}

impl TraceContext {
    /// The context of the span that this code runs in; none when nothing is traced.
    pub fn current() -> Option<Self> {
        Self::of(&Span::current())
    }

    /// The context of a span; none when nothing is traced.
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context();
        let span = context.span();
        Self::from_span_context(span.span_context())
    }

    /// Reads what was kept; none when it is no trace context.
    pub fn parse(traceparent: &str, tracestate: &str) -> Option<Self> {
        let carrier = HashMap::from([
            ("traceparent".to_owned(), traceparent.to_owned()),
            ("tracestate".to_owned(), tracestate.to_owned()),
        ]);
        let context = TraceContextPropagator::new().extract(&carrier);
        Self::from_span_context(context.span().span_context())
    }

    pub(crate) fn from_span_context(span: &SpanContext) -> Option<Self> {
        span.is_valid().then(|| Self {
            traceparent: format!(
                "00-{}-{}-{:02x}",
                span.trace_id(),
                span.span_id(),
                span.trace_flags() & TraceFlags::SAMPLED
            ),
            tracestate: span.trace_state().header(),
        })
    }

    /// Another span of the same trace, whose id the caller chose: one that can be told again after a restart.
    #[must_use]
    pub fn with_span_id(&self, id: [u8; 8]) -> Self {
        let own = self.span_context();
        let other = SpanContext::new(
            own.trace_id(),
            SpanId::from_bytes(id),
            own.trace_flags(),
            true,
            own.trace_state().clone(),
        );
        Self::from_span_context(&other).unwrap_or_else(|| self.clone())
    }

    /// Whether somebody wants to see the trace.
    pub fn is_sampled(&self) -> bool {
        self.span_context().is_sampled()
    }

    /// Makes `span` a child of this place. To be done before the span is entered.
    pub fn adopt(&self, span: &Span) {
        let _untraced = span.set_parent(self.otel());
    }

    pub(crate) fn otel(&self) -> opentelemetry::Context {
        opentelemetry::Context::new().with_remote_span_context(self.span_context())
    }

    pub(crate) fn span_context(&self) -> SpanContext {
        let mut parts = self.traceparent.split('-').skip(1);
        let trace = parts.next().and_then(|id| TraceId::from_hex(id).ok());
        let span = parts.next().and_then(|id| SpanId::from_hex(id).ok());
        let flags = parts.next().and_then(|flags| u8::from_str_radix(flags, 16).ok());
        SpanContext::new(
            trace.unwrap_or(TraceId::INVALID),
            span.unwrap_or(SpanId::INVALID),
            TraceFlags::new(flags.unwrap_or(0)),
            true,
            TraceState::from_str(&self.tracestate).unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_kept_as_text() {
        let context = TraceContext::parse(PARENT, "a=1,b=2").unwrap();
        assert_eq!(
            (context.traceparent.as_str(), context.tracestate.as_str()),
            (PARENT, "a=1,b=2")
        );
        assert!(context.is_sampled());
        let text = serde_json::to_string(&context).unwrap();
        assert_eq!(serde_json::from_str::<TraceContext>(&text).unwrap(), context);
    }

    #[test]
    fn what_is_no_trace_context_is_none() {
        for bad in [
            "",
            "00-0-0-01",
            "hello",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(bad, ""), None, "{bad}");
        }
    }

    #[test]
    fn a_chosen_span_stays_in_its_trace() {
        let context = TraceContext::parse(PARENT, "").unwrap();
        let other = context.with_span_id([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(
            other.traceparent,
            "00-0af7651916cd43dd8448eb211c80319c-0102030405060708-01"
        );
        assert_eq!(context.with_span_id([0; 8]), context, "zero is no span id");
    }

    #[test]
    fn without_a_tracer_there_is_no_context() {
        assert_eq!(TraceContext::current(), None);
    }
}
