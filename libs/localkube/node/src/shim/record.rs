//! What a shim leaves on disk: the latest state, and exit records that are synced before anyone hears of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::plan::PodPlan;
use crate::state::{Exit, PodState, Status};

const STATE: &str = "state.json";
const EXITS: &str = "exits.jsonl";

#[derive(Debug)]
pub(super) struct Records {
    folder: PathBuf,
    exits: File,
}

impl Records {
    pub fn open(folder: &Path) -> io::Result<Self> {
        let exits = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(EXITS))?;
        Ok(Self {
            folder: folder.to_owned(),
            exits,
        })
    }

    /// Returns once the record is on the disk.
    pub fn exit(&mut self, exit: &Exit) -> io::Result<()> {
        let mut line = serde_json::to_vec(exit)?;
        line.push(b'\n');
        self.exits.write_all(&line)?;
        self.exits.sync_data()
    }

    pub fn state(&self, state: &PodState) -> io::Result<()> {
        let fresh = self.folder.join("state.json.new");
        fs::write(&fresh, serde_json::to_vec(state)?)?;
        fs::rename(fresh, self.folder.join(STATE))
    }
}

/// What is known about a Pod whose shim does not answer.
#[derive(Debug)]
pub struct Recovered {
    pub plan: PodPlan,
    pub state: PodState,
    /// the shim ended before its Pod did
    pub lost: bool,
}

/// The Pod's plan; None when the folder holds none (the agent was stopped while it made the folder).
pub fn read_plan(folder: &Path) -> io::Result<Option<PodPlan>> {
    match fs::read(folder.join(super::PLAN)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads a Pod's folder. Exit records win over the state, which may be older.
/// None when the folder holds no plan.
pub fn recover(folder: &Path) -> io::Result<Option<Recovered>> {
    let Some(plan) = read_plan(folder)? else {
        return Ok(None);
    };
    let mut state = match fs::read(folder.join(STATE)) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(_) => PodState::new(&plan),
    };
    let exits = fs::read(folder.join(EXITS)).unwrap_or_default();
    for line in exits.split(|byte| *byte == b'\n') {
        // A last line that was cut off by a power failure was never reported either.
        if let Ok(exit) = serde_json::from_slice::<Exit>(line) {
            apply(&mut state, exit);
        }
    }
    let lost = state.finished.is_none();
    Ok(Some(Recovered { plan, state, lost }))
}

fn apply(state: &mut PodState, exit: Exit) {
    let Some(container) = state
        .containers
        .iter_mut()
        .find(|container| container.name == exit.container)
    else {
        return;
    };
    let newer = match &container.status {
        Status::Exited(known) => exit.restart > known.restart,
        _ => exit.restart >= container.restarts,
    };
    if newer {
        container.restarts = exit.restart;
        container.ready = false;
        container.status = Status::Exited(exit);
    }
}
