//! Random search: every point is drawn from the distributions of its parameters.

use std::collections::HashSet;

use ferroflow_api::crd::tuning::ParameterAssignment;

use super::rng::Rng;
use super::space::{Distribution, Domain, Parameter, Point, Range, Space};

/// Draws before the free points of a small space are counted instead.
const ATTEMPTS: u64 = 64;
/// Spaces up to this size are counted.
const SMALL: u64 = 100_000;

/// Point number `points.len() + i` depends on the seed, its number, and on the earlier points only in that it differs from
/// them while there are points left.
pub fn propose(space: &Space, seed: u64, points: &[Point], count: usize) -> Vec<Point> {
    let mut seen: HashSet<Point> = points.iter().cloned().collect();
    let mut proposed: Vec<Point> = Vec::with_capacity(count);
    for number in points.len()..points.len() + count {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        let point = (0..ATTEMPTS)
            .map(|attempt| draw(space, &mut Rng::new(seed, number, attempt)))
            .find(|point| !seen.contains(point))
            .or_else(|| free(space, &seen, &mut Rng::new(seed, number, ATTEMPTS)))
            .unwrap_or_else(|| draw(space, &mut Rng::new(seed, number, 0)));
        seen.insert(point.clone());
        proposed.push(point);
    }
    proposed
}

/// One of the points that are left in a small space.
fn free(space: &Space, seen: &HashSet<Point>, rng: &mut Rng) -> Option<Point> {
    let count = space.count().filter(|count| *count <= SMALL)?;
    let left: Vec<Point> = (0..count)
        .map(|n| space.nth(n))
        .filter(|point| !seen.contains(point))
        .collect();
    let choice = rng.below(u64::try_from(left.len()).unwrap_or(0));
    left.into_iter().nth(usize::try_from(choice).unwrap_or(0))
}

fn draw(space: &Space, rng: &mut Rng) -> Point {
    let assign = |p: &Parameter| ParameterAssignment {
        name: p.name.clone(),
        value: value(p, rng),
    };
    space.parameters.iter().map(assign).collect()
}

fn value(parameter: &Parameter, rng: &mut Rng) -> String {
    let steps = parameter.count().unwrap_or(1).max(1);
    match &parameter.domain {
        Domain::List(_) => parameter.nth(rng.below(steps)),
        Domain::Double {
            range,
            step: Some(step),
            ..
        } => {
            let range = reachable(range.min, *step, steps, range.distribution);
            parameter.nth(nearest(&range, real(&range, steps, rng), steps))
        }
        Domain::Double {
            range, step: None, ..
        } => real(range, 0, rng).to_string(),
        Domain::Int { range, step, .. } => {
            #[expect(clippy::cast_precision_loss, reason = "bounds beyond 2^53 are rounded")]
            let range = reachable(range.min as f64, *step as f64, steps, range.distribution);
            parameter.nth(nearest(&range, real(&range, steps, rng), steps))
        }
    }
}

/// From the smallest value to the last that a step falls on, which may be short of the largest.
#[expect(clippy::cast_precision_loss, reason = "a count of steps")]
fn reachable(min: f64, step: f64, steps: u64, distribution: Distribution) -> Range<f64> {
    Range {
        min,
        max: min + step * (steps - 1) as f64,
        distribution,
    }
}

/// A number between the bounds. With steps, each of an even distribution is as likely as the others, those at the bounds
/// included: the bounds are half a step further out.
#[expect(clippy::cast_precision_loss, reason = "a count of steps")]
fn real(range: &Range<f64>, steps: u64, rng: &mut Rng) -> f64 {
    let (min, max) = (range.min, range.max);
    let half = if steps > 1 {
        (max - min) / (steps - 1) as f64 / 2.0
    } else {
        0.0
    };
    match range.distribution {
        Distribution::Uniform => between(min - half, max + half, rng.unit()),
        Distribution::LogUniform => {
            let low = if half < min { min - half } else { min };
            between(low.ln(), (max + half).ln(), rng.unit()).exp()
        }
        Distribution::Normal => truncated_normal(min, max, rng),
        Distribution::LogNormal => truncated_normal(min.ln(), max.ln(), rng).exp(),
    }
    .clamp(min, max)
}

fn between(low: f64, high: f64, unit: f64) -> f64 {
    low + (high - low) * unit
}

fn truncated_normal(min: f64, max: f64, rng: &mut Rng) -> f64 {
    let (mean, deviation) = (f64::midpoint(min, max), (max - min) / 6.0);
    // 3 in 1000 draws fall outside
    (0..16)
        .map(|_| mean + deviation * rng.normal())
        .find(|v| (min..=max).contains(v))
        .unwrap_or(mean)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of a step, not negative"
)]
fn nearest(range: &Range<f64>, value: f64, steps: u64) -> u64 {
    if steps <= 1 || range.max <= range.min {
        return 0;
    }
    let step = (range.max - range.min) / (steps - 1) as f64;
    (((value - range.min) / step).round().max(0.0) as u64).min(steps - 1)
}
