//! Suggestion algorithms. Each is a function of (search space, settings, points so far): it keeps nothing, so any process
//! may answer any request, and the same request is answered in the same way.

mod grid;
mod random;
mod rng;
pub mod space;

use space::{Point, Space};

/// The algorithms of this version.
pub const ALGORITHMS: [&str; 2] = ["random", "grid"];
/// Katib's others.
pub const KNOWN_ELSEWHERE: [&str; 9] = [
    "tpe",
    "multivariate-tpe",
    "cmaes",
    "sobol",
    "bayesianoptimization",
    "hyperband",
    "pbt",
    "enas",
    "darts",
];

/// Settings by name, in the order given.
pub type Settings = Vec<(String, String)>;

/// What an algorithm answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proposal {
    /// New points; fewer than asked for when there are no more.
    pub points: Vec<Point>,
    /// Settings that the next request must carry, besides the experiment's.
    pub state: Settings,
}

/// Settings or a search space that an algorithm cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AlgorithmError(pub String);

/// Checks settings and search space.
///
/// # Errors
/// With Katib's texts.
pub fn validate(
    algorithm: &str,
    space: &Space,
    settings: &Settings,
    max_trials: Option<i32>,
) -> Result<(), AlgorithmError> {
    known(algorithm)?;
    for (name, value) in settings {
        if name != "random_state" {
            return Err(AlgorithmError(format!(
                "unknown setting {name} for algorithm {algorithm}"
            )));
        }
        if value.parse::<u64>().is_err() {
            return Err(AlgorithmError(format!(
                "random_state {value:?} must be a whole number, 0 or greater"
            )));
        }
    }
    if algorithm == "grid" {
        grid::validate(space, max_trials)?;
    }
    Ok(())
}

/// Proposes `count` points that follow `points`. `entropy` seeds an experiment that names no `random_state`.
///
/// # Errors
/// See [`validate`].
pub fn propose(
    algorithm: &str,
    space: &Space,
    settings: &Settings,
    points: &[Point],
    count: usize,
    entropy: u64,
) -> Result<Proposal, AlgorithmError> {
    known(algorithm)?;
    if algorithm == "grid" {
        return Ok(Proposal {
            points: grid::propose(space, points, count)?,
            state: Settings::new(),
        });
    }
    let given = settings.iter().rev().find(|(name, _)| name == "random_state");
    let (seed, state) = match given.and_then(|(_, value)| value.parse().ok()) {
        Some(seed) => (seed, Settings::new()),
        // The seed becomes part of the state, so that later points follow from it and from nothing else.
        None => (
            entropy >> 1,
            vec![("random_state".to_owned(), (entropy >> 1).to_string())],
        ),
    };
    Ok(Proposal {
        points: random::propose(space, seed, points, count),
        state,
    })
}

fn known(algorithm: &str) -> Result<(), AlgorithmError> {
    if ALGORITHMS.contains(&algorithm) {
        return Ok(());
    }
    let detail = if KNOWN_ELSEWHERE.contains(&algorithm) {
        "is not implemented yet"
    } else {
        "is not known"
    };
    Err(AlgorithmError(format!(
        "algorithm {algorithm:?} {detail}; use one of {}",
        ALGORITHMS.join(", ")
    )))
}
