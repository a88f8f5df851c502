//! The one task that writes to the disk, in groups, and makes known what became of each write.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::object::Change;
use super::sqlite::Database;
use super::state::State;

/// Writes of one transaction at most.
const GROUP: usize = 256;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// A write on its way.
pub(super) struct Write {
    pub change: Arc<Change>,
    /// [`State::failures`] when it was made: it may build on what was pending then.
    pub failures: u64,
    pub done: oneshot::Sender<Result<(), String>>,
    pub _permit: OwnedSemaphorePermit,
}

pub(super) enum Job {
    Write(Write),
    Stop,
    #[cfg(test)]
    Test(TestJob),
}

/// What tests do to the disk.
#[cfg(test)]
pub(super) enum TestJob {
    /// Runs SQL beside the writes.
    Sql(String, oneshot::Sender<()>),
    /// Takes the file away until the next [`Database::reopen`].
    Lose,
    /// Writes nothing until this resolves.
    Hold(oneshot::Receiver<()>),
}

/// How far the writer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub durable_rv: u64,
    pub failures: u64,
}

pub(super) struct Writer {
    pub db: Database,
    pub queue: mpsc::UnboundedReceiver<Job>,
    pub state: Arc<Mutex<State>>,
    pub progress: watch::Sender<Progress>,
    /// Why the last write failed.
    pub why: String,
}

impl Writer {
    /// Runs until [`Job::Stop`] comes or the store is dropped.
    pub async fn run(mut self) {
        let mut jobs = Vec::new();
        let mut stop = false;
        while !stop && self.queue.recv_many(&mut jobs, GROUP).await > 0 {
            let mut writes = Vec::new();
            let (failures, unneeded) = {
                let state = self.state.lock();
                (state.failures, state.window.oldest())
            };
            for job in jobs.drain(..) {
                match job {
                    Job::Write(write) if write.failures == failures => writes.push(write),
                    Job::Write(write) => refuse(write, &self.why),
                    Job::Stop => stop = true,
                    #[cfg(test)]
                    Job::Test(job) => self.test(job).await,
                }
            }
            if let Some(last) = writes.last() {
                let newest = last.change.rv;
                let changes = writes.iter().map(|w| w.change.as_ref());
                match self.db.commit(changes, unneeded).await {
                    Ok(()) => self.publish(writes),
                    Err(error) => stop |= self.failed(writes, newest, &error.to_string()).await,
                }
            }
        }
        self.db.close().await;
    }

    #[cfg(test)]
    async fn test(&mut self, job: TestJob) {
        match job {
            TestJob::Sql(text, done) => {
                self.db.execute(&text).await;
                done.send(()).unwrap();
            }
            TestJob::Lose => self.db.lose().await,
            TestJob::Hold(released) => released.await.unwrap(),
        }
    }

    fn publish(&self, writes: Vec<Write>) {
        self.show(writes.iter().map(|w| &w.change));
        for write in writes {
            // whoever asked may be gone; what is written stays
            let _gone = write.done.send(Ok(()));
        }
    }

    fn show<'a>(&self, changes: impl Iterator<Item = &'a Arc<Change>>) {
        let mut state = self.state.lock();
        changes.for_each(|change| state.publish(change));
        self.tell(&state);
    }

    fn tell(&self, state: &State) {
        self.progress.send_replace(Progress {
            durable_rv: state.durable_rv,
            failures: state.failures,
        });
    }

    /// After a commit that failed: finds out whether the file holds the group all the same, so that memory and disk agree.
    /// True when the store was closed meanwhile.
    async fn failed(&mut self, writes: Vec<Write>, newest: u64, why: &str) -> bool {
        tracing::error!(error = why, writes = writes.len(), "the store could not write");
        why.clone_into(&mut self.why);
        match self.db.holds(newest).await {
            Ok(true) => {
                self.publish(writes);
                false
            }
            Ok(false) => {
                self.drop_pending(None);
                writes.into_iter().for_each(|write| refuse(write, why));
                false
            }
            Err(error) => {
                self.why = format!("{why}; and then: {error}");
                self.drop_pending(Some(&self.why));
                let changes: Vec<_> = writes.iter().map(|w| w.change.clone()).collect();
                writes.into_iter().for_each(|write| refuse(write, &self.why));
                self.reopen(&changes, newest).await
            }
        }
    }

    fn drop_pending(&self, refused: Option<&str>) {
        let mut state = self.state.lock();
        state.fail();
        state.refused = refused.map(str::to_owned);
        self.tell(&state);
    }

    /// Opens the file again until it can be read. Nothing is written meanwhile, as what the file holds is not known.
    async fn reopen(&mut self, changes: &[Arc<Change>], newest: u64) -> bool {
        let mut pause = FIRST_RETRY;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                job = self.queue.recv() => match job {
                    Some(Job::Write(write)) => {
                        refuse(write, &self.why);
                        continue;
                    }
                    Some(Job::Stop) | None => return true,
                    #[cfg(test)]
                    Some(Job::Test(_)) => continue,
                },
            }
            pause = (pause * 2).min(LAST_RETRY);
            let held = match self.db.reopen().await {
                Ok(()) => self.db.holds(newest).await,
                Err(error) => Err(error),
            };
            match held {
                Ok(held) => {
                    tracing::info!(held, "the store can write again");
                    if held {
                        self.show(changes.iter());
                    }
                    self.state.lock().refused = None;
                    return false;
                }
                Err(error) => tracing::warn!(%error, "the database cannot be opened again; trying on"),
            }
        }
    }
}

fn refuse(write: Write, why: &str) {
    let _gone = write.done.send(Err(why.to_owned()));
}
