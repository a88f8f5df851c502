//! Walking the graph from some nodes outwards.

use std::collections::BTreeSet;

use ferroflow_db::DbError;
use ferroflow_kernel::{Code, Error};

use super::{Reader, links};
use crate::domain::model::{Event, Kind};

/// A walk that has seen this many nodes is refused: it would not fit into an answer.
const MOST_NODES: usize = 100_000;

/// Which way to walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
    Both,
}

/// Where a walk stops.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ends {
    pub artifacts: BTreeSet<i64>,
    pub executions: BTreeSet<i64>,
    pub include_artifacts: bool,
    pub include_executions: bool,
}

/// What a walk has found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub artifacts: BTreeSet<i64>,
    pub executions: BTreeSet<i64>,
    pub events: Vec<Event>,
}

/// Walks at most `hops` events from the starting nodes.
pub(crate) async fn walk(
    reader: &mut impl Reader,
    namespace: &str,
    kind: Kind,
    starts: &[i64],
    hops: Option<usize>,
    direction: Direction,
    ends: &Ends,
) -> Result<Found, DbError> {
    let mut found = Found::default();
    let mut kept: BTreeSet<(i64, i64, i32)> = BTreeSet::new();
    let mut kind = kind;
    let end = |kind: Kind, id: &i64| match kind {
        Kind::Artifact => ends.artifacts.contains(id).then_some(ends.include_artifacts),
        _ => ends.executions.contains(id).then_some(ends.include_executions),
    };
    let mut frontier: Vec<i64> = Vec::new();
    for id in starts {
        if end(kind, id) == Some(false) {
            continue;
        }
        if kind == Kind::Artifact {
            found.artifacts.insert(*id)
        } else {
            found.executions.insert(*id)
        };
        if end(kind, id).is_none() {
            frontier.push(*id);
        }
    }
    let mut hop = 0;
    while !frontier.is_empty() && hops.is_none_or(|hops| hop < hops) {
        hop += 1;
        let other = if kind == Kind::Artifact {
            Kind::Execution
        } else {
            Kind::Artifact
        };
        let mut next = BTreeSet::new();
        for event in links::events(reader, namespace, kind, &frontier).await? {
            // up: what wrote an artifact, what an execution read; down: the other way round
            let upwards = event.is_output() == (kind == Kind::Artifact);
            let follow = match direction {
                Direction::Up => upwards,
                Direction::Down => !upwards,
                Direction::Both => true,
            };
            if !follow {
                continue;
            }
            let id = if other == Kind::Artifact {
                event.artifact
            } else {
                event.execution
            };
            if end(other, &id) == Some(false) {
                continue;
            }
            let seen = if other == Kind::Artifact {
                &mut found.artifacts
            } else {
                &mut found.executions
            };
            if seen.insert(id) && end(other, &id).is_none() {
                next.insert(id);
            }
            if kept.insert((event.artifact, event.execution, event.kind)) {
                found.events.push(event);
            }
        }
        if found.artifacts.len() + found.executions.len() > MOST_NODES {
            let text =
                format!("the lineage has more than {MOST_NODES} nodes; set max_num_hops or ending nodes");
            return Err(Error::new(Code::ResourceExhausted, text).into());
        }
        frontier = next.into_iter().collect();
        kind = other;
    }
    Ok(found)
}
