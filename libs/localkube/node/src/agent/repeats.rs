//! Which events were told already, as client-go's `EventCorrelator` remembers them. Pure.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;

/// After so long a repetition is news again.
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Distinct events that are remembered.
const REMEMBERED: usize = 4096;

/// About whom, what, and in which words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: Option<String>,
    field: Option<String>,
    kind: Option<String>,
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Debug)]
struct Told {
    name: String,
    count: i32,
    last: Timestamp,
}

#[derive(Debug, Default)]
pub struct Repeats(HashMap<Key, Told>);

impl Repeats {
    /// The object that tells the same, and how often it has been now; None when there is none, or not within the window.
    pub fn again(&mut self, event: &Event, now: Timestamp) -> Option<(String, i32)> {
        let told = self.0.get_mut(&key(event)).filter(|told| fresh(told, now))?;
        told.count = told.count.saturating_add(1);
        told.last = now;
        Some((told.name.clone(), told.count))
    }

    /// Remembers an event that was made.
    pub fn told(&mut self, event: &Event, now: Timestamp) {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, told| fresh(told, now));
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let told = Told {
            name: event.metadata.name.clone().unwrap_or_default(),
            count: 1,
            last: now,
        };
        self.0.insert(key(event), told);
    }
}

fn fresh(told: &Told, now: Timestamp) -> bool {
    now.duration_since(told.last) < WINDOW
}

fn key(event: &Event) -> Key {
    Key {
        uid: event.involved_object.uid.clone(),
        field: event.involved_object.field_path.clone(),
        kind: event.type_.clone(),
        reason: event.reason.clone(),
        message: event.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, message: &str) -> Event {
        let event = json!({"metadata": {"name": name}, "involvedObject": {"uid": "u"}, "reason": "BackOff", "message": message});
        serde_json::from_value(event).unwrap()
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + minute * 60).unwrap()
    }

    #[test]
    fn the_same_words_within_ten_minutes_are_one_event() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.again(&event("a", "x"), at(0)), None);
        repeats.told(&event("a", "x"), at(0));
        assert_eq!(repeats.again(&event("b", "x"), at(9)), Some(("a".to_owned(), 2)));
        assert_eq!(repeats.again(&event("c", "y"), at(9)), None);
        assert_eq!(repeats.again(&event("d", "x"), at(18)), Some(("a".to_owned(), 3)));
        assert_eq!(repeats.again(&event("e", "x"), at(28)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut repeats = Repeats::default();
        for number in 0..=REMEMBERED {
            repeats.told(&event("e", &number.to_string()), at(0));
        }
        assert!(repeats.0.len() <= REMEMBERED);
    }
}
