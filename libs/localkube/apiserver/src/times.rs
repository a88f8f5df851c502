//! Times as Kubernetes writes them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Now, to the second: `2026-11-23T17:00:00Z`.
pub fn now() -> String {
    second(Timestamp::now())
}

/// Now, to the microsecond.
pub fn now_micro() -> String {
    micro(Timestamp::now())
}

pub fn second(t: Timestamp) -> String {
    t.to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

fn micro(t: Timestamp) -> String {
    t.to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        .to_string()
}

pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// RFC 3339 in UTC to the second (or microsecond), or the text of Go's error.
pub fn normalise(text: &str, micros: bool) -> Result<String, String> {
    let t = parse(text).ok_or_else(|| {
        let layout = if micros {
            "2006-01-02T15:04:05.000000Z07:00"
        } else {
            "2006-01-02T15:04:05Z07:00"
        };
        format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"")
    })?;
    Ok(if micros { micro(t) } else { second(t) })
}

/// `5s`, `3m`, `2d5h`: an age as kubectl prints it.
pub fn human_duration(seconds: i64) -> String {
    let (s, m, h, d) = (seconds, seconds / 60, seconds / 3600, seconds / 86400);
    if s < -1 {
        "<invalid>".into()
    } else if s < 0 {
        "0s".into()
    } else if s < 120 {
        format!("{s}s")
    } else if m < 10 {
        if s % 60 == 0 {
            format!("{m}m")
        } else {
            format!("{m}m{}s", s % 60)
        }
    } else if m < 180 {
        format!("{m}m")
    } else if h < 8 {
        if m % 60 == 0 {
            format!("{h}h")
        } else {
            format!("{h}h{}m", m % 60)
        }
    } else if h < 48 {
        format!("{h}h")
    } else if d < 8 {
        if h % 24 == 0 {
            format!("{d}d")
        } else {
            format!("{d}d{}h", h % 24)
        }
    } else if d < 730 {
        format!("{d}d")
    } else if d < 8 * 365 {
        let days = d % 365;
        if days == 0 {
            format!("{}y", d / 365)
        } else {
            format!("{}y{days}d", d / 365)
        }
    } else {
        format!("{}y", d / 365)
    }
}

/// The age of an RFC 3339 time, `<unknown>` when there is none.
pub fn age(text: Option<&str>, now: i64) -> String {
    match text.and_then(parse) {
        Some(t) => human_duration(now - t.as_second()),
        None => "<unknown>".into(),
    }
}
