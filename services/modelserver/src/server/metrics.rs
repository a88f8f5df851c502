//! Counters in Prometheus' text form; plain atomics, since every request touches them.

use crate::protocol::Fault;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the latency buckets in microseconds.
const BUCKETS: [u64; 14] = [
    50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000,
];

/// Codes that have a counter of their own.
const CODES: [u16; 10] = [200, 400, 404, 405, 413, 415, 429, 500, 503, 504];

/// The protocol a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    V1,
    V2,
    Grpc,
}

const PROTOCOLS: [&str; 3] = ["v1", "v2", "grpc-v2"];

/// What the server has done so far.
#[derive(Default)]
pub struct Metrics {
    requests: [[AtomicU64; CODES.len()]; PROTOCOLS.len()],
    buckets: [AtomicU64; BUCKETS.len()],
    micros: AtomicU64,
    count: AtomicU64,
    rows: AtomicU64,
}

impl Metrics {
    /// Counts an inference request by its outcome.
    pub fn request(&self, protocol: Protocol, fault: Option<Fault>) {
        let code = fault.map_or(200, Fault::status);
        let at = CODES.iter().position(|known| *known == code).unwrap_or(7);
        self.requests[protocol as usize][at].fetch_add(1, Ordering::Relaxed);
    }

    /// Records how long the model took for so many rows.
    pub fn predicted(&self, took: Duration, rows: usize) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = BUCKETS.iter().position(|bound| micros <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// The text that `/metrics` answers.
    pub fn text(&self, model: &str, ready: bool) -> String {
        let model = model
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let mut text = String::with_capacity(4096);
        // Writing to a String cannot fail.
        let _ = self.write(&mut text, &model, ready);
        text
    }

    fn write(&self, text: &mut String, model: &str, ready: bool) -> std::fmt::Result {
        text.push_str(
            "# HELP ferroflow_model_ready Whether the model is loaded.\n# TYPE ferroflow_model_ready gauge\n",
        );
        writeln!(
            text,
            "ferroflow_model_ready{{model_name=\"{model}\"}} {}",
            u8::from(ready)
        )?;
        text.push_str("# HELP ferroflow_model_requests_total Inference requests by protocol and code.\n");
        text.push_str("# TYPE ferroflow_model_requests_total counter\n");
        for (protocol, counters) in PROTOCOLS.iter().zip(&self.requests) {
            for (code, counter) in CODES.iter().zip(counters) {
                let value = counter.load(Ordering::Relaxed);
                if value > 0 || *code == 200 {
                    writeln!(
                        text,
                        "ferroflow_model_requests_total{{model_name=\"{model}\",protocol=\"{protocol}\",code=\"{code}\"}} {value}"
                    )?;
                }
            }
        }
        text.push_str(
            "# HELP ferroflow_model_rows_total Rows predicted.\n# TYPE ferroflow_model_rows_total counter\n",
        );
        writeln!(
            text,
            "ferroflow_model_rows_total{{model_name=\"{model}\"}} {}",
            self.rows.load(Ordering::Relaxed)
        )?;
        text.push_str("# HELP request_predict_seconds Time the model takes.\n# TYPE request_predict_seconds histogram\n");
        let mut sum = 0;
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            let bound = *bound as f64 / 1e6;
            writeln!(
                text,
                "request_predict_seconds_bucket{{model_name=\"{model}\",le=\"{bound}\"}} {sum}"
            )?;
        }
        let count = self.count.load(Ordering::Relaxed);
        writeln!(
            text,
            "request_predict_seconds_bucket{{model_name=\"{model}\",le=\"+Inf\"}} {count}"
        )?;
        let seconds = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        writeln!(
            text,
            "request_predict_seconds_sum{{model_name=\"{model}\"}} {seconds}"
        )?;
        writeln!(
            text,
            "request_predict_seconds_count{{model_name=\"{model}\"}} {count}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        metrics.predicted(Duration::from_micros(40), 2);
        metrics.predicted(Duration::from_micros(90), 1);
        metrics.request(Protocol::V2, Some(Fault::TooLarge));
        let text = metrics.text("a\"b", true);
        for line in [
            r#"request_predict_seconds_bucket{model_name="a\"b",le="0.00005"} 1"#,
            r#"request_predict_seconds_bucket{model_name="a\"b",le="0.0001"} 2"#,
            r#"request_predict_seconds_bucket{model_name="a\"b",le="+Inf"} 2"#,
            r#"ferroflow_model_requests_total{model_name="a\"b",protocol="v2",code="413"} 1"#,
            r#"ferroflow_model_rows_total{model_name="a\"b"} 3"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
