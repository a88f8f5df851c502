//! Grid search: every point of a finite space, in order.

use std::collections::HashSet;

use super::AlgorithmError;
use super::space::{Domain, Point, Space};

/// Checks that there is a grid, and that it is large enough.
pub fn validate(space: &Space, max_trials: Option<i32>) -> Result<(), AlgorithmError> {
    for parameter in &space.parameters {
        if matches!(parameter.domain, Domain::Double { step: None, .. }) {
            let name = &parameter.name;
            let text = format!(
                "param: {name} step is nil; for discrete search space, all parameters must include step"
            );
            return Err(AlgorithmError(text));
        }
    }
    let Some(count) = space.count() else {
        return Err(AlgorithmError(
            "the grid has more points than can be counted; use larger steps".to_owned(),
        ));
    };
    if let Some(max) = max_trials.filter(|max| u64::try_from(*max).is_ok_and(|max| max > count)) {
        return Err(AlgorithmError(format!(
            "Max Trial Count: {max} > all possible search combinations: {count}"
        )));
    }
    Ok(())
}

/// The first points of the grid that are not among the earlier ones.
pub fn propose(space: &Space, points: &[Point], count: usize) -> Result<Vec<Point>, AlgorithmError> {
    validate(space, None)?;
    let seen: HashSet<&Point> = points.iter().collect();
    let total = space.count().unwrap_or(0);
    Ok((0..total)
        .map(|n| space.nth(n))
        .filter(|point| !seen.contains(point))
        .take(count)
        .collect())
}
