//! What Prometheus' clients tell about their process, under the names that all of them use. Linux only; elsewhere there is nothing to read.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub(crate) fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Process));
    let version = [("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    registry.register(
        "ferroflow_build",
        "Which Ferroflow this is",
        Info::new(version.to_vec()),
    );
}

#[derive(Debug)]
struct Process;

/// Figures of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    cpu_seconds: f64,
    threads: i64,
    start_seconds: f64,
    virtual_bytes: i64,
    resident_bytes: i64,
    open_files: i64,
    most_files: Option<i64>,
}

/// Reads `/proc/self/stat` (proc_pid_stat(5)) and `btime` of `/proc/stat`.
fn parse(stat: &str, btime: i64, ticks: f64, page: i64) -> Option<Figures> {
    // the name of the program may hold spaces and brackets; what follows is numbers, the first of them being field 3
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    let seconds = |ticks_of: i64| ticks_of as f64 / ticks;
    Some(Figures {
        cpu_seconds: seconds(field(14)? + field(15)?),
        threads: field(20)?,
        start_seconds: btime as f64 + seconds(field(22)?),
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page,
        open_files: 0,
        most_files: None,
    })
}

fn read() -> Option<Figures> {
    let line = |text: &str, start: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(start).map(|rest| rest.trim().to_owned()))
    };
    let btime = line(&fs::read_to_string("/proc/stat").ok()?, "btime ")?
        .parse()
        .ok()?;
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut figures = parse(&stat, btime, ticks as f64, page as i64)?;
    figures.open_files = fs::read_dir("/proc/self/fd").ok()?.count() as i64;
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    figures.most_files = line(&limits, "Max open files")
        .and_then(|rest| rest.split_whitespace().next().map(str::to_owned))
        .and_then(|soft| soft.parse().ok());
    Some(figures)
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(figures) = read() else { return Ok(()) };
        let cpu = encoder.encode_descriptor(
            "process_cpu",
            "Processor time of user and system",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        ConstCounter::new(figures.cpu_seconds).encode(cpu)?;
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory that is resident",
                Some(figures.resident_bytes),
            ),
            (
                "process_virtual_memory_bytes",
                "Memory that is mapped",
                Some(figures.virtual_bytes),
            ),
            (
                "process_open_fds",
                "Files and sockets that are open",
                Some(figures.open_files),
            ),
            (
                "process_max_fds",
                "Files and sockets that may be open",
                figures.most_files,
            ),
            ("process_threads", "Threads", Some(figures.threads)),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(gauge)?;
            }
        }
        let start = encoder.encode_descriptor(
            "process_start_time_seconds",
            "When the process began, in seconds since 1970",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(figures.start_seconds).encode(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_whatever_the_program_is_called() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 1000 4096000 25 0 0";
        let figures = parse(stat, 1_000_000, 100.0, 4096).unwrap();
        assert_eq!(figures.cpu_seconds, 2.0);
        assert_eq!(figures.threads, 9);
        assert_eq!(figures.start_seconds, 1_000_010.0);
        assert_eq!(
            (figures.virtual_bytes, figures.resident_bytes),
            (4_096_000, 25 * 4096)
        );
        assert_eq!(parse("nonsense", 0, 100.0, 4096), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_told_about() {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {text}"))
                .parse()
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let age = now.as_secs_f64() - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
