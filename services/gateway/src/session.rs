//! Browser sessions: a one-time link becomes a cookie.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferroflow_auth::Principal;
use http::HeaderMap;
use parking_lot::Mutex;

pub(crate) const COOKIE: &str = "ferroflow_session";
const LINK_LIFETIME: Duration = Duration::from_secs(600);
const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3600);
const MOST_SESSIONS: usize = 10_000;

/// Links that were not used yet and sessions that were not ended. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    links: HashMap<String, (Principal, Instant)>,
    sessions: HashMap<String, (Principal, Instant)>,
}

fn secret() -> String {
    ferroflow_kernel::random_suffix(43)
}

impl Sessions {
    /// A link's secret that opens one session within ten minutes.
    pub(crate) fn make_link(&self, principal: Principal) -> String {
        let link = secret();
        self.0
            .lock()
            .links
            .insert(link.clone(), (principal, Instant::now() + LINK_LIFETIME));
        link
    }

    /// Uses a link up; answers the session's secret.
    pub(crate) fn open(&self, link: &str) -> Option<String> {
        let mut state = self.0.lock();
        let (principal, end) = state.links.remove(link)?;
        let now = Instant::now();
        state.sessions.retain(|_, (_, end)| *end > now);
        if end < now || state.sessions.len() >= MOST_SESSIONS {
            return None;
        }
        let session = secret();
        state
            .sessions
            .insert(session.clone(), (principal, now + SESSION_LIFETIME));
        Some(session)
    }

    /// Who the request's session cookie belongs to.
    pub(crate) fn principal(&self, headers: &HeaderMap) -> Option<Principal> {
        let cookies = headers.get(http::header::COOKIE)?.to_str().ok()?;
        let session = cookies
            .split(';')
            .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
        let state = self.0.lock();
        let (principal, end) = state.sessions.get(session)?;
        (*end > Instant::now()).then(|| principal.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_one_session() {
        let sessions = Sessions::default();
        let link = sessions.make_link(Principal::user("ann"));
        let session = sessions.open(&link).unwrap();
        assert!(sessions.open(&link).is_none(), "used twice");
        let mut headers = HeaderMap::new();
        headers.insert("cookie", format!("a=b; {COOKIE}={session}").parse().unwrap());
        assert_eq!(sessions.principal(&headers).unwrap().user, "ann");
        headers.insert("cookie", format!("{COOKIE}=x").parse().unwrap());
        assert!(sessions.principal(&headers).is_none());
    }
}
