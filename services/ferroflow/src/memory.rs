//! Gives memory back that was needed for a moment only.
//!
//! glibc keeps what a burst of work needed (a run of 200 steps at once) for as long as the process lives, unless it is told otherwise: after
//! 250 steps a sixth of the resident memory was such room.

use std::time::Duration;

/// Between two looks, which take about a millisecond.
const EVERY: Duration = Duration::from_secs(10);

/// Does so from now on, in the runtime of the caller.
pub(crate) fn give_back_now_and_then() {
    tokio::spawn(async {
        loop {
            tokio::time::sleep(EVERY).await;
            // a runtime that ends has no use for it
            let _ended = tokio::task::spawn_blocking(give_back).await;
        }
    });
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: takes no pointer, and may be called from any thread at any time
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
