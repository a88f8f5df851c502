//! Messages of launchers that an outcome exists: authenticated, and only ever a reason to look.

use ferroflow_auth::CallerKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Path of the route, before run, task id, attempt and code.
pub const PATH: &str = "/apis/ferroflow/v1/pipelines/hints";

/// Makes and checks the codes of hints.
#[derive(Debug, Clone)]
pub struct Hints {
    key: CallerKey,
}

impl Hints {
    /// With the key that the platform's services share.
    pub fn new(key: CallerKey) -> Self {
        Self { key }
    }

    fn mac(&self, run_id: &str, task_id: &str, attempt: u32) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.secret()).ok()?;
        mac.update(format!("pipelines-hint/{run_id}/{task_id}/{attempt}").as_bytes());
        Some(mac)
    }

    /// The path that a launcher posts to.
    pub fn path(&self, run_id: &str, task_id: &str, attempt: u32) -> String {
        let mac = self
            .mac(run_id, task_id, attempt)
            .map(|mac| hex::encode(mac.finalize().into_bytes()));
        format!("{PATH}/{run_id}/{task_id}/{attempt}/{}", mac.unwrap_or_default())
    }

    /// Whether a code belongs to the attempt.
    pub fn verify(&self, run_id: &str, task_id: &str, attempt: u32, code: &str) -> bool {
        let (Some(mac), Ok(code)) = (self.mac(run_id, task_id, attempt), hex::decode(code)) else {
            return false;
        };
        mac.verify_slice(&code).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_good_for_its_own_attempt_only() {
        let hints = Hints::new(CallerKey::random());
        let path = hints.path("r", "t", 1);
        let code = path.rsplit('/').next().unwrap();
        assert!(hints.verify("r", "t", 1, code));
        assert!(!hints.verify("r", "t", 2, code));
        assert!(!hints.verify("r", "t", 1, "00"));
        assert!(!Hints::new(CallerKey::random()).verify("r", "t", 1, code));
    }
}
