//! The launcher's part of a trace: spans around what it does, sent once, when nobody waits for it any more.

use std::process::Command;
use std::time::Duration;

use ferroflow_api::step::{ENV_TRACEPARENT, ENV_TRACESTATE, StepTrace};
use ferroflow_telemetry::{KeyValue, LiveSpan, Recorder, TraceContext};

/// How long a collector may take; one that is dead delays the end of a Pod by so much, and nothing else.
const LIMIT: Duration = Duration::from_secs(1);

/// What is recorded, and for whom. Does nothing at all where nothing is traced.
#[derive(Debug, Default)]
pub struct Trace {
    recorder: Recorder,
    place: Option<StepTrace>,
}

impl Trace {
    /// Records for whoever asked for this trace, if anybody did.
    pub fn new(place: Option<&StepTrace>) -> Self {
        let wanted = place
            .and_then(context)
            .is_some_and(|context| context.is_sampled());
        Self {
            recorder: if wanted { Recorder::on() } else { Recorder::off() },
            place: place.cloned(),
        }
    }

    /// Begins the span of everything that the launcher does.
    pub fn root(&self, name: &'static str) -> LiveSpan {
        match self.place.as_ref().and_then(context) {
            Some(parent) => self.recorder.root(name, &parent),
            None => LiveSpan::none(),
        }
    }

    /// Makes what the command records a part of `span`, unless the component has a place of its own for it.
    pub fn hand_on(&self, span: &LiveSpan, command: &mut Command) {
        let (Some(place), Some(own)) = (&self.place, span.context()) else {
            return;
        };
        if std::env::var(ENV_TRACEPARENT).is_ok_and(|now| now == place.traceparent) {
            command.env(ENV_TRACEPARENT, &own.traceparent);
            if !own.tracestate.is_empty() {
                command.env(ENV_TRACESTATE, &own.tracestate);
            }
        }
    }

    /// Sends everything that is over. To be called last.
    pub fn send(&self) {
        let Some(place) = &self.place else { return };
        let mut resource = vec![KeyValue::new("service.name", "ferroflow-launcher")];
        for (key, variable) in [
            ("k8s.pod.name", "HOSTNAME"),
            ("k8s.pod.name", "KFP_POD_NAME"),
            ("k8s.namespace.name", "NAMESPACE"),
        ] {
            if let Ok(value) = std::env::var(variable) {
                resource.push(KeyValue::new(key, value));
            }
        }
        if let Err(error) = self.recorder.send(&place.endpoint, resource, LIMIT) {
            eprintln!("launcher: its spans are lost: {error:#}");
        }
    }
}

fn context(place: &StepTrace) -> Option<TraceContext> {
    TraceContext::parse(&place.traceparent, &place.tracestate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(traceparent: &str) -> StepTrace {
        StepTrace {
            traceparent: traceparent.to_owned(),
            tracestate: String::new(),
            endpoint: "http://127.0.0.1:1".to_owned(),
        }
    }

    #[test]
    fn only_a_trace_that_somebody_wants_is_recorded() {
        let wanted = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = Trace::new(Some(&place(wanted)));
        let context = trace.root("launcher run-step").context().unwrap();
        assert!(
            context
                .traceparent
                .starts_with("00-0af7651916cd43dd8448eb211c80319c-")
        );
        assert!(
            !context.traceparent.contains("b7ad6b7169203331"),
            "a span of its own"
        );
        let unwanted = wanted.replace("-01", "-00");
        for other in [None, Some(place(&unwanted)), Some(place("nonsense"))] {
            assert_eq!(Trace::new(other.as_ref()).root("x").context(), None, "{other:?}");
        }
    }

    #[test]
    fn a_place_that_the_component_chose_stays() {
        // this process has no TRACEPARENT, which is another one than the step's
        let trace = Trace::new(Some(&place(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )));
        let mut command = Command::new("true");
        trace.hand_on(&trace.root("x"), &mut command);
        assert_eq!(command.get_envs().count(), 0);
    }
}
